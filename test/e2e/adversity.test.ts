import assert from "node:assert/strict";
import { exec, kill, output, start } from "../../lab/machines";
import type { Result } from "../../toolchain/command";
import * as alerts from "./alerts";
import {
  alertService,
  assertComplete,
  assertFailed,
  backUp,
  container,
  data,
  during,
  location,
  programs,
  python,
  type Report,
  type Run,
  recovery,
  repository,
  service,
  settings,
  startBackup,
  state,
  withPassphrase,
} from "./backup";
import { withoutCopies } from "./bucket";
import { chtAnswers, healthyLab } from "./hooks";

const scratch = "/var/tmp/adversity-test";
const backupSettings = `${settings}/settings.json`;

const shard = (range: string) => `${data}/shards/${range}/medic.1795302615.couch`;
const first = "00000000-15555554";
const second = "15555555-2aaaaaa9";
const third = "2aaaaaaa-3ffffffe";
const view = (range: string) =>
  `${data}/.shards/${range}/medic.1795302615_design/mrview/ff81c5aaa2423a01783e280daebe36c0.view`;
/** What is copied first of all. */
const firstRead = view(first);
/** Something large and new, copied before everything else, so that there is a middle of an upload. */
const bulk = `${data}/.shards/00-bulk`;
const makeBulk = `head -c 300M /dev/urandom >${bulk} && chown 5984:5984 ${bulk}`;

/** Runs `when_opened.py`: something happens on the CHT machine at the moment when borg opens a file. */
function whenRead(path: string, ...action: string[]): Promise<Result> {
  return python("cht", "when_opened.py", [path, ...action]);
}

/** Waits until the server has got some ten megabytes, and is in the middle of an upload. */
async function received(): Promise<void> {
  await output(
    "server",
    `set -e
size() { du -sk ${repository}/data | cut -f 1; }
before=$(size)
end=$(($(date +%s) + 100)); while [ "$(date +%s)" -lt "$end" ]; do
  if [ "$(size)" -gt $((before + 10240)) ]; then exit 0; fi
  sleep 0.02
done
echo 'nothing was uploaded in time' >&2; exit 1`,
  );
}

/** A backup to which something happens in the middle of its upload. */
async function interrupted(happens: () => Promise<unknown>): Promise<Run> {
  // A minute and more, so that it is still the middle when something happens.
  const slowly = (from: number, to: number) =>
    `sed -i 's/"uploadRate": ${from},/"uploadRate": ${to},/' ${backupSettings}`;
  const make = `${slowly(0, 4096)}\n${makeBulk}`;
  return during("cht", make, `rm -f ${bulk}\n${slowly(4096, 0)}`, async () => {
    const uploading = received();
    const running = await startBackup();
    await uploading;
    await happens();
    return running.finished();
  });
}

/** Asserts that the alert about a failure reached the listener, and takes it away. */
const assertAlert = (reason: RegExp) => alerts.assertAlert(/^CHT backup lab failed on cht$/, reason);

/** Extracts some files of an archive on the CHT machine to an empty place. @returns the place */
async function extract(archive: string, ...paths: string[]): Promise<string> {
  const { passphrase } = await recovery();
  const relative = paths.map((path) => `'${path.slice(1)}'`).join(" ");
  const script = withPassphrase(`
export BORG_BASE_DIR=${scratch}/borg
rm -rf ${scratch}/place; mkdir -p ${scratch}/place; cd ${scratch}/place
borg extract '${location}::${archive}' ${relative}`);
  await output("cht", script, { stdin: `${passphrase}\n` });
  return `${scratch}/place`;
}

const sha256 = async (path: string) => (await output("cht", `sha256sum '${path}'`)).slice(0, 64);

/** Documents in a database file by its newest header. */
async function documents(path: string): Promise<number> {
  const script = `cd ${programs} && ${programs}/venv/bin/python -B -c 'from chtbackup.couchdb import files; import sys; print(files.database_counts(sys.argv[1])["documents"])' '${path}'`;
  return Number(await output("cht", script));
}

/** Files of CouchDB are as they were before the test. */
const restore = `cp -a ${scratch}/couchdb/. ${data}/`;

