import assert from "node:assert/strict";
import { drillNames } from "../../components/names";
import { documentCounts } from "../../lab/cht";
import { addressOf, exec, kill, output, start, waitFor } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertAlert, forgetAlerts, receiveAlerts, stopAlerts, stopWatching } from "./alerts";
import {
  assertComplete,
  backUp,
  timer as backupTimer,
  container,
  during,
  programs,
  python,
  recovery,
  settings,
  startBackup,
  state,
  stopExtraction,
} from "./backup";
import { type Damage, damages, putDamaged, rot, viewAhead } from "./damage";
import { tree } from "./fresh-machine";
import { chtAnswers, healthyLab } from "./hooks";

const names = drillNames("lab");
const { reports, service, timer, network } = names;
const settingsFile = `${settings}/drill.json`;
const scratch = `${state}/drill`;
const label = "cht-backup.drill=lab";
const timers = `${timer} ${names.overdueTimer} ${backupTimer}`;

/** A report in `drills/`. */
interface Report {
  outcome: "right" | "wrong" | "impossible" | "interrupted";
  ok: boolean;
  began: string;
  seconds: number;
  archive: string | null;
  archiveAgeSeconds: number | null;
  image: string | null;
  stage: string;
  sizes: { files: number; bytes: number };
  counts: Record<string, number>;
  checked: string[];
  notes: string[];
  problems: string[];
  log: string[];
  lastSuccessAt: number | null;
}

interface Run {
  activeState: string;
  exitCode: number;
  journal: string;
  report: Report;
  page: string;
}

/** The drill, and what comes after one that failed. */
const untilEnded = `while systemctl list-jobs --no-legend | grep -q ' cht-drill-lab' || [ "$(systemctl show -p ActiveState --value ${service})" = deactivating ]; do sleep 0.1; done`;

/** Where the journal of the last drill begins. */
let cursor: string;
async function markJournal(): Promise<void> {
  cursor = await output("cht", "journalctl --show-cursor --lines=0 | sed -n 's/^-- cursor: //p'");
}

/** Starts a drill and doesn't wait for its end. */
async function startDrill(): Promise<void> {
  await markJournal();
  await output(
    "cht",
    `${untilEnded}; systemctl reset-failed 'cht-drill-lab*'; systemctl start --no-block ${service}; until [ "$(systemctl show -p ActiveState --value ${service})" != inactive ]; do sleep 0.05; done`,
  );
}

/** Waits for the drill's end. */
async function ended(): Promise<Run> {
  const script = `
${untilEnded}
systemctl show -p ActiveState -p ExecMainStatus ${service}
journalctl --sync
echo ---
journalctl --no-pager --output=cat --after-cursor='${cursor}' --unit=${service} --unit=${names.cleanupService}
echo ---
cat ${reports}/latest.json
echo ---
cat ${reports}/latest.txt`;
  const [facts = "", journal = "", report = "", page = ""] = (await output("cht", script)).split(/^---\n/m);
  const fact = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(facts)?.[1] ?? "";
  const exitCode = Number(fact("ExecMainStatus"));
  return { activeState: fact("ActiveState"), exitCode, journal, report: JSON.parse(report), page };
}

async function drill(): Promise<Run> {
  await startDrill();
  return ended();
}

/** Starts a drill and waits until its database runs. The drill itself is suspended then, so that there is time to look. */
async function suspended(begin: () => Promise<void> = startDrill): Promise<string> {
  await begin();
  const script = `
end=$(($(date +%s) + 200)); while [ "$(date +%s)" -lt "$end" ]; do
  id=$(docker ps --quiet --filter label=${label})
  if [ -n "$id" ]; then
    pid=$(systemctl show -p MainPID --value ${service})
    if [ "$pid" -gt 1 ]; then kill -STOP "$pid"; echo "$id"; exit 0; fi
  fi
  sleep 0.02
done
echo 'no container of a drill came up' >&2
journalctl --no-pager --output=cat --lines=20 --unit=${service} >&2
exit 1`;
  return output("cht", script, { timeoutMs: 240_000 });
}

const resume = () => output("cht", `systemctl kill --signal=CONT --kill-whom=main ${service}`);

