/** What the operator's commands have in common. */
import { type ParseArgsConfig, parseArgs } from "node:util";
import { outliveReaders, report } from "../toolchain/main";
import { plain } from "../toolchain/plain";
import { Problem } from "../toolchain/progress";

/** The command was used wrongly, or it can't begin: exit code 2. */
export class Refused extends Problem {}

export const exitCodes = { right: 0, wrong: 1, refused: 2, stopped: 130 } as const;

/** Shows a line of the command's result. Machines choose some of the words in it. */
export function say(line: string): void {
  process.stdout.write(`${plain(line)}\n`);
}

/** Shows a line that is about the work, beside its result. */
export function remark(line: string): void {
  process.stderr.write(`${plain(line)}\n`);
}

/** Reads a command's options. @throws Refused with a line that names the wrong one */
export function readOptions<T extends NonNullable<ParseArgsConfig["options"]>>(options: T, args: string[]) {
  try {
    return parseArgs({ options, args, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new Refused(
      `${(error as Error).message.split(". ")[0]} (--help lists the options; npm needs \`--\` before them)`,
    );
  }
}

/** What every command of a stack takes. */
const common = { stack: { type: "string" }, help: { type: "boolean", short: "h" } } as const;

/**
 * Reads the options of a command that works on a stack.
 * @returns them with the stack's name; undefined where only the help was asked for, which is printed
 * @throws Refused with a line that names the wrong one, or that the stack is missing
 */
export function optionsOf<T extends NonNullable<ParseArgsConfig["options"]>>(help: string, more: T) {
  const options = readOptions({ ...common, ...more }, process.argv.slice(2));
  const { help: asked, stack } = options as { help?: boolean; stack?: string };
  if (asked) {
    process.stdout.write(help);
    return undefined;
  }
  if (stack === undefined) throw new Refused("--stack is missing: the name of the stack, for instance prod");
  return { ...options, stack };
}

/**
 * Runs a command and sets the process's exit code. Ctrl-C aborts `signal`, and the command tidies up.
 * @param refused the exit code where the command was used wrongly, or can't begin
 */
export async function command(
  name: string,
  work: (signal: AbortSignal) => Promise<number>,
  refused: number = exitCodes.refused,
): Promise<void> {
  outliveReaders();
  const stopped = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (!stopped.signal.aborted) process.stderr.write("\nstopping, and tidying up…\n");
      stopped.abort();
    });
  }
  try {
    process.exitCode = await work(stopped.signal);
  } catch (error) {
    // After Ctrl-C, what fails is what was stopped.
    if (!stopped.signal.aborted) report(name, error);
    process.exitCode = refused;
  }
  if (stopped.signal.aborted) process.exitCode = exitCodes.stopped;
}
