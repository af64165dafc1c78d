import assert from "node:assert/strict";
import { readHostFile } from "../../components/host-files";
import { exec, output, waitFor } from "../../lab/machines";
import { type Finished, Remote } from "../../operations/remote";
import { readStackSettings } from "../../operations/stack";
import { archives, data, python, recovery, service } from "./backup";
import { healthyLab } from "./hooks";

/** A service that a backup is played by, where a real one would take too long or not fail. */
const standIn = "first-backup-test.service";
/** Where the script puts what it needs for a while. */
const scratch = "/run/first-backup-test-scratch";

describe("the first backup", function () {
  this.timeout(60_000);

  let remote: Remote;
  let follow: (service: string, limit?: number, onLine?: (line: string) => void) => Promise<Finished>;

  before(async () => {
    await healthyLab();
    remote = new Remote("cht", (await readStackSettings("lab")).machines.cht);
    await output("cht", `rm -rf ${scratch}; mkdir ${scratch}`);
    // As the Command plugin runs it.
    const stdin = readHostFile("cht/first_backup.sh");
    follow = (name, limit, onLine) =>
      remote.run(
        ["env", `TMPDIR=${scratch}`, "bash", "-s", "--", name, ...(limit === undefined ? [] : [String(limit)])],
        { stdin, onLine },
      );
  });
  after(async () => {
    remote.close();
    await exec("cht", `systemctl stop ${standIn}; rm -f /run/systemd/system/${standIn}; systemctl daemon-reload`);
    await exec("cht", `systemctl reset-failed ${standIn}; rm -rf ${scratch}`);
  });

  /** Makes the stand-in do this. */
  async function playing(script: string): Promise<void> {
    const unit = `[Service]\nType=oneshot\nExecStart=/bin/sh -c '${script}'\n`;
    await output(
      "cht",
      `systemctl stop ${standIn} 2>/dev/null || true; cat >/run/systemd/system/${standIn}; systemctl daemon-reload`,
      { stdin: unit },
    );
  }

  it("is followed line by line until its archive is complete", async () => {
    const { passphrase } = await recovery();
    const before = await archives(passphrase);
    const told: { line: string; active: boolean }[] = [];
    const looks: Promise<void>[] = [];
    // It doesn't end before something was told of it.
    const waits = ["run", "until [ -e /run/first-backup-test ]; do sleep 0.1; done"];
    const held = python("cht", "when_opened.py", [`${data}/_dbs.couch`, ...waits]);
    const done = await follow(service, undefined, (line) => {
      const look = exec("cht", `systemctl show -p ActiveState --value ${service}`);
      looks.push(
        look.then(async ({ stdout }) => {
          told.push({ line, active: stdout.trim() === "activating" });
          await output("cht", "touch /run/first-backup-test");
        }),
      );
    });
    await Promise.all(looks);
    await output("cht", "rm /run/first-backup-test");
    assert.equal((await held).code, 0, (await held).stderr);
    assert.deepEqual([done.code, done.stderr], [0, ""]);
    assert.match(done.stdout, /is complete/);
    assert.ok(
      told.some(({ active }) => active),
      "everything was told after the end",
    );
    assert.equal((await archives(passphrase)).length, before.length + 1);
  });

  it("that fails ends with the lines that say why", async () => {
    await playing("echo begun; echo the disk is full >&2; exit 3");
    const done = await follow(standIn);
    assert.equal(done.code, 1);
    assert.match(
      done.stderr,
      /^the first backup failed \(exit-code\)\. Its last lines:\n {2}begun\n {2}the disk is full\n/,
    );
    assert.match(done.stderr, /journalctl --unit=first-backup-test\.service; and try again: systemctl start/);
  });

  it("that takes long goes on by itself, and the next one joins it", async () => {
    await playing("echo sending; until [ -e /run/first-backup-test ]; do sleep 0.1; done; echo sent");
    const long = await follow(standIn, 8);
    assert.equal(long.code, 0, long.stderr);
    assert.match(long.stdout, /^sending\nthe first backup is still at work after 0 min, and goes on by itself\./);
    assert.match(long.stdout, /journalctl --follow --unit=first-backup-test\.service/);
    const invocation = () => output("cht", `systemctl show -p InvocationID,ActiveState ${standIn}`);
    const running = await invocation();
    assert.match(running, /ActiveState=activating/);

    let joined = false;
    const second = follow(standIn, undefined, (line) => {
      joined ||= /running already; following it/.test(line);
    });
    assert.ok(await waitFor(async () => joined, 30_000));
    assert.equal(await invocation(), running);
    await output("cht", "touch /run/first-backup-test");
    const done = await second;
    await output("cht", "rm /run/first-backup-test");
    assert.equal(done.code, 0, done.stderr);
    // One that joins too late begins another, which has nothing to wait for.
    assert.match(done.stdout, /^a backup is running already; following it\n(sent\nsending\n)?sent\n$/);
  });

  it("of a service that isn't there is refused, and nothing is left of any of them", async () => {
    const done = await follow("cht-backup-nothing.service");
    assert.deepEqual([done.code, done.stderr], [2, "there is no cht-backup-nothing.service on this machine\n"]);
    assert.equal(await output("cht", `pgrep -fc '[b]ash -s --' || true; ls -A ${scratch}`), "0");
  });
});