describe("a backup in adversity", function () {
  this.timeout(180_000);

  before(async () => {
    await healthyLab();
    await output("cht", `set -e; rm -rf ${scratch}; mkdir -p ${scratch}; cp -a ${data} ${scratch}/couchdb`);
    await alerts.receiveAlerts();
    // borg looks ten times in its waiting time whether a lock has gone: with 600 s that is once a minute.
    await output(
      "cht",
      `cp -p ${backupSettings} ${scratch}/ && sed -i 's/"lockWait": 600,/"lockWait": 30,/' ${backupSettings}`,
    );
  });

  after(async () => {
    await exec("cht", `cp -p ${scratch}/settings.json ${backupSettings}; ${restore}; rm -rf ${scratch}`);
    await alerts.stopAlerts();
  });

  beforeEach(alerts.forgetAlerts);

  describe("while CouchDB works", () => {
    afterEach(() => output("cht", restore));
    // What was done here to the files was done without CouchDB's knowledge.
    after(async () => {
      await output("cht", `docker restart --time 1 ${await container("couchdb")}`);
      await chtAnswers();
    });

    it("a database that grows while it is read is saved as far as it was, up to a whole header", async () => {
      const path = shard(first);
      assert.equal((await python("cht", "grow.py", [path, "16"])).code, 0);
      const expected = await documents(path);
      const writer = whenRead(path, "append");
      const report = assertComplete(await backUp());
      const { code, stdout, stderr } = await writer;
      assert.equal(code, 0, stderr);
      assert.ok(Number(stdout) > 0);
      assert.equal(report.borgExitCode, 100, "borg didn't see the file change");
      const copy = `${await extract(report.archive as string, path)}${path}`;
      const size = Number(await output("cht", `stat -c %s ${copy}`));
      assert.ok(size >= 16 * 1024 * 1024);
      const asFar = `head -c ${size} ${path} | sha256sum | cut -c 1-64`;
      assert.equal(await output("cht", asFar), await sha256(copy));
      assert.equal(await documents(copy), expected);
    });

    it("a compaction that swaps files behind its back gives it the new ones, and nothing is missing", async () => {
      const [one, other] = [shard(first), shard(second)];
      // As CouchDB: the compacted data beside the file, then under its name; the second is a step further.
      await output(
        "cht",
        `set -e
cp -a ${one} ${one}.compact.data; touch ${one}.compact.meta
cp -a ${other} ${other}.compact`,
      );
      const swap = `
mv ${one}.compact.data ${one}.compact; rm ${one}.compact.meta
mv ${one} ${data}/.delete/one; mv ${one}.compact ${one}; rm ${data}/.delete/one
mv ${other} ${data}/.delete/other; mv ${other}.compact ${other}; rm ${data}/.delete/other`;
      const swapped = whenRead(firstRead, "run", swap);
      const report = assertComplete(await backUp());
      assert.equal((await swapped).code, 0, (await swapped).stderr);
      assert.deepEqual(report.notes, [`${other}.compact: went away during the backup`]);
      assert.equal(report.borgExitCode, 107);
      const place = await extract(report.archive as string, one, other);
      for (const path of [one, other]) assert.equal(await sha256(`${place}${path}`), await sha256(path));
    });

    it("a compaction that swaps a file while it is read leaves the archive with a whole one", async () => {
      const path = shard(first);
      assert.equal((await python("cht", "grow.py", [path, "16"])).code, 0);
      await output("cht", `cp -a ${path} ${scratch}/grown`);
      const compacted = `${scratch}/couchdb${path.slice(data.length)}`;
      const swapped = whenRead(
        path,
        "run",
        `mv ${path} ${data}/.delete/x; cp -a ${compacted} ${path}; rm ${data}/.delete/x`,
      );
      const report = assertComplete(await backUp());
      assert.equal((await swapped).code, 0, (await swapped).stderr);
      const copy = `${await extract(report.archive as string, path)}${path}`;
      assert.equal(await sha256(copy), await sha256(`${scratch}/grown`));
      assert.equal(await documents(copy), await documents(path));
    });

    it("views that are dropped before it comes to them are a note, not a failure", async () => {
      const dropped = whenRead(firstRead, "run", `rm ${view(third)}`);
      const report = assertComplete(await backUp());
      assert.equal((await dropped).code, 0, (await dropped).stderr);
      assert.deepEqual(report.notes, [`${view(third)}: went away during the backup`]);
    });

    it("a database's file that is lost before it comes to it makes it fail, with the archive of the rest kept", async () => {
      const lost = whenRead(firstRead, "run", `rm ${shard(third)}`);
      const run = await backUp();
      assert.equal((await lost).code, 0, (await lost).stderr);
      const reason = /medic: no shard for 2aaaaaaa-3ffffffe; CouchDB would silently recreate it empty/;
      assertFailed(run, 1, reason);
      await assertAlert(reason);
      await output("cht", restore);
      assertComplete(await backUp());
    });
  });

  describe("while parts of the CHT are down", () => {
    it("with CouchDB stopped, saves everything and counts the documents in the files", async () => {
      const id = await container("couchdb");
      const run = await during("cht", `docker stop --time 1 ${id}`, `docker start ${id}`, backUp);
      const report = assertComplete(run);
      assert.deepEqual(report.notes, ["CouchDB is stopped; counts are from the files"]);
      const manifest = "/run/cht-backup/lab/collect/manifest-before.json";
      const place = await extract(report.archive as string, manifest);
      const { counts } = JSON.parse(await output("cht", `cat ${place}${manifest}`));
      assert.equal(counts.source, "files");
      assert.equal(counts.databases.medic.documents, 419);
      await chtAnswers();
    });

    it("with Docker stopped, saves what is in files and fails, naming what is missing", async () => {
      const stop = "docker stop --time 1 $(docker ps --quiet) && systemctl stop docker.socket docker.service";
      const run = await during("cht", stop, "systemctl start docker.socket docker.service", backUp);
      await chtAnswers();
      const reason = /Docker doesn't answer, so the certificate and versions are missing/;
      const report = assertFailed(run, 1, reason);
      await assertAlert(reason);
      const credentials = "/var/lib/docker/volumes/cht_cht-credentials/_data";
      const place = await extract(report.archive as string, credentials, data);
      assert.equal(await documents(`${place}${shard(first)}`), await documents(shard(first)));
      assert.notEqual(await output("cht", `ls ${place}${credentials}`), "");
      assertComplete(await backUp());
    });

    it("with a volume missing, saves the rest and fails, naming the volume", async () => {
      const volume = "/var/lib/docker/volumes/cht_cht-credentials/_data";
      const run = await during("cht", `mv ${volume} ${volume}.away`, `mv ${volume}.away ${volume}`, backUp);
      const reason = /the volume cht_cht-credentials is missing/;
      assertFailed(run, 1, reason);
      await assertAlert(reason);
      assertComplete(await backUp());
    });

    it("with CouchDB's disk not mounted, refuses rather than saving an empty directory", async () => {
      const run = await during("cht", `mount -t tmpfs none ${data}`, `umount ${data}`, backUp);
      const reason = /couchdb has no _dbs\.couch and no shards.*is its disk mounted\?/;
      assertFailed(run, 2, reason);
      await assertAlert(reason);
      assertComplete(await backUp());
    });
  });

  describe("while the server has trouble", () => {
    it("can't be reached: fails, naming that, and leaves the last success in the report", async () => {
      const before = assertComplete(await backUp());
      const run = await during(
        "server",
        "systemctl stop ssh.socket ssh.service",
        "systemctl start ssh.service",
        backUp,
      );
      const reason = /the backup server can't be reached/;
      const report = assertFailed(run, 2, reason);
      assert.equal(report.lastSuccessAt, before.lastSuccessAt);
      await assertAlert(reason);
      assertComplete(await backUp());
    });

    it("its disk is full: fails, naming that, however full it is; works again once there is space", async () => {
      const spare = 620; // MiB; borg keeps 500 of them free
      const reason = /the backup server's disk is full/;
      const mount = `
size=$(( $(du -sm ${repository} | cut -f 1) + ${spare} ))
mkdir -p ${scratch}
mount -t tmpfs -o size=\${size}m,mode=0700 none ${scratch}
cp -a ${repository}/. ${scratch}/
chown --reference=${repository} ${scratch}
mount --bind ${scratch} ${repository}`;
      // What was stored meanwhile stays: the directory below gets what the disk held.
      const unmount = `
rm -f ${repository}/ballast
leave() { for try in $(seq 300); do umount "$1" && return; sleep 0.2; done; false; } # a seal or an audit may be at work
leave ${repository}
find ${repository} -mindepth 1 -delete
cp -a ${scratch}/. ${repository}/
leave ${scratch}
rmdir ${scratch}`;
      await during("server", mount, unmount, async () => {
        await during("cht", makeBulk, `rm -f ${bulk}`, async () => {
          // Less would be left than borg was told to keep.
          assertFailed(await backUp(), 2, reason);
          await assertAlert(reason);
          // Full in the middle of the upload.
          const ballast = `fallocate -l $(( ($(df --output=avail -m ${repository} | tail -n 1) - 40) ))M ${repository}/ballast`;
          await output("server", ballast);
          assertFailed(await backUp(), 2, reason);
          await assertAlert(reason);
          // Not one byte left.
          await output("server", `cat /dev/zero >${repository}/more 2>/dev/null || true`);
          assertFailed(await backUp(), 2, reason);
          await assertAlert(reason);
        });
        await output("server", `rm ${repository}/ballast ${repository}/more`);
        assertComplete(await backUp());
      });
      assertComplete(await backUp());
    });

    it("loses power in the middle of an upload: fails, tells when it can, and the next run finds no lock", async () => {
      const run = await interrupted(async () => {
        await kill("server");
        await start("server");
      });
      // The lab's names go with its machines.
      const reason = /the backup server('s name can't be resolved| ended the connection| can't be reached)/;
      assertFailed(run, 2, reason);
      await alerts.listen();
      await alerts.deliverNow();
      await assertAlert(reason);
      assertComplete(await backUp());
    });

    it("has its borg killed in the middle of an upload: fails, and the next run works", async () => {
      const reason = /the backup server (ended the connection|can't be reached)/;
      // A copy that is at work takes a dead client's lock away.
      await withoutCopies(async () => {
        const run = await interrupted(() => output("server", "pkill -KILL -u cht-backup-lab -f 'chtbackup guard'"));
        assertFailed(run, 2, reason);
        await assertAlert(reason);
        await output("server", `test -e ${repository}/lock.exclusive`);
      });
      assertComplete(await backUp());
    });
  });

  describe("when it is ended itself in the middle of an upload", () => {
    it("by an administrator: fails, says so, and the next run works", async () => {
      const run = await interrupted(async () => {
        const twice = `${programs}/venv/bin/python -B ${programs}/chtbackup backup ${settings}/settings.json`;
        const second = await exec("cht", twice);
        assert.equal(second.code, 2);
        assert.match(second.stderr, /another backup of lab is running/);
        await output("cht", `systemctl stop ${service}`);
      });
      assertFailed(run, 2, /stopped by SIGTERM/);
      await assertAlert(/stopped by SIGTERM/);
      assert.equal(await output("cht", "pgrep -x borg || true"), "");
      assertComplete(await backUp());
    });

    it("by the kernel: the unit fails, the alert says how, and the next run works", async () => {
      const before = JSON.parse(await output("cht", `cat ${state}/last-backup.json`)) as Report;
      // All stand still before the first dies: borg would give its lock back where its ssh is gone a moment earlier.
      const kill = (signal: string) => `systemctl kill --signal=${signal} --kill-whom=all ${service}`;
      const run = await interrupted(() => output("cht", `${kill("STOP")}; ${kill("KILL")}`));
      assert.equal(run.activeState, "failed");
      assert.equal(run.result, "signal");
      assert.equal(run.report, undefined);
      await assertAlert(/the unit ended with signal/);
      await output("cht", `test -e ${state}/borg/.cache/borg/*/lock.exclusive`);
      const report = assertComplete(await backUp());
      assert.ok((report.lastSuccessAt ?? 0) > (before.lastSuccessAt ?? 0));
    });

    it("by a power failure of the CHT's machine: nothing is left in the next run's way", async () => {
      await during("cht", makeBulk, `rm -f ${bulk}`, async () => {
        const uploading = received();
        await startBackup();
        await uploading;
        await kill("cht");
        await start("cht");
      });
      await chtAnswers();
      assertComplete(await backUp());
    });
  });

  describe("when it raises the alarm", () => {
    it("does so after an upgrade of the system's Python, too, which takes the backup's packages away", async () => {
      const lib = `${programs}/venv/lib`;
      const now = await output("cht", `basename ${lib}/python3*`);
      const run = await during(
        "cht",
        `mv ${lib}/${now} ${lib}/python3.2`,
        `mv ${lib}/python3.2 ${lib}/${now}`,
        async () => {
          const failed = await backUp();
          await assertAlert(
            /for python3\.2, and the system has python3\.\d+ now: `npm run pulumi -- up` installs them anew/,
          );
          return failed;
        },
      );
      assert.equal(run.activeState, "failed");
      assertComplete(await backUp());
    });

    it("never puts the address into the journal", async () => {
      const journal = await output("cht", `journalctl --no-pager --output=cat --unit=${alertService}`);
      assert.match(journal, /1 alert\(s\) delivered/);
      assert.ok(!journal.includes(alerts.secret));
    });
  });
});
