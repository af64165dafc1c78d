/**
 * The way to a machine: the system's OpenSSH, so that the operator's configuration, agent, jump hosts and
 * hardware keys work. One connection a machine carries all operations (`ControlMaster` in ssh_config(5)).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import type { Machine as MachineSettings } from "./connection";
import { Refused, Unreachable } from "./refused";
import { type Answer, actionScript, batchScript, END_OF_BATCH, parseBatch, type ShellCall } from "./shell";

/** Sessions at once over one connection; sshd's own limit (`MaxSessions`) is 10, and the master holds one. */
const SESSIONS = 6;
/** How long a batch of reads may take, in milliseconds: a look that hangs must fail the preview, not hold it for ever. */
const LIMIT = 120_000;
/** How long reads are gathered before they go out together, in milliseconds: the engine asks in bursts. */
const GATHER = 4;

/**
 * Options of ssh that lead to the machine. Pure.
 * @param pin options of ssh that give it the pinned host key under the name `pinned`; undefined: the first one it sees
 */
export function connectionOptions(machine: MachineSettings, pin: readonly string[] | undefined): string[] {
  const options = [
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    // What an operator's own configuration may say for logins by hand, and what would keep a root login open here.
    "ControlPersist=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "PermitLocalCommand=no",
    "LogLevel=ERROR",
  ];
  if (pin === undefined) {
    options.push("StrictHostKeyChecking=accept-new");
  } else {
    options.push("StrictHostKeyChecking=yes", ...pin, "GlobalKnownHostsFile=/dev/null");
    // The pin holds for the machine whatever its address is, and no other file has a say.
    options.push("HostKeyAlias=pinned", "UpdateHostKeys=no");
  }
  const result = options.flatMap((option) => ["-o", option]);
  // A shell expands `~`, ssh doesn't in `-F`.
  const local = (path: string) => path.replace(/^~(?=\/)/, homedir());
  if (machine.configFile !== undefined) result.push("-F", local(machine.configFile));
  if (machine.identityFile !== undefined) result.push("-i", local(machine.identityFile), "-o", "IdentitiesOnly=yes");
  if (machine.jump !== undefined) result.push("-J", machine.jump);
  return result;
}

/** Arguments of ssh that lead to the machine, without the command. Pure. */
export function connectionArguments(machine: MachineSettings, knownHosts: string | undefined): string[] {
  const pin = knownHosts === undefined ? undefined : [`UserKnownHostsFile="${knownHosts}"`, "KnownHostsCommand=none"];
  const result = connectionOptions(machine, pin);
  if (machine.port !== undefined) result.push("-p", String(machine.port));
  return [...result, "-l", machine.user, machine.address];
}

/**
 * Arguments of ssh that lead to the machine, its pinned host key (where there is one) written to a file for ssh.
 * @param directory a directory of the caller's own, which it removes when it is done
 */
export function pinnedConnection(machine: MachineSettings, directory: string): string[] {
  if (machine.hostKey === undefined) return connectionArguments(machine, undefined);
  const knownHosts = join(directory, "known_hosts");
  writeFileSync(knownHosts, `pinned ${machine.hostKey}\n`, { mode: 0o600 });
  return connectionArguments(machine, knownHosts);
}

/**
 * What ssh's words about a failed connection mean for the operator, in one line. Pure.
 * @param name the machine's name in `host:machines`
 * @param option the option of a command that names the machine, where it isn't one of `host:machines`
 */
export function explainConnectionFailure(
  name: string,
  machine: MachineSettings,
  stderr: string,
  option?: string,
): string {
  const where = `${name} (${machine.address})`;
  const setting = `host:machines.${name}`;
  const last = stderr.trim().split("\n").at(-1)?.trim() ?? "";
  if (
    /REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed|host key .*(changed|differs)/i.test(stderr)
  ) {
    return machine.hostKey === undefined
      ? `${where}: its SSH host key is not the one known from earlier. If the machine was set up anew, remove the old key with \`ssh-keygen -R ${machine.address}\`; if not, someone may be in between`
      : `${where}: its SSH host key is not the one pinned in ${setting}.hostKey. If the machine was set up anew, pin its new key; if not, someone may be in between`;
  }
  if (/Permission denied/i.test(stderr)) {
    return `${where}: login refused (${last}). Check ${option === undefined ? `${setting}.user and ${setting}.identityFile` : `the user in ${option}, and --identity-file`}, and that the key is authorized there`;
  }
  if (/Could not resolve hostname/i.test(stderr)) {
    return `${where}: the name can't be resolved. Check ${option ?? `${setting}.address`}`;
  }
  return `${where}: can't be reached over SSH${last === "" ? "" : ` (${last})`}. Check ${option ?? setting} and that the machine is up`;
}

