/** Runs programs on a machine over SSH, one at a time, with their input and output as they come. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { PassThrough } from "node:stream";
import { type Machine, machineSchema } from "../provider/connection";
import { AfterMark, newMark, remoteCommand } from "../provider/session";
import { explainConnectionFailure, explainLogin, keysFor } from "../provider/ssh-failure";
import { pinnedConnection } from "../provider/ssh-options";
import { plain, plainLines } from "../toolchain/plain";
import { Problem } from "../toolchain/progress";

/** How long a program on a machine gets to end in order, in milliseconds. */
const PATIENCE = 45_000;

export interface Finished {
  code: number;
  /** As it came. */
  stdout: string;
  /** Plain. */
  stderr: string;
}

export interface RemoteOptions {
  /** What the program reads. */
  stdin?: string;
  /** Keeps the program's standard input open until it ends; closing it tells the program to stop. */
  keepOpen?: boolean;
  /** Gets each line of standard output at once, plain. */
  onLine?: (line: string) => void;
  /** Gets each line of standard error at once, plain. */
  onError?: (line: string) => void;
  /** Ends the program in order. */
  signal?: AbortSignal;
  /**
   * For what only looks: seconds until the machine must have answered the connection, and until all must be over; what still
   * runs is dropped then. Default: 15 for the connection, and whatever the program takes.
   */
  limits?: { connect: number; whole: number };
}

/**
 * Takes an SSH destination apart: `[user@]host[:port]` or `ssh://[user@]host[:port]`. Pure.
 * @param more `identityFile` and `configFile` where they are given
 * @throws Problem
 */
export function parseDestination(text: string, more: { identityFile?: string; configFile?: string } = {}): Machine {
  const match = /^(?:ssh:\/\/)?(?:([^@:/]+)@)?(\[[0-9A-Fa-f:.]+\]|[^@:/\s]+)(?::([0-9]+))?\/?$/.exec(text);
  const [, user, host = "", port] = match ?? [];
  const given = {
    address: host.replace(/^\[|\]$/g, ""),
    ...(user === undefined ? {} : { user }),
    ...(port === undefined ? {} : { port: Number(port) }),
    ...more,
  };
  const machine = machineSchema.safeParse(given);
  if (match === null || !machine.success) {
    const wrong = match === null ? "" : ` (its ${machine.error?.issues[0]?.path.join(".") || "form"})`;
    throw new Problem(`${text} is no SSH destination${wrong}: [user@]host[:port], for instance root@new.example.org`);
  }
  return { ...machine.data, address: given.address };
}

/** A machine that is reached over SSH. */
export class Remote {
  private readonly directory = mkdtempSync(join(tmpdir(), "cht-backup-ssh-"));
  private readonly base: string[];

  /**
   * @param name what messages call it
   * @param option the option that names it, where it isn't one of `host:machines`
   */
  constructor(
    readonly name: string,
    readonly machine: Machine,
    private readonly option?: string,
  ) {
    this.base = pinnedConnection(machine, this.directory);
  }

  /** Runs a shell script as root with arguments. A script that fails is a problem. @returns what it printed */
  async script(text: string, args: readonly string[] = [], options: RemoteOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(["sh", "-s", "--", ...args], { ...options, stdin: text });
    if (code !== 0) throw new Problem(`${this.name}: ${stderr.trim() || `exit code ${code}`}`);
    return stdout;
  }

  /** Runs a program as root. It throws only where the machine can't be reached. */
  run(words: readonly string[], options: RemoteOptions = {}): Promise<Finished> {
    const mark = newMark();
    const command = remoteCommand(mark, this.machine.sudo, words);
    return new Promise((resolve, reject) => {
      // Out of the terminal's reach: Ctrl-C must leave the way open for tidying up.
      const { limits } = options;
      // Of an option that is given twice ssh takes the first.
      const connect = limits ? ["-o", `ConnectTimeout=${limits.connect}`] : [];
      const words = [...connect, ...this.base, command];
      const child = spawn("ssh", words, { stdio: ["pipe", "pipe", "pipe"], detached: true });
      let late = false;
      const drop = () => {
        late = true;
        // With a jump host's ssh, which would go on, and keep the outputs open.
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      };
      const limit = limits && setTimeout(drop, limits.whole * 1000);
      const channels = { stdout: new AfterMark(mark), stderr: new AfterMark(mark) };
      const printed = { stdout: "", stderr: "" };
      for (const [stream, tell] of [
        ["stdout", options.onLine],
        ["stderr", options.onError],
      ] as const) {
        const lines = new PassThrough();
        child[stream].setEncoding("utf8").on("data", (text: string) => {
          const own = channels[stream].take(text);
          printed[stream] += own;
          if (tell) lines.write(own);
        });
        child[stream].on("end", () => lines.end());
        if (tell) createInterface({ input: lines }).on("line", (line) => tell(plain(line)));
      }
      let killer: NodeJS.Timeout | undefined;
      const stop = () => {
        if (!options.keepOpen) child.kill();
        child.stdin.end();
        killer = setTimeout(() => child.kill(), PATIENCE);
      };
      options.signal?.addEventListener("abort", stop, { once: true });
      if (options.signal?.aborted) stop();
      child.on("error", (error: NodeJS.ErrnoException) => {
        clearTimeout(limit);
        reject(
          new Problem(
            error.code === "ENOENT" ? "OpenSSH's `ssh` isn't installed on this computer" : `ssh: ${error.message}`,
          ),
        );
      });
      child.on("close", (code) => {
        clearTimeout(killer);
        clearTimeout(limit);
        options.signal?.removeEventListener("abort", stop);
        const { stdout, stderr } = channels;
        if (late) {
          const { name, machine } = this;
          reject(
            new Problem(
              `${name} (${machine.address}): it wasn't done within ${limits?.whole} s, and wasn't waited for`,
            ),
          );
        } else if (!options.signal?.aborted && (!stdout.seen || code === 255 || code === null)) {
          reject(new Problem(this.explainEnd(stdout, stderr, code)));
        } else {
          resolve({ code: code ?? 255, ...printed, stderr: plainLines(printed.stderr) });
        }
      });
      child.stdin.on("error", () => undefined);
      child.stdin.write(options.stdin ?? "");
      if (!options.keepOpen) child.stdin.end();
    });
  }

  /** Why ssh came to no answer. A program that began was reached. */
  private explainEnd(stdout: AfterMark, stderr: AfterMark, code: number | null): string {
    const { name, machine, option } = this;
    if (stdout.seen) {
      return `${name} (${machine.address}): the SSH connection broke off, or the program there was killed. Run the same command again`;
    }
    if (code === 255) {
      return explainConnectionFailure(name, machine, stderr.before, option, () => keysFor(this.base));
    }
    return explainLogin(name, machine, `${stdout.before}\n${stderr.before}`, code, option);
  }

  /** Removes what it left on this computer. */
  close(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Machines that an operation comes to know on its way, which are left all at once. */
export class Remotes {
  private readonly all: Remote[] = [];

  connect(...args: ConstructorParameters<typeof Remote>): Remote {
    const remote = new Remote(...args);
    this.all.push(remote);
    return remote;
  }

  close(): void {
    for (const remote of this.all) remote.close();
  }
}
