import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, beforeEach, describe, it } from "mocha";
import { anotherInstance } from "../../components/first-boot";
import { type ScriptOrder, waitForLogin } from "../../operations/script";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";

const folder = mkdtempSync(join(tmpdir(), "cht-backup-script-"));
const calls = join(folder, "calls");
const { PATH } = process.env;
const withoutOurPrograms = () => {
  process.env.PATH = PATH;
};
after(() => rmSync(folder, { recursive: true }));

/** Puts a program in front of what the computer has. */
function program(name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

const machine = { address: "192.0.2.7", user: "ops", sudo: true, hostKey: "ssh-ed25519 AAAA", jump: "bastion" };
const order: ScriptOrder = { name: "server", machine, words: ["a.service", "two words"] };

describe("a one-shot command on a machine", function () {
  this.timeout(20_000);

  beforeEach(() => {
    process.env.PATH = `${folder}:${PATH}`;
    writeFileSync(calls, "");
  });
  afterEach(withoutOurPrograms);

  /** As the Command plugin starts it. */
  const started = (given: ScriptOrder, stdin: string) =>
    run("node", ["--require", "./toolchain/typescript.cjs", "operations/script.ts"], {
      cwd: project,
      env: { ...process.env, CHT_BACKUP_SCRIPT: JSON.stringify(given) },
      stdin,
    });

  it("goes by the system's ssh with the options of everything else; what it prints comes through, plain, and how it ends", async () => {
    program("ssh", `printf '%s\\n' "$@" >>${calls}; for last; do :; done; exec sh -c "$last"`);
    program("sudo", 'shift; exec "$@"');
    const script = "printf 'at work\\033[2J\\n'; echo \"$1+$2\"; echo why >&2; exit 3";
    const done = await started(order, script);
    assert.deepEqual(done, { code: 3, stdout: "at work\\x1b[2J\na.service+two words\n", stderr: "why\n" });
    const words = readFileSync(calls, "utf8");
    assert.match(
      words,
      /^-J\nbastion\n[\s\S]*^-l\nops\n192\.0\.2\.7\nexec sudo -n sh -c .* 'bash' '-s' '--' 'a\.service' 'two words'$/m,
    );
    assert.match(words, /^HostKeyAlias=pinned$/m);
  });

  it("that finds nobody there says so in our words", async () => {
    program("ssh", "echo 'ssh: connect to host 192.0.2.7 port 22: Connection refused' >&2; exit 255");
    const { code, stderr } = await started(order, "true");
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^cht-backup: server \(192\.0\.2\.7\): can't be reached over SSH: nothing answers at port 22/m,
    );
  });

  const starting = { patience: 30, refused: anotherInstance("i-0123", { region: "eu-west-1", profile: "moh" }) };
  const quick = { unreachable: 0.01, refused: 0.01 };
  const tries = () => readFileSync(calls, "utf8").trim().split("\n").length;

  it("on a machine that was just started waits until it answers", async () => {
    program("ssh", `echo x >>${calls}; [ "$(wc -l <${calls})" -gt 5 ] || { echo 'Connection refused' >&2; exit 255; }`);
    await waitForLogin({ ...order, starting }, quick);
    assert.equal(tries(), 6);
  });

  it("isn't tried until sshd shuts this computer out; a first operator key that was wrong is told, and how it is mended with the data kept", async () => {
    program("ssh", `echo x >>${calls}; echo 'ops@192.0.2.7: Permission denied (publickey).' >&2; exit 255`);
    await assert.rejects(waitForLogin({ ...order, starting }, quick), (error: Error) => {
      assert.match(error.message, /^server \(192\.0\.2\.7\): login refused .*Permission denied/);
      assert.match(error.message, /cht-backup:server\.aws\.operatorKeys.*the data volume stays/);
      assert.match(
        error.message,
        /aws ec2 terminate-instances --profile moh --region eu-west-1 --instance-ids i-0123;/,
      );
      return true;
    });
    assert.equal(tries(), 3);
  });

  it("gives up with the reason where nothing answers", async () => {
    program("ssh", "echo 'connect to host 192.0.2.7 port 22: No route to host' >&2; exit 255");
    await assert.rejects(waitForLogin({ ...order, starting: { ...starting, patience: 0 } }, quick), /No route to host/);
  });
});

describe("the first backup's script", function () {
  this.timeout(20_000);
  afterEach(withoutOurPrograms);

  const [report, answer] = [join(folder, "last-backup.json"), join(folder, "list.json")];
  /** @param last what the machine says of its last backup; @param archives in the repository */
  async function made(last: object | undefined, archives: string[] | undefined): Promise<string> {
    process.env.PATH = `${folder}:${PATH}`;
    writeFileSync(calls, "");
    rmSync(report, { force: true });
    if (last !== undefined) writeFileSync(report, JSON.stringify(last));
    const list = archives?.map((name) => ({ name }));
    writeFileSync(answer, list === undefined ? "no answer" : JSON.stringify({ archives: list }));
    program(
      "systemctl",
      `case $* in *LoadState*) echo loaded ;; *ActiveState*) echo inactive ;; *Result*) echo success ;; start*) echo "$*" >>${calls} ;; esac`,
    );
    program("journalctl", "exit 0");
    const { code, stdout, stderr } = await run("bash", ["-s", "--", "a.service", "60", report, `cat ${answer}`], {
      stdin: readFileSync(join(project, "hosts/cht/first_backup.sh"), "utf8"),
    });
    assert.deepEqual([code, stderr], [0, ""]);
    return readFileSync(calls, "utf8") === "start a.service\n" ? "made" : stdout;
  }

  it("makes none where this machine has made one, so that a stack of an earlier version gets no second first backup", async () => {
    const earlier = "the first backup was made earlier; the newest archive is two\n";
    assert.equal(await made({ lastSuccessAt: 5 }, ["one", "two"]), earlier);
  });

  it("makes one in a new repository, on a new machine, and where nobody can say", async () => {
    assert.equal(await made({ lastSuccessAt: 5 }, []), "made");
    assert.equal(await made(undefined, ["of another machine"]), "made");
    assert.equal(await made({ lastSuccessAt: null }, ["incomplete"]), "made");
    assert.equal(await made({ lastSuccessAt: 5 }, undefined), "made");
  });
});
