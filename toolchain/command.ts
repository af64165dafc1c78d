/** Running other programs. */
import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream, mkdirSync } from "node:fs";
import { join } from "node:path";
import { plain, withoutColours } from "./plain";
import { descendants } from "./process";
import { Problem } from "./progress";

export interface Result {
  /** Exit code; 124 when the time limit ended it, 127 when the program doesn't exist, 128 + n for a signal n. */
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  cwd?: string;
  /** The whole environment. Default: this process's. */
  env?: NodeJS.ProcessEnv;
  /** What the program reads. Default: nothing. */
  stdin?: string | Buffer | NodeJS.ReadableStream;
  /** Time limit in milliseconds. Default: none. */
  timeoutMs?: number;
  /** A file that gets all output as it comes. Default: none. */
  log?: string;
}

const signalNumbers: Record<string, number> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };
const running = new Set<ChildProcess>();
let stopping = false;

/** Thrown instead of starting another program after Ctrl-C. */
export class Stopped extends Problem {}

/**
 * Runs a program and waits for it. It never throws for what the program does: look at the code. After `stopRunning`
 * it throws `Stopped`.
 */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return new Promise((done, fail) => {
    if (stopping) {
      fail(new Stopped("stopped"));
      return;
    }
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: [options.stdin === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    running.add(child);
    const log = options.log === undefined ? undefined : createWriteStream(options.log, { flags: "a" });
    const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
    let timedOut = false;
    const timer =
      options.timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            timedOut = true;
            child.kill("SIGTERM");
            setTimeout(() => child.kill("SIGKILL"), 2000).unref();
          }, options.timeoutMs);
    for (const name of ["stdout", "stderr"] as const) {
      child[name]?.on("data", (chunk: Buffer) => {
        chunks[name].push(chunk);
        log?.write(chunk);
      });
    }
    let finished = false;
    const finish = (code: number, extra = "") => {
      if (finished) return;
      finished = true;
      clearTimeout(timer);
      running.delete(child);
      log?.end();
      if (stopping) {
        fail(new Stopped("stopped"));
        return;
      }
      done({
        code,
        stdout: Buffer.concat(chunks.stdout).toString("utf8"),
        stderr: Buffer.concat(chunks.stderr).toString("utf8") + extra,
      });
    };
    child.on("error", (error: NodeJS.ErrnoException) => finish(error.code === "ENOENT" ? 127 : 126, error.message));
    child.on("close", (code, signal) => {
      if (timedOut) finish(124, `no answer within ${(options.timeoutMs ?? 0) / 1000} s`);
      else finish(code ?? 128 + (signalNumbers[signal ?? ""] ?? 0));
    });
    if (options.stdin !== undefined && child.stdin) {
      // A program that ends without reading everything is judged by its exit code.
      child.stdin.on("error", () => undefined);
      if (typeof options.stdin === "string" || Buffer.isBuffer(options.stdin)) child.stdin.end(options.stdin);
      else options.stdin.pipe(child.stdin);
    }
  });
}

/**
 * Ends everything that `run` started, waits for it, and lets nothing new start.
 * @param signal What to send, or undefined where the programs have got a signal already (Ctrl-C on a terminal).
 * @param limitMs After this time they are killed, with what they started.
 */
export async function stopRunning(signal: NodeJS.Signals | undefined, limitMs: number): Promise<void> {
  stopping = true;
  if (signal !== undefined) for (const child of running) child.kill(signal);
  const end = Date.now() + limitMs;
  while (running.size > 0 && Date.now() < end) await new Promise((wake) => setTimeout(wake, 50));
  for (const child of running) {
    // A program that is killed can't end its own helpers.
    const helpers = child.pid === undefined ? [] : descendants(child.pid);
    child.kill("SIGKILL");
    for (const pid of helpers) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    }
  }
}

/** The last lines of a program's output that say something, for an error message. */
export function lastLines(text: string, count = 8): string {
  return withoutColours(text)
    .split(/\r?\n/)
    .map((line) => line.trimEnd())
    .filter((line) => line !== "")
    .slice(-count)
    .map((line) => `  ${plain(line)}`)
    .join("\n");
}

/** Runs programs for the long steps of a command: all output goes to a log, and a failure quotes its end. */
export class Logged {
  /** @param folder Where the logs are, for instance `.lab/log`. */
  constructor(readonly folder: string) {
    mkdirSync(folder, { recursive: true });
  }

  /** Runs a program that must succeed. `log` is the log's name without its ending. */
  async run(log: string, program: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const file = join(this.folder, `${log}.log`);
    const result = await run(program, args, { ...options, log: file });
    if (result.code !== 0) {
      throw new Problem(
        `${log} failed (${program}, exit code ${result.code}):\n${lastLines(result.stderr || result.stdout)}\n  The whole log: ${file}`,
      );
    }
    return result;
  }
}
