/** What a command line program of this project does around its work. */
import { Stopped, stopRunning } from "./command";
import { plainLines } from "./plain";
import { Problem } from "./progress";

/** Whoever reads the output may have seen enough, as `head` has. That is no error, and no reason to leave work half done. */
export function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") throw error;
    });
  }
}

/**
 * Runs a program's work and sets the exit code that it returns (0 for undefined). A problem becomes one line and
 * exit code 1; so does an error nobody thought of, with its stack only where DEBUG is set. What still runs then is
 * ended.
 */
export async function main(program: string, work: () => Promise<number | undefined>): Promise<void> {
  outliveReaders();
  try {
    process.exitCode = (await work()) ?? 0;
  } catch (error) {
    // Then the handler below says what there is to say.
    if (error instanceof Stopped) return;
    report(program, error);
    process.exitCode = 1;
    await stopRunning("SIGTERM", 5000);
  }
}

/**
 * Says in one line what went wrong; the stack of an error nobody thought of only where DEBUG is set. Errors quote what
 * machines said, so what is written is plain.
 */
export function report(program: string, error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`${program}: ${plainLines(message)}\n`);
  if (process.env.DEBUG && error instanceof Error && !(error instanceof Problem)) {
    process.stderr.write(`${plainLines(error.stack ?? "")}\n`);
  }
}

/**
 * On Ctrl-C (or SIGTERM, SIGHUP) the programs that run get time to end properly, then this process ends with
 * the signal's exit code. A second one ends it at once.
 * @param words What the user should know then.
 * @param cleanUp What has to be undone.
 */
export function onInterrupt(words: string, cleanUp: () => void): void {
  let first = true;
  const codes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
  const handle = async (signal: keyof typeof codes) => {
    if (!first) {
      // npm passes a Ctrl-C on that the terminal has already sent.
      if (Date.now() - firstAt < 500) return;
      cleanUp();
      process.exit(codes[signal]);
    }
    first = false;
    firstAt = Date.now();
    process.stderr.write("\nstopping…\n");
    // On a terminal everything in the foreground has got the signal; a second one would cut Pulumi short.
    await stopRunning(signal === "SIGINT" && process.stdin.isTTY ? undefined : "SIGINT", 30_000);
    cleanUp();
    process.stderr.write(`${words}\n`);
    process.exit(codes[signal]);
  };
  let firstAt = 0;
  for (const signal of Object.keys(codes) as (keyof typeof codes)[]) process.on(signal, () => void handle(signal));
}
