import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { drillNames } from "../../components/names";
import { documentCounts, ensureDrillNetwork } from "../../lab/cht";
import { type AnyMachine, exec, output } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import { labFolder } from "../../toolchain/paths";
import { assertComplete, backUp, home, programs, recovery, settings, state } from "./backup";
import { type FreshMachine, freshMachine } from "./fresh-machine";
import { healthyLab } from "./hooks";
import { assertNoDrift, mustSucceed, up } from "./stack";

const { service, reports } = drillNames("lab");
const settingsFile = join(labFolder, "third.yaml");
const withSettings = ["--config-file", settingsFile];

const units = (machine: AnyMachine) => output(machine, "ls /etc/systemd/system | grep '^cht-drill-lab' || true");
const keys = async () => (await output("server", `cat ${home}/.ssh/authorized_keys`)).split("\n");

describe("the drill on a third machine", function () {
  this.timeout(120_000);

  let third: FreshMachine;
  let archive: string;
  let config: { "host:machines": Record<string, object>; "cht-backup:drill": object };
  let rest: Record<string, unknown>;

  /** Writes the stack's settings, with the third machine among them and the drill on `machine`. */
  function drillOn(machine: string): void {
    const drill = { ...config["cht-backup:drill"], machine };
    writeFileSync(settingsFile, stringify({ ...rest, config: { ...config, "cht-backup:drill": drill } }));
  }

  before(async () => {
    await healthyLab();
    archive = assertComplete(await backUp()).archive as string;
    third = await freshMachine("drill");
    await ensureDrillNetwork("drill");
    ({ config, ...rest } = parse(readFileSync(stackFile, "utf8")));
    const [user, address] = third.destination.split("@");
    const hostKey = await output("drill", "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub");
    config["host:machines"].drill = { ...config["host:machines"].cht, address, user, hostKey };
    drillOn("drill");
    await mustSucceed("up", "--yes", "--skip-preview", ...withSettings);
  });

  after(async () => {
    // While that machine is still there to be cleared.
    drillOn("cht");
    await mustSucceed("up", "--yes", "--skip-preview", ...withSettings);
    await third.remove();
    rmSync(settingsFile, { force: true });
    await up();
  });

  it("has its units there and nowhere else, and a second preview finds nothing to do", async () => {
    assert.equal((await units("drill")).split("\n").length, 6);
    assert.equal(await units("cht"), "");
    await mustSucceed("preview", "--expect-no-changes", ...withSettings);
  });

  it("has a key of its own that may do there what the CHT machine's may, and nothing else", async () => {
    const lines = await keys();
    assert.equal(lines.length, 2);
    const own = await output("drill", `cut -d' ' -f2 ${settings}/ssh_key.pub`);
    const [ofCht = "", ofDrill = ""] = lines;
    assert.ok(ofDrill.includes(own) && !ofCht.includes(own));
    const limits = (line: string) => line.replace(/ ssh-ed25519 .*/, "");
    assert.equal(limits(ofDrill), limits(ofCht));
    assert.match(limits(ofDrill), /^restrict,command="\/usr\/bin\/borg serve --append-only /);
    const other = await exec("drill", `ssh -F ${settings}/ssh_config offsite id`);
    assert.doesNotMatch(other.stdout, /uid=/);
  });

  it("has the passphrase in a file that only root reads, and the stack's state doesn't show it", async () => {
    const { passphrase } = await recovery();
    assert.equal(await output("drill", `cat ${settings}/passphrase`), passphrase.trim());
    assert.equal(await output("drill", `stat -c '%a %U' ${settings}/passphrase ${settings}`), "600 root\n700 root");
    assert.ok(!(await mustSucceed("stack", "export")).includes(passphrase.trim()));
  });

  it("restores the newest archive and counts what the CHT counts", async () => {
    await output("drill", `systemctl start ${service} || { journalctl -u ${service} >&2; false; }`);
    const report = JSON.parse(await output("drill", `cat ${reports}/latest.json`));
    assert.deepEqual([report.ok, report.host, report.archive], [true, "drill", archive]);
    assert.deepEqual(report.counts, await documentCounts());
  });

  it("that moves back to the CHT machine leaves there neither key nor passphrase, nothing but the reports", async () => {
    const key = await output("drill", `cut -d' ' -f2 ${settings}/ssh_key.pub`);
    drillOn("cht");
    await mustSucceed("up", "--yes", "--skip-preview", ...withSettings);
    assert.equal(await units("drill"), "");
    assert.equal((await units("cht")).split("\n").length, 6);
    const gone = await exec("drill", `ls -d ${settings} ${programs} /etc/tmpfiles.d/cht-backup-lab.conf`);
    assert.equal(gone.stdout, "");
    assert.equal(
      await output(
        "drill",
        `grep -rlF '${(await recovery()).passphrase.trim()}' /etc /opt /var/lib/cht-backup || true`,
      ),
      "",
    );
    assert.equal(await output("drill", `ls ${state}; ls -A ${state}/drill`), "borg\ndrill\ndrills");
    assert.deepEqual(
      (await keys()).map((line) => line.includes(key)),
      [false],
    );
    await assertNoDrift();
  });
});
