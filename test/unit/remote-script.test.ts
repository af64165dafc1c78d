import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import * as pulumi from "@pulumi/pulumi";
import { after, before, describe, it } from "mocha";
import { isEncryptedKey, isOffered } from "../../components/remote-script";
import { replaceSecrets, runProgram } from "./program";

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "cht-backup-keys-"));
});
after(() => rmSync(folder, { recursive: true }));

/** A new key: its path. */
function makeKey(name: string, passphrase: string, ...options: string[]): string {
  const path = join(folder, name);
  execFileSync("ssh-keygen", ["-q", "-N", passphrase, "-C", "", "-f", path, ...options]);
  return path;
}

describe("an identity file for the Command plugin", () => {
  const kinds = {
    "OpenSSH's form": ["-t", "ed25519"],
    "PEM of RSA": ["-t", "rsa", "-b", "2048", "-m", "PEM"],
    "PKCS 8": ["-t", "ecdsa", "-m", "PKCS8"],
  };
  for (const [kind, options] of Object.entries(kinds)) {
    it(`is known for encrypted, or not: ${kind}`, () => {
      const [open, encrypted] = ["", "hunter2 hunter2"].map((passphrase) =>
        readFileSync(makeKey(`${options.at(-1)}${passphrase.length}`, passphrase, ...options), "utf8"),
      );
      assert.deepEqual([isEncryptedKey(open ?? ""), isEncryptedKey(encrypted ?? "")], [false, true]);
    });
  }

  it("that is cut off, or none at all, isn't taken for an encrypted one", () => {
    const lines = readFileSync(makeKey("whole", ""), "utf8").split("\n");
    for (const text of ["", "ssh-ed25519 AAAA", [lines[0], lines[1]?.slice(0, 24), lines.at(-2)].join("\n")]) {
      assert.equal(isEncryptedKey(text), false);
      assert.equal(isOffered("ssh-ed25519 AAAA\n", text), false);
    }
  });

  it("is found among the agent's keys, where the plugin gets to it before sshd hangs up", () => {
    const path = makeKey("mine", "hunter2 hunter2");
    const [key, mine] = [readFileSync(path, "utf8"), readFileSync(`${path}.pub`, "utf8")];
    const others = (count: number) => "ssh-ed25519 AAAAother somebody's\n".repeat(count);
    assert.equal(isOffered(mine, key), true);
    assert.equal(isOffered(others(4) + mine, key), true);
    assert.equal(isOffered(others(5) + mine, key), false);
    assert.equal(isOffered("The agent has no identities.\n", key), false);
  });
});

describe("the first backup's login", function () {
  this.timeout(30_000);

  const { SSH_AUTH_SOCK } = process.env;
  let agent: ChildProcess;
  before(async () => {
    const socket = join(folder, "agent");
    agent = spawn("ssh-agent", ["-D", "-a", socket], { stdio: "ignore" });
    const until = Date.now() + 10_000;
    while (!existsSync(socket) && Date.now() < until) await setTimeout(20);
    process.env.SSH_AUTH_SOCK = socket;
  });
  after(() => {
    agent.kill();
    if (SSH_AUTH_SOCK === undefined) delete process.env.SSH_AUTH_SOCK;
    else process.env.SSH_AUTH_SOCK = SSH_AUTH_SOCK;
  });

  const connection = async (identityFile: string) => {
    const machines = { cht: { address: "cht.example.org", identityFile }, server: { address: "backup.example.org" } };
    const { resources } = await runProgram({ "host:machines": JSON.stringify(machines) });
    return replaceSecrets(resources.get("first-backup")?.inputs.connection, (inner) => inner) as {
      host: string;
      privateKey?: string;
    };
  };

  it("is by the key's file, until the agent has the key: then no key is in the state", async () => {
    const path = makeKey("operator", "");
    assert.equal((await connection(path)).privateKey, readFileSync(path, "utf8"));
    execFileSync("ssh-add", ["-q", path]);
    const { host, privateKey } = await connection(path);
    assert.deepEqual([host, privateKey], ["cht.example.org", undefined]);
  });

  it("by a key that needs a passphrase is refused with what to do, before anything is touched", async () => {
    await assert.rejects(connection(makeKey("encrypted", "hunter2 hunter2")), (error: Error) => {
      assert.ok(pulumi.RunError.isInstance(error));
      assert.match(error.message, /^host:machines.cht.identityFile: \S+encrypted needs a passphrase, .*`ssh-add \S+`/);
      return true;
    });
  });
});
