/** OpenSSH's server on a port of this computer's own, for tests that go by the real ssh. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect as dial } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { hasAddress, machineSchema, type Machine as Settings } from "../../provider/connection";

const PROGRAM = "/usr/sbin/sshd";
/** Whether this computer has it. `npm test` installs it where it may. */
export const thereIsSshd = existsSync(PROGRAM);

/** A port that nobody listens on. */
export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

export class Sshd {
  readonly folder = mkdtempSync(join(tmpdir(), "cht-backup-sshd-"));
  readonly identityFile = join(this.folder, "key");
  readonly hostKey: string;
  port = 0;
  private process: ChildProcess | undefined;

  constructor() {
    this.makeKey("key");
    this.makeKey("host");
    this.hostKey = this.publicKey("host");
    writeFileSync(join(this.folder, "authorized_keys"), `${this.publicKey("key")}\n`);
    // sshd wants it where it runs as root.
    if (process.getuid?.() === 0) mkdirSync("/run/sshd", { recursive: true });
  }

  makeKey(name: string, passphrase = "", type = "ed25519"): string {
    const file = join(this.folder, name);
    rmSync(file, { force: true });
    execFileSync("ssh-keygen", ["-q", "-t", type, "-N", passphrase, "-C", name, "-f", file]);
    return file;
  }

  publicKey(name: string): string {
    return readFileSync(join(this.folder, `${name}.pub`), "utf8")
      .split(" ")
      .slice(0, 2)
      .join(" ");
  }

  /** A program in the test's own folder, for instance one that a login runs first. */
  script(name: string, text: string): string {
    const file = join(this.folder, name);
    writeFileSync(file, `#!/bin/sh\n${text}\n`);
    chmodSync(file, 0o755);
    return file;
  }

  /** @param more further configuration */
  async start(more = ""): Promise<void> {
    await this.stop();
    this.port = await freePort();
    const config = join(this.folder, "sshd_config");
    writeFileSync(
      config,
      `ListenAddress 127.0.0.1:${this.port}\n${/^HostKey /m.test(more) ? "" : `HostKey ${this.folder}/host\n`}` +
        `PidFile none\nUsePAM no\nStrictModes no\nAuthorizedKeysFile ${this.folder}/authorized_keys\n${more}\n`,
    );
    let words = "";
    this.process = spawn(PROGRAM, ["-D", "-e", "-f", config], { stdio: ["ignore", "ignore", "pipe"] });
    this.process.stderr?.on("data", (data) => {
      words += data;
    });
    for (let tries = 0; !(await this.listens()); tries++) {
      if (tries > 4000 || this.process.exitCode !== null) throw new Error(`sshd doesn't start: ${words}`);
      await new Promise((done) => setTimeout(done, 25));
    }
  }

  private listens(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = dial(this.port, "127.0.0.1", () => {
        socket.destroy();
        resolve(true);
      });
      socket.on("error", () => resolve(false));
    });
  }

  async stop(): Promise<void> {
    const { process: child } = this;
    this.process = undefined;
    if (child === undefined || child.exitCode !== null) return;
    const ended = new Promise((done) => child.on("exit", done));
    child.kill();
    await ended;
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The way to it, as `host:machines` has it. */
  settings(change: Record<string, unknown> = {}): Settings {
    const configFile = join(this.folder, "ssh_config");
    if (!existsSync(configFile)) writeFileSync(configFile, `UserKnownHostsFile ${this.folder}/known_hosts\n`);
    const machine = machineSchema.parse({
      address: "127.0.0.1",
      port: this.port,
      user: userInfo().username,
      sudo: false,
      identityFile: this.identityFile,
      hostKey: this.hostKey,
      configFile,
      ...change,
    });
    assert.ok(hasAddress(machine));
    return machine;
  }
}
