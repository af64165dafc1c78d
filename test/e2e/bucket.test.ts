import assert from "node:assert/strict";
import { bucketSecrets, bucketSettings, protect } from "../../lab/bucket";
import { bucketContainer, exec, output, waitFor } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import {
  archives,
  assertComplete,
  backUp,
  data,
  during,
  maintain,
  python,
  recovery,
  repository,
  settings,
  startBackup,
  user,
} from "./backup";
import {
  asServer,
  bucketFailedService,
  bucketPrograms,
  bucketSettingsFolder,
  bucketState,
  checkService,
  checkTimer,
  copiesEnded,
  copyNow,
  copyPath,
  copyService,
  copyTimer,
  lastCopy,
  serverPackage,
  settle,
  withoutCopies,
} from "./bucket";
import { removeArchives } from "./damage";
import { healthyLab } from "./hooks";
import { assertNoDrift, labStack, previewChanges, up } from "./stack";

const settingsFile = `${bucketSettingsFolder}/bucket.json`;
const onServer = `${bucketPrograms}/venv/bin/python -B ${serverPackage} bucket`;

async function check(): Promise<void> {
  const started = await exec("server", `systemctl start ${checkService}`);
  const report = JSON.parse(await output("server", `cat ${bucketState}/last-check.json`));
  assert.deepEqual([started.code, report.problems, report.ok], [0, [], true]);
}