/** Asserts that of a drill nothing is left but its reports. */
async function assertTidy(): Promise<void> {
  const left = `docker ps --all --quiet --filter label=${label}; ls -A ${scratch}; ls ${reports}/running.json 2>/dev/null; pgrep -x borg; docker network inspect --format '{{len .Containers}}' ${network}`;
  assert.equal((await exec("cht", left)).stdout, "0\n");
}

function assertRight({ activeState, exitCode, journal, report }: Run): Report {
  assert.equal(activeState, "inactive", journal);
  assert.equal(exitCode, 0, journal);
  assert.deepEqual(report.problems, []);
  assert.equal(report.outcome, "right");
  assert.equal(report.ok, true);
  return report;
}

/** Asserts that a drill failed, that journal, report, page and alert say why, and that it left nothing. */
async function assertFailed(run: Run, outcome: Report["outcome"], reason: RegExp): Promise<Report> {
  const { activeState, exitCode, journal, report, page } = run;
  assert.equal(activeState, "failed", journal);
  assert.equal(exitCode, { right: 0, wrong: 1, impossible: 2, interrupted: 9 }[outcome], journal);
  assert.match(journal, reason);
  assert.doesNotMatch(journal, /Traceback/);
  assert.equal(report.outcome, outcome);
  assert.equal(report.ok, false);
  assert.ok(
    report.problems.some((line) => reason.test(line)),
    report.problems.join("\n"),
  );
  assert.match(page, reason);
  assert.match(page, /^Restore drill of the CHT deployment lab: (WRONG|FAILED)/);
  await assertAlert(/^CHT restore drill lab failed on cht$/, reason);
  await assertTidy();
  return report;
}

/** Does something while the drill has other settings. */
async function withSettings<T>(changes: Record<string, unknown>, work: () => Promise<T>): Promise<T> {
  const before = await output("cht", `cat ${settingsFile}`);
  const write = (text: string) => output("cht", `cat > ${settingsFile}`, { stdin: `${text}\n` });
  await write(JSON.stringify({ ...JSON.parse(before), ...changes }));
  try {
    return await work();
  } finally {
    await write(before);
  }
}

/** All that a drill could harm on the machine where the CHT runs. */
async function production(): Promise<unknown> {
  const script = `
docker inspect --format '{{.Id}} {{.State.StartedAt}} {{.RestartCount}} {{json .HostConfig.Binds}} {{json .NetworkSettings.Networks}}' $(docker ps --all --quiet --filter label=com.docker.compose.project=cht)
docker volume ls --quiet
docker network ls --format '{{.Name}} {{.ID}}'
docker images --quiet`;
  return [await output("cht", script), await tree("cht")];
}

