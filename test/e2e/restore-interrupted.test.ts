import assert from "node:assert/strict";
import { documentCounts } from "../../lab/cht";
import { exec, output, waitFor } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { assertComplete, backUp, home, python, stopExtraction, timer } from "./backup";
import { type FreshMachine, freshMachine, tree } from "./fresh-machine";
import { healthyLab } from "./hooks";

const cht = "/home/ubuntu/cht";
const notes = "/var/lib/cht-restore/lab";
const volume = "/var/lib/docker/volumes/cht_cht-ssl/_data";
/** What of a restore runs there: borg, and the program itself. */
const program = "(/usr/bin/)?python3 -B [^ ]*/chtbackup restore restore";
const killAll = `pkill -KILL -f '^${program}'; pkill -KILL -x borg || true`;

describe("a restore that is interrupted again and again", function () {
  this.timeout(120_000);

  let machine: FreshMachine;
  let keys: string;

  before(async () => {
    await healthyLab();
    await output("cht", `systemctl stop ${timer}`);
    assertComplete(await backUp());
    keys = await output("server", `cat ${home}/.ssh/authorized_keys`);
    machine = await freshMachine("restore");
  });

  after(async () => {
    await output("cht", `systemctl start ${timer}`);
    await machine?.remove();
  });

  /** Runs the operator's command, does something on the machine meanwhile, and gives back what came of both. */
  async function meanwhile(script: string, ...options: string[]): Promise<[Result, string]> {
    const running = machine.restore(...options);
    const seen = output("restore", `set -e\n${script}`, { timeoutMs: 240_000 });
    return Promise.all([running, seen]);
  }

  /** It has ended with a reason; nothing could be taken for a whole CHT, nothing runs, and no key lets anybody in. */
  async function assertStopped({ code, stdout, stderr }: Result, reason: RegExp): Promise<void> {
    assert.equal(code, 2, stdout + stderr);
    assert.match(stderr, reason);
    const over = await waitFor(
      async () => (await exec("restore", `pgrep -x borg || pgrep -f '^${program}'`)).code === 1,
      90_000,
    );
    assert.ok(over, "it goes on");
    assert.equal(await output("restore", `ls -d ${cht} 2>/dev/null || true; docker ps --all --quiet`), "");
    assert.equal(await output("server", `cat ${home}/.ssh/authorized_keys`), keys);
  }

  const broken = /the SSH connection broke off, or the program there was killed. Run the same command again/;

  it("while it reads which archives there are, by a connection that is lost", async () => {
    // At the first of what that borg opens.
    const stop = ["run", "pkill -STOP -x borg", "^/usr/bin/python3 [^ ]*/borg .* list --json "];
    const stopped = python("restore", "when_opened.py", ["/", ...stop]);
    const running = machine.restore();
    assert.equal((await stopped).code, 0, (await stopped).stderr);
    const lost = await run("pkill", [
      "-KILL",
      "-f",
      `^ssh .*${machine.destination.split("@")[1]}.*chtbackup' 'restore' 'restore'`,
    ]);
    assert.equal(lost.code, 0);
    await assertStopped(await running, broken);
    assert.equal(await output("restore", `ls -A ${notes}`), "lock");
  });

  it("in the middle of the extraction, by the kernel", async () => {
    const stopped = stopExtraction("restore", "/home/ubuntu/.cht.restoring/home", 6);
    const running = machine.restore();
    await stopped;
    await output("restore", killAll);
    const result = await running;
    await assertStopped(result, broken);
  });

  it("while it compares what it has extracted with the manifest", async () => {
    const running = machine.restore();
    // Only the verification reads it.
    const args = [`/home/ubuntu/.cht.restoring${cht}/upgrade-service/.env`, "run", killAll, `^${program}`];
    const killed = await python("restore", "when_opened.py", args);
    assert.equal(killed.code, 0, killed.stderr);
    const result = await running;
    assert.match(result.stdout, /of which [\d.]+ MB are here from a run before/);
    assert.match(result.stdout, /^extracted in/m);
    assert.doesNotMatch(result.stdout, /^right:/m);
    await assertStopped(result, broken);
  });

  it("while it puts things in place, between one and the next", async () => {
    // A volume's directory that can't be replaced, when the other volume is in place already.
    await output("restore", `docker volume create cht_cht-ssl && mkdir /run/busy && mount --bind /run/busy ${volume}`);
    const result = await machine.restore();
    await assertStopped(result, new RegExp(`${volume} can't be put in place: .*busy.* only a part: don't start it`));
    assert.equal(
      await output("restore", `ls /var/lib/docker/volumes/cht_cht-credentials/_data`),
      "cluster-credentials.ini",
    );
    const dry = await machine.restore("--dry-run");
    assert.match(dry.stderr, /an earlier run was interrupted while it put things in place/);
    await output("restore", `umount ${volume}`);
  });

  it("while it starts the containers", async () => {
    const [result] = await meanwhile(
      `
until pgrep -f 'docker-compose .* up --detach|docker compose .* up --detach' >/dev/null; do :; done
until [ -n "$(docker ps --all --quiet)" ]; do :; done
${killAll}
pkill -KILL -f 'up --detach' || true`,
      "--start",
    );
    assert.match(result.stdout, /an earlier run was interrupted while it put things in place; this is finished first/);
    assert.equal(result.code, 2, result.stdout);
    assert.match(result.stderr, broken);
    assert.doesNotMatch(result.stdout, /is restored to/);
  });

  it("is right in the end", async () => {
    const { code, stdout, stderr } = await machine.restore("--start");
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /this archive is in place already; it is checked again/);
    assert.match(stdout, /is restored to .* and right/);
    assert.deepEqual(await tree("restore"), await tree("cht"));
    assert.deepEqual(await documentCounts("restore"), await documentCounts("cht"));
    assert.equal(await output("restore", `ls -A /home/ubuntu | grep restoring || true`), "");
    assert.equal(await output("restore", `ls -A ${notes}`), "lock\nrestored.json");
  });
});
