/** Runs programs on a machine over SSH, one at a time, with their input and output as they come. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Machine, machineSchema } from "../provider/connection";
import { explainConnectionFailure, pinnedConnection } from "../provider/ssh";
import { Problem } from "../toolchain/progress";

/** How long a program on a machine gets to end in order, in milliseconds. */
const PATIENCE = 45_000;

export interface Finished {
  code: number;
  /** As it came. */
  stdout: string;
  /** Printable. */
  stderr: string;
}

export interface RemoteOptions {
  /** What the program reads. */
  stdin?: string;
  /** Keeps the program's standard input open until it ends; closing it tells the program to stop. */
  keepOpen?: boolean;
  /** Gets each line of standard output at once, printable. */
  onLine?: (line: string) => void;
  /** Gets each line of standard error at once, printable. */
  onError?: (line: string) => void;
  /** Ends the program in order. */
  signal?: AbortSignal;
}

/**
 * A text from a machine or an archive as a terminal may get it: what would move the cursor, change colours or turn the
 * writing around is replaced. Lines and tabs stay. Pure.
 */
export function printable(text: string): string {
  return text
    .replace(/\r(?=\n|$)/g, "")
    .replace(/[^\P{Cc}\n\t]|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, "\ufffd");
}

/** A word that a shell takes as it is. */
export function quote(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
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
  return machine.data;
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
    const command = [...(this.machine.sudo ? ["sudo", "-n"] : []), ...words].map(quote).join(" ");
    return new Promise((resolve, reject) => {
      // Out of the terminal's reach: Ctrl-C must leave the way open for tidying up.
      const child = spawn("ssh", [...this.base, command], { stdio: ["pipe", "pipe", "pipe"], detached: true });
      const printed = { stdout: "", stderr: "" };
      for (const [stream, tell] of [
        ["stdout", options.onLine],
        ["stderr", options.onError],
      ] as const) {
        child[stream].setEncoding("utf8").on("data", (text: string) => {
          printed[stream] += text;
        });
        if (tell) createInterface({ input: child[stream] }).on("line", (line) => tell(printable(line)));
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
        reject(
          new Problem(
            error.code === "ENOENT" ? "OpenSSH's `ssh` isn't installed on this computer" : `ssh: ${error.message}`,
          ),
        );
      });
      child.on("close", (code) => {
        clearTimeout(killer);
        options.signal?.removeEventListener("abort", stop);
        if ((code === 255 || code === null) && !options.signal?.aborted) {
          reject(new Problem(this.explainEnd(printed)));
        } else if (code !== 0 && /^sudo: .*password/m.test(printed.stderr)) {
          reject(
            new Problem(`${this.name}: the login may not use sudo without a password. Allow that, or log in as root`),
          );
        } else if (code === 127 && /sudo: (command )?not found/.test(printed.stderr)) {
          reject(new Problem(`${this.name}: there is no sudo. Install it, or log in as root`));
        } else {
          resolve({ code: code ?? 255, ...printed, stderr: printable(printed.stderr) });
        }
      });
      child.stdin.on("error", () => undefined);
      child.stdin.write(options.stdin ?? "");
      if (!options.keepOpen) child.stdin.end();
    });
  }

  /** Why ssh came to no answer. It always says so when it couldn't connect; a program that spoke was reached. */
  private explainEnd({ stdout, stderr }: { stdout: string; stderr: string }): string {
    if (stdout === "" && stderr.trim() !== "")
      return explainConnectionFailure(this.name, this.machine, stderr, this.option);
    return `${this.name} (${this.machine.address}): the SSH connection broke off, or the program there was killed. Run the same command again`;
  }

  /** Removes what it left on this computer. */
  close(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