describe("the restore drill", function () {
  this.timeout(120_000);

  let archive: string;

  before(async () => {
    await healthyLab();
    // Neither a backup nor a drill of its own accord in between.
    await output("cht", `systemctl stop ${timers}; ${untilEnded}`);
    archive = assertComplete(await backUp()).archive as string;
    await receiveAlerts();
  });

  after(async () => {
    await stopAlerts();
    await output("cht", `systemctl reset-failed 'cht-drill-lab*'; systemctl start ${timers}`);
  });

  beforeEach(forgetAlerts);

  describe("started by its timer", () => {
    let untouched: unknown;
    let meanwhile: unknown;
    let run: Run;
    let triggered: string;
    /** What a drill must not reach, and what was reached. */
    let outside: string[];
    let fromCht: string[];
    let fromDrill: string[];
    let seen: { passes: number; programs: string[]; found: unknown[] };
    let secrets: Record<string, string[]>;

    /** Which of some addresses with ports a program gets a connection to in a container's own network. */
    async function reachable(id: string, places: string[]): Promise<string[]> {
      const attempts = places.map((place) => {
        const [address, port] = place.split(":");
        return `nsenter --net="$network" timeout 30 bash -c ': < /dev/tcp/${address}/${port}' && echo ${place}`;
      });
      const script = `network=$(docker inspect --format '{{.NetworkSettings.SandboxKey}}' ${id})\n${attempts.join("\n")}`;
      return (await exec("cht", script)).stdout.split("\n").filter(Boolean);
    }

    before(async () => {
      untouched = await production();
      const env = await output("cht", "cat /home/ubuntu/cht/upgrade-service/.env");
      const ofEnv = (name: string) => new RegExp(`^${name}=(.+)$`, "m").exec(env)?.[1] ?? "";
      const { passphrase } = await recovery();
      secrets = { passphrase: [passphrase], env: ["COUCHDB_PASSWORD", "COUCHDB_SECRET"].map(ofEnv) };
      const stop = "/run/drill-test-stop";
      await output("cht", `rm -f ${stop}`);
      const sampler = python("cht", "sampler.py", [stop], JSON.stringify(secrets));

      const dropIn = `/run/systemd/system/${timer}.d`;
      const everySecond = `mkdir -p ${dropIn}; printf '[Timer]\\nOnCalendar=\\nOnCalendar=*:*:*\\n' > ${dropIn}/test.conf; systemctl daemon-reload; systemctl start ${timer}`;
      const asBefore = `systemctl stop ${timer}; rm -r ${dropIn}; systemctl daemon-reload`;
      // Nothing but the timer starts it. One shell does all: the timer fires again at once when a drill has ended.
      const begin = async () => {
        await markJournal();
        await output(
          "cht",
          `set -e; ${everySecond}
until [ "$(systemctl show -p ActiveState --value ${service})" = activating ]; do sleep 0.05; done
${asBefore}`,
        );
      };
      const id = await suspended(begin);
      // The container is there before its database listens.
      const listens = async () => (await reachable(id, ["127.0.0.1:5984"])).length === 1;
      assert.ok(await waitFor(listens, 90_000), await output("cht", `docker logs --tail 3 ${id} 2>&1`));
      triggered = await output("cht", `systemctl show -p TriggeredBy --value ${service}`);
      meanwhile = await production();
      const [couchdb, nginx] = await Promise.all([container("couchdb"), container("nginx")]);
      const address = "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'";
      const [ofCouchdb, ofNginx] = (await output("cht", `${address} ${couchdb} ${nginx}`)).split("\n");
      outside = [`${await addressOf("server")}:22`, `${ofCouchdb}:5984`, `${ofNginx}:443`];
      [fromCht, fromDrill] = await Promise.all([
        reachable(couchdb, outside),
        reachable(id, ["127.0.0.1:5984", ...outside]),
      ]);
      await resume();
      run = await ended();
      await output("cht", `touch ${stop}`);
      seen = JSON.parse((await sampler).stdout);
      await output("cht", `rm ${stop}`);
    });

    it("restores the newest archive and finds it right", () => {
      assert.equal(triggered, timer);
      const report = assertRight(run);
      assert.equal(report.archive, archive);
      assert.equal(report.stage, "done");
      assert.ok(report.sizes.files > 100 && report.sizes.bytes > 1e6);
      const right = report.checked.map((line) => line.split(/[: ]/)[0]);
      assert.deepEqual(right, [
        "files",
        "checksums",
        "headers",
        "counts",
        "TLS",
        "image",
        "network",
        "login",
        "CouchDB",
        "documents",
      ]);
    });

    it("counts the documents of every database as the CHT itself does", async () => {
      assert.deepEqual(run.report.counts, await documentCounts());
      const all = Object.values(run.report.counts).reduce((sum, count) => sum + count, 0);
      assert.equal(all, 863);
    });

    it("leaves a page that says so to people", () => {
      assert.match(run.page, /^Restore drill of the CHT deployment lab: RIGHT\n.* on cht, took .* s\n/);
      assert.match(run.page, new RegExp(`${archive}, [\\d.]+ s old|${archive}, .* min`));
      assert.match(run.page, /medic +419\n/);
      assert.match(run.page, /all together +863\n/);
    });

    it("touches nothing of the CHT beside it, and leaves nothing", async () => {
      assert.deepEqual(meanwhile, untouched);
      assert.deepEqual(await production(), untouched);
      await assertTidy();
    });

    it("runs the restored CouchDB where it reaches nobody", () => {
      assert.deepEqual(fromCht, outside);
      assert.deepEqual(fromDrill, ["127.0.0.1:5984"]);
    });

    it("shows no password to others: in arguments, environments, journal or reports", async () => {
      assert.ok(seen.passes > 100 && seen.programs.includes("chtbackup drill") && seen.programs.includes("borg"));
      assert.deepEqual(seen.found, []);
      const journal = await python("cht", "search.py", ["journal"], JSON.stringify(secrets));
      assert.deepEqual(JSON.parse(journal.stdout).found, []);
      const kept = await output("cht", `cat ${reports}/*`);
      for (const text of Object.values(secrets).flat()) assert.ok(text.length > 12 && !kept.includes(text));
      assert.equal(await output("cht", `find ${reports} -perm /077`), "");
    });
  });

  describe("that is cut off", () => {
    it("by SIGKILL leaves nothing, is reported as interrupted, and raises the alarm", async () => {
      await suspended();
      const second = `${programs}/venv/bin/python -B ${programs}/chtbackup drill run ${settingsFile}`;
      const refused = await exec("cht", second);
      assert.equal(refused.code, 2);
      assert.match(refused.stderr, /^another drill of lab is running\n$/);
      const following = run("npm", ["run", "-s", "drill", "--", "--stack", "lab"], { cwd: project });
      await output("cht", `until pgrep -f '^systemctl start ${service}'; do sleep 0.1; done`, { timeoutMs: 80_000 });
      await output("cht", `systemctl kill --signal=KILL --kill-whom=all ${service}`);
      const { code, stdout } = await following;
      assert.equal(code, 1);
      assert.match(stdout, /^Restore drill .*: FAILED \(interrupted\)\n/);
      const killed = await ended();
      const report = await assertFailed(
        killed,
        "interrupted",
        /interrupted at the stage “(starting CouchDB|asking CouchDB|reading documents)”/,
      );
      assert.equal(report.archive, archive);
    });

    it("by a power failure leaves nothing once the machine is up, is reported, and raises the alarm", async () => {
      await suspended();
      await kill("cht");
      await start("cht");
      await output(
        "cht",
        `systemctl stop ${timers}; until [ "$(systemctl show -p ActiveState --value ${names.cleanupService})" = failed ]; do sleep 0.1; done`,
      );
      await stopWatching();
      await assertAlert(/^CHT restore drill lab failed on cht$/, /interrupted at the stage/);
      await assertTidy();
      const report: Report = JSON.parse(await output("cht", `cat ${reports}/latest.json`));
      assert.equal(report.outcome, "interrupted");
      await chtAnswers();
    });

    it("by an administrator says so, and the next one works", async () => {
      await suspended();
      // systemd has what it stops go on, so that it hears of it.
      await output("cht", `systemctl stop ${service}`);
      const report: Report = JSON.parse(await output("cht", `cat ${reports}/latest.json`));
      assert.match(
        report.problems.join(),
        /^stopped by SIGTERM at the stage “(starting CouchDB|asking CouchDB|reading documents)”$/,
      );
      await assertTidy();
      await forgetAlerts();
      assertRight(await drill());
    });
  });

  describe("fails, names the reason and leaves nothing", () => {
    it("with less scratch space allowed than it takes", async () => {
      const run = await withSettings({ scratchGibibytes: 0.001 }, drill);
      const report = await assertFailed(run, "impossible", /it takes [\d.]+ MB of scratch space, and scratchGibibytes/);
      assert.ok(report.lastSuccessAt);
    });

    it("when the disk fills up while it runs", async () => {
      const mount = `mount -t tmpfs -o size=1200m none ${scratch}`;
      await during("cht", mount, `umount ${scratch}`, async () => {
        const id = await suspended();
        await output("cht", `docker pause ${id}; fallocate -l 250M ${scratch}/ballast`);
        await resume();
        const run = await ended();
        await output("cht", `rm ${scratch}/ballast`);
        await assertFailed(run, "impossible", /fills up: [\d.]+ MB are free, and 1,000\.0 MB must stay free/);
      });
    });

    it("when CouchDB doesn't start on the copy, with its last words and without a password in them", async () => {
      const image = "drill-test-dead:1";
      const make = `
id=$(docker create "$(docker inspect --format '{{.Config.Image}}' ${await container("couchdb")})")
docker commit --change 'ENTRYPOINT []' --change 'CMD ["sh", "-c", "echo dying of $COUCHDB_PASSWORD; exit 3"]' $id ${image}
docker rm $id`;
      await during("cht", make, `docker rmi ${image}`, async () => {
        const run = await withSettings({ image }, drill);
        const report = await assertFailed(run, "wrong", /couchdb ended at once \(exit code 3\)/);
        assert.deepEqual(report.log, ["dying of ***"]);
        assert.match(run.page, /dying of \*\*\*/);
        assert.match(report.notes.join(), /image is drill-test-dead:1 by the settings; the production ran/);
      });
    });

    it("when its network isn't internal, or is missing", async () => {
      const remove = `docker network rm ${network}`;
      await during("cht", remove, `docker network create --internal ${network}`, async () => {
        const missing = await drill();
        assert.match(missing.report.problems.join(), new RegExp(`the Docker network ${network} is missing`));
        await assertAlert(/failed on cht/, /is missing/);
        await during("cht", `docker network create ${network}`, remove, async () => {
          await assertFailed(await drill(), "impossible", /isn't internal, so the restored CouchDB could reach others/);
        });
      });
    });

    it("when CouchDB's image isn't there", async () => {
      const run = await withSettings({ image: "localhost:1/no-such-image:1" }, drill);
      await assertFailed(run, "impossible", /CouchDB's image localhost:1\/no-such-image:1 isn't on this machine/);
    });

    it("when the newest archive is older than allowed", async () => {
      const run = await withSettings({ overdueAfterDays: 1e-5 }, drill);
      await assertFailed(run, "wrong", /the newest finished archive is .* old, .*backups have stopped/);
    });
  });

  it("and a backup that begins while it fetches both come to a good end", async () => {
    // Once there are files, borg holds the lock.
    const fetching = "pgrep -f '^[^ ]*python[^ ]* [^ ]*borg .* extract .*--patterns-from'";
    const stopped = stopExtraction("cht", `${scratch}/cht-drill-lab/copy/home`, 6);
    await startDrill();
    await stopped;
    const backup = await startBackup();
    const waiting = `until pid=$(pgrep -f '^[^ ]*python[^ ]* [^ ]*borg .* create ') && sleep 1 && kill -0 $pid; do :; done`;
    await output("cht", `${waiting}; kill -CONT $(${fetching})`, { timeoutMs: 240_000 });
    archive = assertComplete(await backup.finished()).archive as string;
    assertRight(await ended());
  });

  it("that hasn't succeeded for too long raises the alarm, every day until it does", async () => {
    const overdue = `systemctl start ${names.overdueService}`;
    // A report's time is rounded to seconds, so one that has just ended may lie a little ahead.
    const { lastSuccessAt } = JSON.parse(await output("cht", `cat ${names.reports}/latest.json`));
    await output("cht", `until [ "$(date +%s)" -gt ${lastSuccessAt} ]; do sleep 0.1; done`);
    await withSettings({ overdueAfterDays: 1e-6 }, async () => {
      assert.notEqual((await exec("cht", overdue)).code, 0);
      await assertAlert(/^CHT restore drill lab is overdue on cht$/, /too long ago that a restore was proven/);
    });
    await output("cht", overdue);
    assert.equal(await output("cht", `systemctl is-active ${names.overdueTimer} || true`), "inactive");
    await output("cht", `systemctl start ${names.overdueTimer}; systemctl is-enabled ${names.overdueTimer}`);
  });

  describe("of an archive that isn't what was backed up", () => {
    const { stranger, environment, certificate, shardRemoved, shardCut } = damages;
    const ahead = { ...viewAhead, named: /\.view: ahead of its shard/ };
    // What doesn't hide the others can be in one archive.
    const cases: Damage[][] = [[stranger, environment, certificate, ahead], [shardRemoved], [shardCut]];
    for (const wrong of cases) {
      it(`fails and says that ${wrong.map(({ what }) => what).join(", that ")}`, async () => {
        const { what, named } = wrong[0] as Damage;
        const make = wrong.map((damage) => damage.make).join("\n");
        const { archives, remove } = await putDamaged({ what, make, named });
        try {
          const run = await drill();
          assert.equal(run.report.archive, archives[0]);
          for (const damage of wrong) {
            assert.ok(
              run.report.problems.some((line) => damage.named.test(line)),
              run.report.problems.join("\n"),
            );
          }
          await assertFailed(run, "wrong", named);
        } finally {
          await remove();
        }
      });
    }

    it("fails and says that the repository has rotted", async () => {
      const rotten = await rot("content");
      try {
        const reason = new RegExp(`a part of the archive ${rotten.archive} can't be read`);
        await assertFailed(await drill(), "impossible", reason);
      } finally {
        await rotten.mend();
      }
    });
  });
});
