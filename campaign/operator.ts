/** What an operator starts on this computer, with its process's number: faults kill it, or parts of it. */
import { spawn } from "node:child_process";
import type { Result } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { descendants } from "../toolchain/process";

export interface Operator {
  pid: number | undefined;
  running(): boolean;
  ended: Promise<Result>;
}

/** Starts one of the project's files with its arguments. After `limitMs` it is killed, with all that it started. */
export function operator(words: readonly string[], limitMs: number): Operator {
  const child = spawn(process.execPath, ["toolchain/run.mjs", ...words], {
    cwd: project,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const texts = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      texts[name] += text;
    });
  }
  let over = false;
  const ended = new Promise<Result>((done) => {
    const timer = setTimeout(() => killAll(child.pid, "SIGKILL"), limitMs);
    child.on("error", (error) => done({ code: 127, stdout: "", stderr: error.message }));
    child.on("exit", () => {
      over = true;
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      over = true;
      done({ code: code ?? (signal === "SIGKILL" ? 137 : 143), ...texts });
    });
  });
  return { pid: child.pid, running: () => !over, ended };
}

/** Sends a signal to a process and to all that it started, or to those of them that a test chooses. */
export function killAll(
  pid: number | undefined,
  signal: NodeJS.Signals,
  chosen: (pid: number) => boolean = () => true,
): boolean {
  if (pid === undefined) return false;
  let sent = false;
  for (const each of [pid, ...descendants(pid)].filter(chosen)) {
    try {
      process.kill(each, signal);
      sent = true;
    } catch {
      // It has ended by itself.
    }
  }
  return sent;
}
