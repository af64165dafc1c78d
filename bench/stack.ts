/** Stacks that are measured: the CLI as an operator runs it, with a state of the bench's own where it isn't the lab's. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { passphraseFile } from "../lab/stack";
import { lastLines, type Result } from "../toolchain/command";
import { labFolder, project } from "../toolchain/paths";
import { Problem } from "../toolchain/progress";
import { pulumi } from "../toolchain/pulumi";

/** What the bench keeps between runs and leaves behind; `npm run lab:down` removes it. */
export const benchFolder = join(labFolder, "bench");

/** What the CLI's environment is for a stack. Any but the lab's has its state in the bench's folder. */
export function environmentOf(stack: string): NodeJS.ProcessEnv {
  const state = join(benchFolder, "state");
  mkdirSync(state, { recursive: true, mode: 0o700 });
  const own = {
    PULUMI_BACKEND_URL: `file://${state}`,
    PULUMI_CONFIG_PASSPHRASE_FILE: passphraseFile,
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
  };
  return { ...process.env, ...(stack === "lab" ? {} : own), PULUMI_STACK: stack };
}

/** Runs the CLI, which must succeed. */
export async function mustRun(stack: string, args: readonly string[], folder: string = project): Promise<Result> {
  const env = environmentOf(stack);
  const result = await pulumi([...args, "--color", "never"], { cwd: folder, env });
  if (result.code !== 0) {
    throw new Problem(
      `pulumi ${args.join(" ")} (stack ${stack}) failed, exit code ${result.code}:\n${lastLines(result.stdout + result.stderr, 15)}`,
    );
  }
  return result;
}