interface Result {
  stdout: string;
  stderr: string;
  code: number | null;
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
  private readonly directory = mkdtempSync(join(tmpdir(), "host-ssh-"));
  private readonly base: string[];
  private master: Promise<void> | undefined;
  private masterProcess: ChildProcess | undefined;
  private waiting: Waiting[] = [];
  private gathering = false;
  private asked: Asked | undefined;
  private running = 0;
  private readonly explained = new Set<string>();
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
        const answers = parseBatch(await this.ask(batchScript(batch.map((entry) => entry.call))), batch.length);
        batch.forEach((entry, index) => {
          entry.resolve(answers[index] as Answer);
        });
      } catch (error) {
        for (const entry of batch) entry.reject(this.once(error));
      }
    }
    this.gathering = false;
  }

  /** Has the connection's own shell run a batch. It is there already, which saves a session, `sudo` and a shell. */
  private async ask(script: string): Promise<string> {
    this.master ??= this.connect();
    await this.master;
    const limit = setTimeout(() => {
      this.asked?.reject(
        new Refused(`${this.name} (${this.settings.address}): gave no answer within ${LIMIT / 1000} s`),
      );
      this.asked = undefined;
      this.masterProcess?.kill();
    }, LIMIT);
    try {
      return await new Promise((resolve, reject) => {
        this.asked = { printed: "", resolve, reject };
        this.masterProcess?.stdin?.write(script);
      });
    } finally {
      clearTimeout(limit);
    }
  }

  private async shell(script: string): Promise<Result> {
    this.master ??= this.connect();
    await this.master;
    await this.turn();
    try {
      const result = await run(
        ["-S", this.socket(), "-o", "ControlMaster=no", ...this.base, this.remoteShell()],
        script,
      );
      if (result.code === 255) {
        this.master = undefined;
        throw new Unreachable(this.name, explainConnectionFailure(this.name, this.settings, result.stderr));
      }
      if (result.code !== 0) this.refuseWithoutSudo(result.stderr);
      return result;
    } finally {
      this.running--;
      this.queue.shift()?.();
    }
  }

  /** A machine that can't be reached is explained to the first resource that asks; the others only refer to that. */
  private once(error: unknown): unknown {
    if (!(error instanceof Refused) || !this.explained.has(error.message)) {
      if (error instanceof Refused) this.explained.add(error.message);
      return error;
    }
    const words = `${this.name}: can't be reached, see the first error`;
    return error instanceof Unreachable ? new Unreachable(this.name, words) : new Refused(words);
  }

  private async turn(): Promise<void> {
    while (this.running >= SESSIONS) await new Promise<void>((resolve) => this.queue.push(resolve));
    this.running++;
  }

  private socket(): string {
    return join(this.directory, "connection");
  }

  private remoteShell(): string {
    return this.settings.sudo ? "exec sudo -n sh -s" : "exec sh -s";
  }

  private refuseWithoutSudo(stderr: string): void {
    if (!/^sudo: /m.test(stderr)) return;
    throw new Refused(
      `${this.name}: the login may not use sudo without a password. Allow that, or set host:machines.${this.name}.user to root`,
    );
  }

  /**
   * Opens the connection that all operations share. Its remote side is the shell that answers reads. It reads from us
   * until we are gone: when this process ends, however it ends, so does the connection.
   */
  private connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      const child = spawn("ssh", ["-M", "-S", this.socket(), ...this.base, `echo ready; ${this.remoteShell()}`], {
        stdio: ["pipe", "pipe", "pipe"],
        detached: true,
      });
      this.masterProcess = child;
      let stderr = "";
      let ready = false;
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
        if (!ready) {
          ready = true;
          resolve();
          return;
        }
        const { asked } = this;
        if (asked === undefined) return;
        asked.printed += data;
        if (!asked.printed.endsWith(`\n${END_OF_BATCH}\n`)) return;
        this.asked = undefined;
        asked.resolve(asked.printed);
      });
      child.on("close", () => {
        // One that worked and was lost is made anew; one that never worked isn't tried again and again: each try would
        // wait as long, and sshd shuts out an address with many refused logins (PerSourcePenalties, OpenSSH 9.8).
        if (ready) this.master = undefined;
        const { asked } = this;
        this.asked = undefined;
        try {
          this.refuseWithoutSudo(stderr);
          throw new Unreachable(this.name, explainConnectionFailure(this.name, this.settings, stderr));
        } catch (error) {
          reject(error);
          asked?.reject(error);
        }
      });
    });
  }
}

function run(args: string[], input: string): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn("ssh", args, { stdio: ["pipe", "pipe", "pipe"], detached: true });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (data) => {
      stdout += data;
    });
    child.stderr.setEncoding("utf8").on("data", (data) => {
      stderr += data;
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ stdout, stderr, code }));
    child.stdin.on("error", () => undefined);
    child.stdin.end(input);
  });
}
