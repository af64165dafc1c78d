import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { chtNames, drillNames, retentionNames, serverNames } from "../../components/names";
import { bucketSecrets } from "../../lab/bucket";
import { documentCounts, ensureDrillNetwork } from "../../lab/cht";
import { type AnyMachine, containerOf, exec, output } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import { run } from "../../toolchain/command";
import { labFolder } from "../../toolchain/paths";
import { assertComplete, backUp, home, programs, python, recovery, settings, state } from "./backup";
import { asServer, bucketSettingsFolder, copyNow } from "./bucket";
import { type FreshMachine, freshMachine } from "./fresh-machine";
import { healthyLab } from "./hooks";
import { changesOf } from "./preview";
import { assertNoDrift, mustSucceed, up } from "./stack";

const { service, reports, failedService, overdueService } = drillNames("lab");
const settingsFile = join(labFolder, "third.yaml");
const withSettings = ["--config-file", settingsFile];

const units = (machine: AnyMachine) => output(machine, "ls /etc/systemd/system | grep '^cht-drill-lab' || true");
const keys = async () => (await output("server", `cat ${home}/.ssh/authorized_keys`)).split("\n");

describe("the drill on a third machine", function () {
  this.timeout(120_000);

  let third: FreshMachine;
  let archive: string;
  /** The machine's public key for the server. */
  let own: string;
  let config: { "host:machines": Record<string, object>; "cht-backup:drill": object };
  let rest: Record<string, unknown>;

  /**
   * Deploys with the third machine among the stack's machines and the drill on `machine`.
   * @param retention whether that machine is trusted with retention, too
   */
  async function drillOn(machine: string, from = "server", retention = false): Promise<void> {
    const wanted = {
      ...config,
      "cht-backup:drill": { ...config["cht-backup:drill"], machine, from },
      ...(retention && { "cht-backup:retention": { machine } }),
    };
    writeFileSync(settingsFile, stringify({ ...rest, config: wanted }));
    await mustSucceed("up", "--yes", "--skip-preview", ...withSettings);
  }

  const latest = async () => JSON.parse(await output("drill", `cat ${reports}/latest.json`));

  before(async () => {
    await healthyLab();
    archive = assertComplete(await backUp()).archive as string;
    third = await freshMachine("drill");
    await ensureDrillNetwork("drill");
    ({ config, ...rest } = parse(readFileSync(stackFile, "utf8")));
    const [user, address] = third.destination.split("@");
    const hostKey = await output("drill", "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub");
    config["host:machines"].drill = { ...config["host:machines"].cht, address, user, hostKey };
    await drillOn("drill", "server", true);
    own = await output("drill", `cut -d' ' -f2 ${settings}/ssh_key.pub`);
  });

  after(async () => {
    // While that machine is still there to be cleared.
    await drillOn("cht");
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
    const [ofCht = "", ofDrill = ""] = lines;
    assert.ok(ofDrill.includes(own) && !ofCht.includes(own));
    const limits = (line: string) => line.replace(/ ssh-ed25519 .*/, "");
    assert.equal(limits(ofDrill), limits(ofCht));
    assert.match(
      limits(ofDrill),
      /^restrict,command="\/usr\/bin\/python3 -I \/opt\/cht-backup-server\/lab\/chtbackup guard /,
    );
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
    const report = await latest();
    assert.deepEqual([report.ok, report.host, report.from, report.archive], [true, "drill", "server", archive]);
    assert.deepEqual(report.counts, await documentCounts());
  });

  it("logs in on the server each hour, which then knows that it is there", async () => {
    const { watchService: there, state: itsState } = serverNames("lab", "");
    const began = Number(await output("server", "date +%s"));
    await output("drill", `systemctl start ${chtNames("lab").watchService}`);
    await output("server", `journalctl --sync; systemctl start ${there}`);
    const { facts, conditions } = JSON.parse(await output("server", `cat ${itsState}/watch.json`));
    assert.ok(facts.drillSeenAt >= began, JSON.stringify(facts.drillSeenAt));
    assert.ok(!conditions.some(({ id }: { id: string }) => id === "drill-silent"));
  });

  describe("where it is trusted with retention", () => {
    const { service: retentionService, user } = retentionNames("lab");
    const reportOn = async (machine: AnyMachine, folder: string) =>
      JSON.parse(await output(machine, `cat ${folder}/last-retention.json`));

    it("has the server look for what goes by its own policy, and remove nothing where it has doubts", async () => {
      const began = Number(await output("server", "date +%s"));
      const run = await exec("drill", `systemctl start ${retentionService}`);
      const report = await reportOn("server", serverNames("lab", "").state);
      assert.ok(report.finishedAt >= began, JSON.stringify(report));
      // In a lab that many tests have used there are more archives of a day than any schedule makes.
      assert.ok(
        report.problems.every((text: string) => text.startsWith("doubt (")),
        JSON.stringify(report),
      );
      assert.equal(run.code === 0, report.ok);
      const here = await reportOn("drill", state);
      assert.deepEqual([here.ok, here.problems], [report.ok, report.problems]);
      await output("drill", `systemctl reset-failed 'cht-retention-lab*'`);
    });

    it("has a key for this which does nothing else, of an account that may do nothing else", async () => {
      for (const words of ["id", "sudo -n id", "/bin/sh -c id"]) {
        const { stdout, stderr } = await exec(
          "drill",
          `ssh -F ${settings}/retention_ssh_config offsite ${words} </dev/null`,
        );
        assert.equal(stdout, "");
        assert.match(stderr, /what came in isn't a request/);
      }
      const asAccount = (words: string) =>
        exec("server", `setpriv --reuid=${user} --regid=${user} --clear-groups sudo -n ${words}`);
      for (const words of ["id", `/usr/bin/python3 -c 'print(1)'`]) {
        const { code, stdout } = await asAccount(words);
        assert.deepEqual([code, stdout], [1, ""]);
      }
    });
  });

  describe("and from the bucket alone", () => {
    const places = "/etc /opt /root /run /tmp /var/lib /var/tmp";
    const credentials = `${settings}/bucket-credentials`;

    before(async () => {
      await drillOn("drill", "bucket");
      assert.equal((await copyNow()).ok, true);
      // A test that set the repository back leaves copies behind that a drill rightly wonders at, for the next four.
      for (let round = 0; round < 5 && (await remarks()).length > 0; round++) {
        archive = assertComplete(await backUp()).archive as string;
        assert.equal((await copyNow()).ok, true);
      }
    });

    /** What a drill would have to say against the newest copy. */
    async function remarks(): Promise<string[]> {
      const script = `set -e; cd ${programs}
request=$(bucket-venv/bin/python -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))["bucket"]))' ${settings}/drill.json)
echo "$request" | bucket-venv/bin/python -B chtbackup fetch newest`;
      return JSON.parse(await output("drill", script)).remarks;
    }

    /** Asserts that of a drill nothing is left but its reports. */
    async function assertTidy(): Promise<void> {
      const left = `docker ps --all --quiet --filter label=cht-backup.drill=lab; ls -A ${state}/drill; ls ${reports}/running.json 2>/dev/null; pgrep -x borg; pgrep -f [c]htbackup.fetch`;
      assert.equal((await exec("drill", left)).stdout, "");
    }

    it("has the key for reading in a file that only root reads, and no longer one for the server", async () => {
      await mustSucceed("preview", "--expect-no-changes", ...withSettings);
      const { reader } = bucketSecrets();
      assert.match(await output("drill", `cat ${credentials}`), new RegExp(`lab-reader\\n.*${reader}`));
      const holders = await output("drill", `read -r secret; grep -rlF -- "$secret" ${places} || true`, {
        stdin: `${reader}\n`,
      });
      assert.equal(holders, credentials);
      assert.equal(await output("drill", `stat -c '%a %U' ${credentials}`), "600 root");
      assert.equal(await output("drill", `ls ${settings} | grep -E 'ssh|hosts' || true`), "");
      assert.deepEqual(
        (await keys()).map((line) => line.includes(own)),
        [false],
      );
      const inState = await run("grep", ["-rlF", reader, join(labFolder, "state")]);
      assert.deepEqual([inState.code, inState.stdout], [1, ""]);
      assert.ok((await mustSucceed("stack", "export", "--show-secrets")).includes(reader));
    });

    it("restores the newest archive while neither the server nor the CHT machine answers, and shows no secret", async () => {
      const counts = await documentCounts();
      const machines = [containerOf("server"), containerOf("cht")];
      const [stop, secrets] = ["/run/drill-test-stop", { reader: [bucketSecrets().reader] }];
      await output("drill", `rm -f ${stop}`);
      const sampler = python("drill", "sampler.py", [stop], JSON.stringify(secrets));
      await run("docker", ["pause", ...machines]);
      try {
        await output("drill", `systemctl start ${service} || { journalctl -u ${service} >&2; false; }`);
      } finally {
        await run("docker", ["unpause", ...machines]);
        await output("drill", `touch ${stop}`);
      }
      const report = await latest();
      assert.deepEqual([report.ok, report.from, report.archive, report.problems], [true, "bucket", archive, []]);
      assert.deepEqual(report.counts, counts);
      assert.ok(report.copy.ageSeconds < 7200 && report.copy.bytes > 1e5, JSON.stringify(report.copy));
      assert.match(
        await output("drill", `cat ${reports}/latest.txt`),
        /^ {2}from {6}the bucket, copy \d+, finished \S+Z, .* old when the drill began: [\d.]+ MB$/m,
      );
      await assertTidy();
      const { programs: seen, found } = JSON.parse((await sampler).stdout);
      assert.ok(seen.includes("chtbackup fetch") && seen.includes("borg"), seen.join());
      assert.deepEqual(found, []);
      const journal = await python("drill", "search.py", ["journal"], JSON.stringify(secrets));
      assert.deepEqual(JSON.parse(journal.stdout).found, []);
    });

    it("that is killed while it fetches leaves nothing, and is reported", async () => {
      // Before the first file of it comes.
      const kill = ["run", `systemctl kill --signal=KILL --kill-whom=all ${service}`, "chtbackup fetch"];
      const killed = python("drill", "when_opened.py", [
        `${state}/drill/cht-drill-lab/repository.fetched.json`,
        ...kill,
      ]);
      await output("drill", `systemctl start --no-block ${service}`);
      assert.equal((await killed).code, 0, (await killed).stderr);
      await output("drill", "while systemctl list-jobs --no-legend | grep -q ' cht-drill-lab'; do sleep 0.1; done");
      const { outcome, problems } = await latest();
      assert.equal(outcome, "interrupted");
      assert.match(problems.join(), /interrupted at the stage “fetching the repository from the bucket”/);
      await assertTidy();
    });

    it("names a copy that was forged, damaged or is too old, and raises the alarm without a word from the server", async () => {
      const forged = await asServer("bucket_forge.py", `${bucketSettingsFolder}/bucket.json`);
      assert.equal(forged.code, 0, forged.stderr);
      const [again, damaged, none] = JSON.parse(forged.stdout);
      await output("drill", `sed -i 's/"maxAgeHours": .*,/"maxAgeHours": 0,/' ${settings}/drill.json`);
      const reasons = [
        new RegExp(`${none} of .* is passed over, it is no index of a copy`),
        new RegExp(`${damaged} of .* is passed over, 1 of its files are not in the bucket`),
        new RegExp(`the copy ${again} of .* somebody put an old index there again`),
        /the newest copy in the bucket \(.*\) is .* old, and 0 h are allowed/,
      ];
      assert.notEqual((await exec("drill", `systemctl start ${service}`)).code, 0);
      const report = await latest();
      assert.equal(report.outcome, "wrong");
      for (const [number, reason] of reasons.entries()) assert.match(report.problems[number], reason);
      assert.match(report.problems[4], /the newest finished archive in the copy is .* old, and 0 h are allowed/);
      await assertTidy();

      const cursor = await output("drill", "journalctl --show-cursor --lines=0 | sed -n 's/^-- cursor: //p'");
      assert.notEqual((await exec("drill", `systemctl start ${overdueService}`)).code, 0);
      const alarm = await output(
        "drill",
        `while systemctl list-jobs --no-legend | grep -q ' cht-drill-lab'; do sleep 0.1; done
journalctl --sync; journalctl --no-pager --output=cat --after-cursor='${cursor}' --unit=${failedService}`,
      );
      assert.match(alarm, /CHT backup lab: the copy in the bucket, as drill sees it: /);
      for (const reason of reasons) assert.match(alarm, reason);
    });

    it("finds the next copy in order, once what someone changed is shown by a preview and repaired by up", async () => {
      await output(
        "drill",
        `chmod 0644 ${credentials}; for script in bucket/client bucket/fetch drill/bucket_source; do echo '# changed' >>${programs}/chtbackup/$script.py; done`,
      );
      const shown = changesOf(await mustSucceed("preview", "--json", ...withSettings)).map(({ name }) => name);
      assert.deepEqual(shown.sort(), ["drill-drill-bucket-credentials", "drill-drill-programs", "drill-settings"]);
      await mustSucceed("up", "--yes", "--skip-preview", ...withSettings);
      assertComplete(await backUp());
      assert.equal((await copyNow()).ok, true);
      await output("drill", `systemctl start ${overdueService} || { journalctl -u ${overdueService} >&2; false; }`);
    });
  });

  describe("that moves back to the CHT machine", () => {
    it("leaves there neither key nor passphrase, nothing but the reports", async () => {
      await drillOn("cht");
      assert.equal(await units("drill"), "");
      assert.equal((await units("cht")).split("\n").length, 6);
      const gone = await exec("drill", `ls -d ${settings} ${programs} /etc/tmpfiles.d/cht-backup-lab.conf`);
      assert.equal(gone.stdout, "");
      const secrets = `${(await recovery()).passphrase.trim()}\n${bucketSecrets().reader}\n`;
      const search = "grep -rlFf /dev/stdin /etc /opt /var/lib/cht-backup || true";
      assert.equal(await output("drill", search, { stdin: secrets }), "");
      assert.equal(
        await output("drill", `ls ${state} | grep -v ^watch; ls -A ${state}/drill; ls -A ${state}/alerts`),
        "alerts\nborg\ndrill\ndrills\nlast-retention.json",
      );
      assert.deepEqual(
        (await keys()).map((line) => line.includes(own)),
        [false],
      );
      await assertNoDrift();
    });
  });
});
