/** What an operation has to know of a deployment: the stack's settings, and what opens its archives. */
import type { AccessKey, Located, Settings } from "../config";
import { isLocated, withMade } from "../config/made";
import { readPlaces, readSettings } from "../config/read";
import { hasAddress, type Machine, type MachineSettings } from "../provider/connection";
import { lastLines, type Result } from "../toolchain/command";
import { Problem } from "../toolchain/progress";
import { pulumi } from "../toolchain/pulumi";
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

export interface Deployment<Known extends Settings = Located> extends Recovery {
  settings: Known;
}

const nowhere = (machine: string) =>
  new Problem(
    `the stack makes the machine ${machine}, and doesn't know where it is: run \`npm run pulumi -- up\` to its end first`,
  );

/** @throws Problem where the stack makes a machine and doesn't know yet where it is */
export function located(name: string, machine: MachineSettings): Machine {
  if (!hasAddress(machine)) throw nowhere(name);
  return machine;
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

type Entries = Record<string, { value?: string; secret?: boolean }>;

/** What a program has to know that only looks at the machines. */
export type Whereabouts = Pick<Located, "deployment" | "machines" | "server" | "drill" | "recoveryKit">;

/**
 * Reads where a stack's machines are. Where the stack didn't make one, that takes neither the passphrase nor the state, so
 * it is read in half of the time.
 * @throws Problem, or RunError with a line for every wrong setting
 */
export async function readWhereabouts(stack: string): Promise<Whereabouts> {
  const config = await pulumi(["config", "--json", "--stack", stack]);
  const entries = Object.entries(JSON.parse(checked(stack, "settings", config)) as Entries);
  const open = entries.flatMap(([key, { value, secret }]) => (secret || value === undefined ? [] : [[key, value]]));
  const places = readPlaces(Object.fromEntries(open), stack);
  return places !== undefined && isLocated(places) ? places : (await readDeployment(stack)).settings;
}

/** What a recovery kit must fit since the last `up`; undefined where the state isn't at hand, or an earlier version made it. */
export async function readKitDigest(stack: string): Promise<string | undefined> {
  const { code, stdout } = await pulumi(["stack", "output", "recoveryKitDigest", "--stack", stack]);
  return code === 0 ? stdout.trim() : undefined;
}

/**
 * Reads a stack's settings, without what the stack made itself.
 * @throws Problem, or RunError with a line for every wrong setting
 */
export async function readStackSettings(stack: string): Promise<Settings> {
  const config = await unlocked(["config", "--json", "--show-secrets", "--stack", stack]);
  const entries = Object.entries(JSON.parse(checked(stack, "settings", config)) as Entries);
  const values = Object.fromEntries(entries.map(([key, { value = "" }]) => [key, value]));
  const secrets = entries.filter(([, { secret }]) => secret).map(([key]) => key);
  return readSettings(values, stack, secrets);
}

/**
 * Reads a stack's settings and its output `recovery`.
 * @throws Problem, also where it isn't known where the server is; or RunError with a line for every wrong setting
 */
export async function readDeployment(stack: string): Promise<Deployment> {
  return withServer(await readWithoutServer(stack));
}

/** @throws Problem where it isn't known where the server is */
export function withServer({ settings, ...recovery }: Deployment<Settings>): Deployment {
  if (!isLocated(settings)) throw nowhere("server");
  return { settings, ...recovery };
}

/**
 * The same for what does without the server: the stack may not have made it yet.
 * @throws Problem, or RunError with a line for every wrong setting
 */
export async function readWithoutServer(stack: string): Promise<Deployment<Settings>> {
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
