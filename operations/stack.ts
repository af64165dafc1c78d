/** What an operation has to know of a deployment: the stack's settings, and what opens its archives. */
import { readSettings, type Settings } from "../config";
import { lastLines, type Result } from "../toolchain/command";
import { Problem } from "../toolchain/progress";
import { pulumi } from "../toolchain/pulumi";

export interface Deployment {
  settings: Settings;
  /** The repository's passphrase. It may go to a program's standard input and nowhere else. */
  passphrase: string;
}

function checked(stack: string, what: string, result: Result): string {
  if (result.code === 0) return result.stdout;
  throw new Problem(`the ${what} of stack ${stack} can't be read:\n${lastLines(result.stderr || result.stdout)}`);
}

/**
 * Reads a stack's settings and its output `recovery`.
 * @throws Problem, or RunError with a line for every wrong setting
 */
export async function readDeployment(stack: string): Promise<Deployment> {
  const [config, output] = await Promise.all([
    pulumi(["config", "--json", "--show-secrets", "--stack", stack]),
    pulumi(["stack", "output", "recovery", "--json", "--show-secrets", "--stack", stack]),
  ]);
  const entries = Object.entries(
    JSON.parse(checked(stack, "settings", config)) as Record<string, { value?: string; secret?: boolean }>,
  );
  const values = Object.fromEntries(entries.map(([key, { value = "" }]) => [key, value]));
  const secrets = entries.filter(([, { secret }]) => secret).map(([key]) => key);
  const settings = readSettings(values, stack, secrets);
  const { passphrase } = JSON.parse(checked(stack, "output `recovery`", output)) as { passphrase: string };
  return { settings, passphrase };
}
