/**
 * The way to a machine: the system's OpenSSH, so that the operator's configuration, agent, jump hosts and
 * hardware keys work. One connection a machine carries all operations (`ControlMaster` in ssh_config(5)).
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Machine as MachineSettings } from "./connection";
import { Refused, Unreachable } from "./refused";
import { AfterMark, newMark, remoteCommand } from "./session";
import { type Answer, actionScript, batchScript, endOfBatch, parseBatch, type ShellCall } from "./shell";
import { explainConnectionFailure, explainLogin, keysFor } from "./ssh-failure";
import { pinnedConnection, socketFolder } from "./ssh-options";

/** Sessions at once over one connection; sshd's own limit (`MaxSessions`) is 10, and the master holds one. */
const SESSIONS = 6;
/** How long a batch of reads may take, in milliseconds: a look that hangs must fail the preview, not hold it for ever. */
const LIMIT = 120_000;
/** How long reads are gathered before they go out together, in milliseconds: the engine asks in bursts. */
const GATHER = 4;

interface Result {
  stdout: string;
  stderr: string;
  code: number | null;
  /** Whether the program began. Where it didn't, the texts are what came in its place. */
  began: boolean;
}

interface Waiting {
  call: ShellCall;
  resolve: (answer: Answer) => void;
  reject: (error: unknown) => void;
}

/** The batch of reads that the machine is working on. */
interface Asked {
  printed: string;
  resolve: (printed: string) => void;
  reject: (error: unknown) => void;
}

/** A machine and its one connection, made at the first use. */
export class Machine {
  private readonly directory = mkdtempSync(join(socketFolder(), "host-ssh-"));
  private readonly base: string[];
  private master: Promise<void> | undefined;
  private masterProcess: ChildProcess | undefined;
  private waiting: Waiting[] = [];
  private gathering = false;
  private asked: Asked | undefined;
  private running = 0;
  /** Of the connection there is: lines of answers begin with it, too. */
  private mark = "";
  private readonly queue: (() => void)[] = [];

  constructor(
    readonly name: string,
    readonly settings: MachineSettings,
  ) {
    this.base = pinnedConnection(settings, this.directory);
  }