describe("the copy to the bucket", function () {
  this.timeout(180_000);

  before(healthyLab);

  it("starts by itself after a backup, and holds it when it has ended", async () => {
    await copiesEnded();
    const before = (await lastCopy())?.copy?.transaction ?? -1;
    assertComplete(await backUp());
    const arrived = await waitFor(async () => {
      const last = await lastCopy();
      return last?.ok === true && (last.copy?.transaction ?? -1) > before;
    }, 180_000);
    assert.ok(arrived, JSON.stringify(await lastCopy()));
    await copiesEnded();
    const newest = await output("server", `ls ${repository} | sed -n 's/^index\\.//p' | sort -n | tail -n 1`);
    // Giving back the lock was a transaction of its own, which changes nothing.
    const { copy } = JSON.parse(await output("server", `cat ${bucketState}/bucket-state.json`));
    assert.equal(copy.settled, Number(newest));
  });

  it("moves nothing and asks little when nothing is new", async () => {
    await copyNow();
    const again = await copyNow();
    assert.deepEqual(
      [again.ok, again.outcome, again.uploadedFiles, again.uploadedBytes],
      [true, "unchanged", 0, 0],
      JSON.stringify(again),
    );
    assert.ok(again.requests <= 5, `${again.requests} requests`);
  });

  it("is right when it is checked against its index", check);

  it("keeps its key where only root reads it, and off the CHT machine", async () => {
    const file = `${bucketSettingsFolder}/credentials`;
    assert.equal(await output("server", `stat -c '%a %U' ${file}`), "600 root");
    assert.notEqual((await exec("server", `cd /; runuser -u ${user} -- cat ${file}`)).code, 0);
    const { writer, reader } = bucketSecrets();
    assert.match(await output("server", `cat ${file}`), new RegExp(writer));
    const places = "/etc /home /opt /root /run /srv /tmp /var/lib/cht-backup";
    for (const secret of [writer, reader]) {
      const found = await exec("cht", `read -r secret; grep -rlF -- "$secret" ${places} 2>/dev/null`, {
        stdin: `${secret}\n`,
      });
      assert.equal(found.stdout, "");
    }
    // The reader's is for restores: no machine needs it until then.
    const found = await exec("server", `read -r secret; grep -rlF -- "$secret" ${places} 2>/dev/null`, {
      stdin: `${reader}\n`,
    });
    assert.equal(found.stdout, "");
    assert.equal((await exec("cht", "ls -d /etc/cht-backup-bucket /opt/cht-backup-bucket")).stdout, "");
  });

  it("runs in units that systemd understands, down to their programs", async () => {
    const units = [copyService, copyTimer, copyPath, checkService, checkTimer, bucketFailedService];
    const verified = await exec("server", `systemd-analyze verify --man=no ${units.join(" ")}`);
    const said = verified.stderr.split("\n").filter((line) => /cht-bucket/.test(line));
    assert.deepEqual([verified.code, said], [0, []]);
  });

  describe("whoever is root on the server", () => {
    let answers: Record<string, string> = {};

    before(async () => {
      await copiesEnded();
      const attacked = await asServer("bucket_attack.py", settingsFile);
      assert.equal(attacked.code, 0, attacked.stderr);
      answers = JSON.parse(attacked.stdout);
    });

    it("can't delete or hide a version, shorten a lock, or change what protects the bucket", () => {
      const { "write over a segment's name": overwritten, ...refused } = answers;
      assert.equal(overwritten, "succeeded", "the writer may write");
      assert.ok(Object.keys(refused).length >= 16);
      assert.deepEqual(
        Object.entries(refused).filter(([, answer]) => answer !== "AccessDenied"),
        [],
      );
    });

    it("hasn't harmed the copy by writing over its names", check);

    it("is answered by the next copy, which puts the right content on top", async () => {
      assertComplete(await backUp());
      assert.equal((await copyNow()).ok, true);
      await check();
    });
  });

  describe("killed in the middle", () => {
    /** Starts a copy, and does something as root on the server as soon as a condition holds there. */
    const meanwhile = async (condition: string, action: string) => {
      await settle();
      const script = `systemctl start --no-block ${copyService}
end=$(($(date +%s) + 100)); while [ "$(date +%s)" -lt "$end" ]; do
  if ${condition}; then ${action}; exit; fi
  sleep 0.01
done
exit 1`;
      await output("server", script);
    };
    const kill = `systemctl kill --signal=KILL ${copyService}`;
    const result = () => output("server", `systemctl show -p Result --value ${copyService}`);

    it("with the repository's lock in its hands, leaves the way free for the backup that waits for it", async () => {
      assertComplete(await withoutCopies(backUp));
      const lockWait = (from: number, to: number) =>
        `sed -i 's/"lockWait": ${from},/"lockWait": ${to},/' ${settings}/settings.json`;
      // borg looks ten times in its waiting time whether a lock has gone.
      await during("cht", lockWait(600, 30), lockWait(30, 600), async () => {
        // It is copied first, and under the lock.
        const stop = ["run", `systemctl kill --signal=STOP ${copyService}`, "chtbackup snapshot "];
        await settle();
        const stopped = python("server", "when_opened.py", [`${repository}/README`, ...stop]);
        await output("server", `systemctl start --no-block ${copyService}`);
        assert.equal((await stopped).code, 0, (await stopped).stderr);
        const holds = await output("server", `ls ${repository}/lock.exclusive`);
        const backup = await startBackup();
        const waits = `pgrep -u ${user} -f '[c]htbackup guard '`;
        assert.ok(await waitFor(async () => (await exec("server", waits)).code === 0, 90_000), "no backup came");
        assert.equal(await output("server", `ls ${repository}/lock.exclusive`), holds);
        await output("server", kill);
        const killed = Date.now();
        assertComplete(await backup.finished());
        assert.ok(Date.now() - killed < 60_000);
      });
      await settle();
      await copiesEnded();
    });

    it("of an upload, is finished by the next one, which sends only what hasn't arrived", async () => {
      const bulk = `${data}/.shards/00-bulk`;
      await during(
        "cht",
        `head -c 500K /dev/urandom >${bulk} && chown 5984:5984 ${bulk}`,
        `rm -f ${bulk}`,
        async () => {
          assertComplete(await withoutCopies(backUp));
        },
      );
      const before = await lastCopy();
      const rate = (from: number, to: number) =>
        `sed -i 's/"uploadRate": ${from},/"uploadRate": ${to},/' ${settingsFile}`;
      await during("server", rate(0, 20), rate(20, 0), async () => {
        const run = `_SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value ${copyService})`;
        const uploads = `journalctl -q -o cat ${run} | grep -q 'files are new'`;
        await meanwhile(`[ "$(systemctl is-active ${copyService})" = activating ] && ${uploads}`, kill);
        await copiesEnded();
        assert.equal(await result(), "signal");
      });
      assert.equal(await output("server", `pgrep -u ${user} -x borg || true`), "");
      assert.deepEqual(await lastCopy(), before);
      await check();
      const next = await copyNow();
      assert.deepEqual([next.ok, next.outcome], [true, "copied"], JSON.stringify(next));
      await check();
    });
  });

  it("keeps what was deleted and compacted away on the server", async () => {
    const { passphrase } = await recovery();
    const lost = assertComplete(await backUp()).archive as string;
    assert.equal((await copyNow()).ok, true);
    const before = new Date(Date.now() + 1000).toISOString();
    const segments = async () => (await output("server", `find ${repository}/data -type f`)).split("\n");
    const kept = await segments();
    await withoutCopies(async () => {
      await removeArchives(lost);
      const borg = `runuser -u ${user} -- env BORG_BASE_DIR=/tmp/compaction borg`;
      await maintain(
        "a test compacts",
        `set -e
${borg} config ${repository} append_only 0
${borg} compact --threshold 1 ${repository}
${borg} config ${repository} append_only 1
rm -rf /tmp/compaction`,
      );
    });
    const left = new Set(await segments());
    assert.ok(kept.some((path) => !left.has(path)));
    const next = assertComplete(await backUp()).archive as string;
    assert.equal((await copyNow()).ok, true);
    const there = await archives(passphrase);
    assert.deepEqual([there.includes(lost), there.at(-1)], [false, next]);

    const operation = async (name: string, ...options: string[]) => {
      const words = ["run", "-s", name, "--", "--stack", "lab", "--from", "bucket", ...options];
      const done = await run("npm", words, { cwd: project, timeoutMs: 400_000 });
      assert.equal(done.code, 0, done.stdout + done.stderr);
      return done.stdout;
    };
    const listed = async (...options: string[]) =>
      JSON.parse(await operation("archives", "--via", "cht", "--last", "1", "--json", ...options)).archives[0].name;
    const file = "/home/ubuntu/cht/upgrade-service/.env";
    for (const [archive, options] of [
      [next, []],
      [lost, ["--copy-as-of", before]],
    ] as const) {
      assert.equal(await listed(...options), archive);
      const into = `/var/tmp/${archive}`;
      await operation("restore", "--to", "cht", "--archive", archive, "--path", file, "--into", into, ...options);
      await output("cht", `cmp ${file} ${into}${file}; rm -r ${into}`);
    }
    await assertNoDrift();
  });

  it("that can't be made raises the alarm with the reason, and the next one is made", async () => {
    await copiesEnded();
    const cursor = await output("server", "journalctl --show-cursor --lines=0 | sed -n 's/^-- cursor: //p'");
    const docker = async (...args: string[]) => assert.equal((await run("docker", args)).code, 0);
    await docker("stop", "--time", "1", bucketContainer);
    try {
      assert.equal((await copyNow()).outcome, "failed");
      const said = `journalctl --sync; journalctl --no-pager --output=cat --after-cursor='${cursor}' --unit=${bucketFailedService}`;
      const alarm = /Copy of the backups to the bucket failed: lab on server: .* it can't be reached/;
      assert.ok(
        await waitFor(async () => alarm.test(await output("server", said)), 90_000),
        await output("server", said),
      );
    } finally {
      await docker("start", bucketContainer);
    }
    const answers = async () => (await exec("server", `${onServer} describe ${settingsFile}`)).code === 0;
    assert.ok(await waitFor(answers, 180_000), "the bucket doesn't answer");
    assert.equal((await copyNow()).ok, true);
  });

  describe("what someone changed", () => {
    const retention = async (mode: string, days: number) => {
      const changed = await run("docker", ["exec", bucketContainer, "sh", "-c", protect(mode, days)]);
      assert.equal(changed.code, 0, changed.stderr);
    };

    it("on the server is shown by a preview and repaired by up", async () => {
      const meddling = [
        [`systemctl stop ${copyPath}`, "bucket-copy-path"],
        [`systemctl disable --quiet --now ${checkTimer}`, "bucket-check-timer"],
        [
          `sed -i 's/^User=.*/User=root/' /etc/systemd/system/${copyService}; systemctl daemon-reload`,
          "bucket-copy-service",
        ],
        [`sed -i 's/"keepDays": 1/"keepDays": 2/' ${settingsFile}`, "bucket-settings"],
        [`chmod 0644 ${bucketSettingsFolder}/credentials`, "bucket-credentials"],
        [`echo '# changed' >>${serverPackage}/bucket/copy.py`, "server-programs"],
      ];
      await copiesEnded();
      for (const [script = ""] of meddling) await output("server", script);
      const shown = (await previewChanges()).map(({ name }) => name);
      assert.deepEqual(
        shown.filter((name) => name !== "bucket-protection").sort(),
        meddling.map(([, name]) => name).sort(),
      );
      await up();
      await assertNoDrift();
      assert.equal((await copyNow()).ok, true);
    });

    it("about the bucket's own protection is shown by a preview; up can't repair it, and says who can", async () => {
      await retention("GOVERNANCE", 1);
      try {
        const [change, ...others] = await previewChanges();
        assert.deepEqual([change?.name, others], ["bucket-protection", []]);
        assert.deepEqual([...(change?.properties ?? [])].sort(), ["days", "mode"]);
        const result = await labStack("up", "--yes", "--skip-preview");
        assert.notEqual(result.code, 0);
        assert.match(
          result.stdout + result.stderr,
          /the bucket cht-backup-lab isn't protected .*: its default retention is GOVERNANCE, 1 days; must be COMPLIANCE, 2 days/,
        );
        const report = await copyNow();
        assert.match(report.problems.join(), /locks for 1 days in GOVERNANCE mode by default/);
      } finally {
        await retention(bucketSettings.mode, bucketSettings.lockDays);
      }
      await up();
      await assertNoDrift();
      assert.equal((await copyNow()).ok, true);
    });
  });
});
