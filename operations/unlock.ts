/** The passphrase of a stack's secrets: from the environment, or asked for on the terminal, as Pulumi itself does. */
import type { Result } from "../toolchain/command";
import { pulumi } from "../toolchain/pulumi";
import { askSecretly } from "./terminal";

const TRIES = 3;
const isMissing = ({ code, stderr }: Result) => code !== 0 && /passphrase must be set with/.test(stderr);
const isWrong = ({ code, stderr }: Result) => code !== 0 && /incorrect passphrase/.test(stderr);

/** What to do where the CLI has no passphrase for the stack's secrets, or a wrong one; undefined: it says something else. */
export function passphraseAdvice(stack: string, words: string): string | undefined {
  const right =
    "set PULUMI_CONFIG_PASSPHRASE_FILE to the path of a file that holds it, or PULUMI_CONFIG_PASSPHRASE to itself. On a " +
    "terminal it is asked for. It isn't the one of the backups, which the recovery kit has";
  if (/passphrase must be set with/.test(words)) {
    return `the passphrase of the stack ${stack}, which its secrets are encrypted with, isn't in the environment: ${right}`;
  }
  if (/incorrect passphrase/.test(words)) return `that isn't the passphrase of the stack ${stack}: ${right}`;
  const file = /unable to read PULUMI_CONFIG_PASSPHRASE_FILE: (.*)/.exec(words)?.[1];
  return file && `PULUMI_CONFIG_PASSPHRASE_FILE: ${file}; must be the path of a file that holds the stack's passphrase`;
}

type Run = (args: readonly string[], options?: { env: NodeJS.ProcessEnv }) => Promise<Result>;
type Ask = (again: boolean) => Promise<string>;

/**
 * Makes a runner of the CLI for what only the stack's passphrase opens. Where the environment has none and a terminal is there,
 * it is asked for, once for all. It goes to the CLI alone: no other program gets it in its environment.
 * @param ask undefined: there is no terminal
 */
export function unlocking(run: Run, ask: Ask | undefined): (args: readonly string[]) => Promise<Result> {
  let asking: Promise<NodeJS.ProcessEnv> | undefined;
  const askUntilRight = async (args: readonly string[], question: Ask) => {
    for (let tries = 1; ; tries++) {
      const env = { ...process.env, PULUMI_CONFIG_PASSPHRASE: await question(tries > 1) };
      if (tries === TRIES || !isWrong(await run(args, { env }))) return env;
    }
  };
  return async (args) => {
    const result = await run(args, asking && { env: await asking });
    if (!isMissing(result) || ask === undefined) return result;
    asking ??= askUntilRight(args, ask);
    return run(args, { env: await asking });
  };
}

/** The CLI, with the stack's passphrase. */
export const unlocked = unlocking(pulumi, process.stdin.isTTY ? askOnTerminal : undefined);

function askOnTerminal(again: boolean): Promise<string> {
  const question = "Passphrase of the stack's secrets (PULUMI_CONFIG_PASSPHRASE_FILE spares the question): ";
  return askSecretly(`${again ? "That isn't it. " : ""}${question}`, "no passphrase was given");
}