  /** Reads something. Reads that are asked for at the same time travel together. */
  read(call: ShellCall): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ call, resolve, reject });
      if (this.gathering) return;
      this.gathering = true;
      setTimeout(() => void this.answer(), GATHER);
    });
  }

  /**
   * Changes something.
   * @returns what the shell function printed
   * @throws Refused with the machine's name and the words the function left on standard error
   */
  async act(call: ShellCall): Promise<string> {
    const result = await this.shell(actionScript(call));
    if (result.code !== 0) {
      const reason = result.stderr.trim() || result.stdout.trim() || `exit code ${result.code}`;
      throw new Refused(`${this.name}: ${reason}`);
    }
    return result.stdout;
  }

  /** Ends the connection and removes what it left on this computer. */
  close(): void {
    this.masterProcess?.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Asks for what is waiting, and for what comes meanwhile, until nothing waits. */
  private async answer(): Promise<void> {
    while (this.waiting.length > 0) {
      const batch = this.waiting;
      this.waiting = [];
      try {
        const answers = await this.ask(batch.map((entry) => entry.call));
        batch.forEach((entry, index) => {
          entry.resolve(answers[index] as Answer);
        });
      } catch (error) {
        for (const entry of batch) entry.reject(error);
      }
    }
    this.gathering = false;
  }

  /**
   * Has the connection's own shell run a batch. It is there already, which saves a session, `sudo` and a shell.
   * @throws where there is no connection, each time the same error: the engine is told once (`server.ts`)
   */
  private async ask(calls: ShellCall[]): Promise<Answer[]> {
    this.master ??= this.connect();
    await this.master;
    const { mark } = this;
    const limit = setTimeout(() => {
      this.asked?.reject(
        new Refused(`${this.name} (${this.settings.address}): gave no answer within ${LIMIT / 1000} s`),
      );
      this.asked = undefined;
      this.masterProcess?.kill();
    }, LIMIT);
    try {
      const printed = await new Promise<string>((resolve, reject) => {
        this.asked = { printed: "", resolve, reject };
        this.masterProcess?.stdin?.write(batchScript(calls, mark));
      });
      return parseBatch(printed, calls.length, mark);
    } finally {
      clearTimeout(limit);
    }
  }

  private async shell(script: string): Promise<Result> {
    this.master ??= this.connect();
    await this.master;
    await this.turn();
    try {
      const mark = newMark();
      const result = await run(
        ["-S", this.socket(), "-o", "ControlMaster=no", ...this.base, this.remoteShell(mark)],
        script,
        mark,
      );
      if (result.code === 255) {
        this.master = undefined;
        throw this.unreachable(result.stderr);
      }
      if (!result.began) {
        throw new Refused(explainLogin(this.name, this.settings, `${result.stdout}\n${result.stderr}`, result.code));
      }
      return result;
    } finally {
      this.running--;
      this.queue.shift()?.();
    }
  }

  private unreachable(stderr: string): Unreachable {
    const keys = () => keysFor(this.base);
    return new Unreachable(this.name, explainConnectionFailure(this.name, this.settings, stderr, undefined, keys));
  }

  private async turn(): Promise<void> {
    while (this.running >= SESSIONS) await new Promise<void>((resolve) => this.queue.push(resolve));
    this.running++;
  }

  private socket(): string {
    return join(this.directory, "connection");
  }

  private remoteShell(mark: string): string {
    return remoteCommand(mark, this.settings.sudo, ["sh", "-s"]);
  }

  /**
   * Opens the connection that all operations share. Its remote side is the shell that answers reads. It reads from us
   * until we are gone: when this process ends, however it ends, so does the connection.
   */
  private connect(): Promise<void> {
    const mark = newMark();
    this.mark = mark;
    return new Promise((resolve, reject) => {
      const child = spawn("ssh", ["-M", "-S", this.socket(), ...this.base, this.remoteShell(mark)], {
        stdio: ["pipe", "pipe", "pipe"],
        detached: true,
      });
      this.masterProcess = child;
      let stderr = "";
      const printed = new AfterMark(mark);
      child.stderr.on("data", (data) => {
        stderr += data;
      });
      child.stdin.on("error", () => undefined);
      child.on("error", (error: NodeJS.ErrnoException) => {
        reject(
          new Refused(
            error.code === "ENOENT" ? "OpenSSH's `ssh` isn't installed on this computer" : `ssh: ${error.message}`,
          ),
        );
      });
      child.stdout.setEncoding("utf8").on("data", (data: string) => {
        const own = printed.take(data);
        if (printed.seen) resolve();
        const { asked } = this;
        if (asked === undefined || own === "") return;
        asked.printed += own;
        const end = `${endOfBatch(mark)}\n`;
        if (!asked.printed.slice(-own.length - end.length).includes(end)) return;
        this.asked = undefined;
        asked.resolve(asked.printed);
      });
      child.on("close", (code) => {
        // One that worked and was lost is made anew; one that never worked isn't tried again and again: each try would
        // wait as long, and sshd shuts out an address with many refused logins (PerSourcePenalties, OpenSSH 9.8).
        if (printed.seen) this.master = undefined;
        const { asked } = this;
        this.asked = undefined;
        const error =
          printed.seen || code === 255
            ? this.unreachable(stderr)
            : new Refused(explainLogin(this.name, this.settings, `${printed.before}\n${stderr}`, code));
        reject(error);
        asked?.reject(error);
      });
    });
  }
}

function run(args: string[], input: string, mark: string): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn("ssh", args, { stdio: ["pipe", "pipe", "pipe"], detached: true });
    const channels = { stdout: new AfterMark(mark), stderr: new AfterMark(mark) };
    const own = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      child[name].setEncoding("utf8").on("data", (data: string) => {
        own[name] += channels[name].take(data);
      });
    }
    child.on("error", reject);
    child.on("close", (code) => {
      const { stdout, stderr } = channels;
      const began = stdout.seen;
      // ssh's own words about a connection that never came about have no mark before them.
      resolve(began ? { ...own, code, began } : { stdout: stdout.before, stderr: stderr.before, code, began });
    });
    child.stdin.on("error", () => undefined);
    child.stdin.end(input);
  });
}
