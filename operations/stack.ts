/** What an operation has to know of a deployment: the stack's settings, and what opens its archives. */
import { type AccessKey, readSettings, type Settings, withMade } from "../config";
import { lastLines, type Result } from "../toolchain/command";
import { Problem } from "../toolchain/progress";
import { passphraseAdvice, unlocked } from "./unlock";

/** The stack's output `recovery`: what opens the archives. */
export interface Recovery {
  /** The repository's passphrase. It may go to a program's standard input and nowhere else, but for the recovery kit. */
  passphrase: string;
  /** The repository's exported key, wrapped by the passphrase. */
  key: string;
  /** Former keys, by the ids of their repositories; those before the last of one as `ID 2`, `ID 3`, … */
  formerKeys?: Record<string, string>;
  /** The server's host key in OpenSSH's form; missing until the next `pulumi up` of a stack from before it was kept. */
  hostKey?: string;
  /** Where the server is, if the stack made it. */
  serverAddress?: string;
  /** The key for reading the bucket, if the stack made it. It may go where the passphrase may. */
  bucketReader?: AccessKey;
}

export interface Deployment extends Recovery {
  settings: Settings;
}

/** What to do about the CLI's words when it can't read a stack; undefined where they say enough. Pure. */
export function adviceFor(stack: string, words: string): string | undefined {
  const lost = "When the state is lost, the printed recovery kit is enough (docs/recovery-kit.md)";
  if (/does not have output property/.test(words)) {
    return `stack ${stack} has never been deployed to its end: run \`npm run pulumi -- up --stack ${stack}\` first. ${lost}`;
  }
  if (/PULUMI_ACCESS_TOKEN|not logged in/i.test(words)) {
    return `this computer isn't logged in to where the state is: \`npm run pulumi -- login --local\`, or login s3://… . ${lost}`;
  }
  if (/no stack named/.test(words)) {
    return `there is no stack ${stack}: \`npm run pulumi -- stack ls\` lists those that there are. ${lost}`;
  }
  return passphraseAdvice(stack, words);
}

function checked(stack: string, what: string, result: Result): string {
  if (result.code === 0) return result.stdout;
  const words = result.stderr || result.stdout;
  throw new Problem(adviceFor(stack, words) ?? `the ${what} of stack ${stack} can't be read:\n${lastLines(words)}`);
}

/**
 * Reads a stack's settings, without what the stack made itself.
 * @throws Problem, or RunError with a line for every wrong setting
 */
export async function readStackSettings(stack: string): Promise<Settings> {
  const config = await unlocked(["config", "--json", "--show-secrets", "--stack", stack]);
  const entries = Object.entries(
    JSON.parse(checked(stack, "settings", config)) as Record<string, { value?: string; secret?: boolean }>,
  );
  const values = Object.fromEntries(entries.map(([key, { value = "" }]) => [key, value]));
  const secrets = entries.filter(([, { secret }]) => secret).map(([key]) => key);
  return readSettings(values, stack, secrets);
}

/**
 * Reads a stack's settings and its output `recovery`.
 * @throws Problem, or RunError with a line for every wrong setting
 */
export async function readDeployment(stack: string): Promise<Deployment> {
  const [settings, output] = await Promise.all([
    readStackSettings(stack),
    unlocked(["stack", "output", "recovery", "--json", "--show-secrets", "--stack", stack]),
  ]);
  const recovery = JSON.parse(checked(stack, "output `recovery`", output)) as Recovery;
  const { serverAddress, bucketReader, hostKey } = recovery;
  const complete = withMade(settings, { serverAddress, bucketReader });
  const { server } = complete.machines;
  // The stack gave the server that it made its host key.
  if (serverAddress !== undefined && hostKey !== undefined) complete.machines.server = { ...server, hostKey };
  return { settings: complete, ...recovery };
}
