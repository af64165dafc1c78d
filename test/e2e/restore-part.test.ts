import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { documentCounts } from "../../lab/cht";
import { exec, output, waitFor } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertComplete, backUp, data, home, timer } from "./backup";
import { damages, putDamaged } from "./damage";
import { type FreshMachine, freshMachine, tree } from "./fresh-machine";
import { healthyLab } from "./hooks";

const notes = "/var/lib/cht-restore";
const into = "/var/tmp/part-test";
const shard = `${data}/shards/00000000-15555554/medic.1795302615.couch`;
const env = "/home/ubuntu/cht/upgrade-service/.env";

/** The blocks of commands in the runbook's section about parts, for the lab. */
function documented(archive: string): string[] {
  const [, section = ""] = readFileSync(join(project, "docs", "restore.md"), "utf8").split(/^## 6\. /m);
  const blocks = [...(section.split(/^## /m)[0] ?? "").matchAll(/```shell\n([\s\S]*?)```/g)];
  return blocks.map(([, block = ""]) =>
    block
      .replaceAll("/prod/", "/lab/")
      .replaceAll("--stack prod", "--stack lab")
      .replaceAll("npm run", "npm run -s")
      // The lab's stand-in for CouchDB has nothing to write when it stops.
      .replace("cht stop", "cht stop --timeout 1")
      .replace("down --volumes", "down --volumes --timeout 1")
      .replaceAll("ARCHIVE", archive),
  );
}

describe("a part of an archive", function () {
  this.timeout(120_000);

  let archive: string;
  let keys: string;

  /** Runs the command on the CHT machine, as an operator does. */
  function get(...args: string[]): Promise<Result> {
    const words = ["run", "-s", "restore", "--", "--stack", "lab", "--from", "server", "--to", "cht", ...args];
    return run("npm", words, { cwd: project, timeoutMs: 100_000 });
  }

  before(async () => {
    await healthyLab();
    // The nightly backup must not become the newest archive in between.
    await output("cht", `systemctl stop ${timer}; rm -rf ${into} ${notes}`);
    archive = assertComplete(await backUp()).archive as string;
    keys = await output("server", `cat ${home}/.ssh/authorized_keys`);
  });

  after(() => output("cht", `systemctl start ${timer}; rm -rf ${into} ${notes}`));

  describe("on the machine of the CHT, which goes on working", () => {
    let untouched: unknown;
    let packages: string;

    before(async () => {
      [untouched, packages] = await Promise.all([tree("cht"), output("cht", "dpkg --list | sha256sum")]);
    });

    after(async () => {
      assert.deepEqual(await tree("cht"), untouched);
      assert.equal(await output("cht", "dpkg --list | sha256sum"), packages);
      assert.equal(
        await output("cht", "docker ps --quiet | wc -l; ls -d /run/cht-archives.* 2>/dev/null || true"),
        "2",
      );
      assert.equal(await output("server", `cat ${home}/.ssh/authorized_keys`), keys);
    });

    it("is announced first, with its size, and nothing is written", async () => {
      const { code, stdout, stderr } = await get("--database", "medic", "--into", into, "--dry-run");
      assert.equal(code, 0, stderr);
      assert.match(stdout, new RegExp(`archive ${archive}, begun`));
      assert.match(stdout, /24 files, [\d.]+ MB; about/);
      assert.match(stdout, new RegExp(`would put the database medic into ${into}\ndry run: nothing was changed`));
      assert.equal(await output("cht", "ls -A /var/tmp | grep part-test || true"), "");
    });

    it("is a database with its views and a file, byte for byte, with owners and modes, and proven", async () => {
      const { code, stdout, stderr } = await get("--database", "medic", "--path", env, "--into", into);
      assert.equal(code, 0, stdout + stderr);
      const right = [...stdout.matchAll(/^right: (\w+)/gm)].map(([, what]) => what);
      assert.deepEqual(right, ["files", "checksums", "headers", "counts"]);
      assert.match(stdout, /counts: 1 database with 419 documents/);
      assert.match(stdout, new RegExp(`is in ${into} and right .*\n {2}${into}${data}\n {2}${into}${env}\n`));
      const files = `find ${data} -name 'medic.*.couch' -o -path '*/medic.*.view'; echo ${env}`;
      const describe = "while read -r path; do stat --format '%n %u %g %a' $path; sha256sum $path; done";
      const [source, copy] = await Promise.all([
        output("cht", `(${files}) | sort | ${describe}`),
        output("cht", `cd ${into}; find . -type f ! -name RESTORED.json -printf '%P\\n' | sort | ${describe}`),
      ]);
      assert.equal(copy.replaceAll(" home", " /home").replace(/^home/gm, "/home"), source);
      assert.equal(source.split("\n").length, 2 * 25);
      assert.equal(await output("cht", `stat --format '%U %a' ${into}`), "root 700");
    });

    it("asked for again is checked again", async () => {
      const again = await get("--database", "medic", "--path", env, "--into", into);
      assert.equal(again.code, 0, again.stderr);
      assert.match(again.stdout, /holds this already; it is checked again\nright: files/);
      await output("cht", `printf x >>${into}${env}`);
      const spoilt = await get("--database", "medic", "--path", env, "--into", into);
      assert.equal(spoilt.code, 1, spoilt.stderr);
      assert.match(spoilt.stderr, new RegExp(`WRONG: ${env}: its content is not what was backed up`));
      await output("cht", `rm -r ${into}`);
    });

    it("that is interrupted leaves nothing in its place; the same command goes on", async () => {
      const running = get("--database", "medic", "--into", into);
      const staging = "/var/tmp/.part-test.restoring/files";
      const suspend = `
until [ "$(find ${staging} -type f ! -newermt 2026-11-21T12:00Z 2>/dev/null | wc -l)" -gt 2 ]; do :; done
pkill -STOP -x borg
find ${staging} -type f ! -newermt 2026-11-21T12:00Z | wc -l
kill -TERM $(pgrep -f bin/part.py)`;
      const extracted = Number((await output("cht", suspend, { timeoutMs: 60_000 })).split("\n")[0]);
      assert.ok(extracted > 2 && extracted < 24, `${extracted} files`);
      const { code, stderr } = await running;
      assert.equal(code, 2);
      assert.match(stderr, /stopped by SIGTERM; the next run goes on from here/);
      assert.equal(await output("cht", `ls -d ${into} 2>/dev/null || true; pgrep -x borg || true`), "");
      const next = await get("--database", "medic", "--into", into);
      assert.equal(next.code, 0, next.stderr);
      assert.match(next.stdout, /24 files, [\d.]+ MB, of which [\d.]+ MB are here from a run before/);
      assert.equal(await output("cht", "ls -A /var/tmp | grep part-test"), "part-test");
      await output("cht", `rm -r ${into}`);
    });

    it("that can't be had is refused in one line, which names what there is", async () => {
      const wrong: [string[], RegExp][] = [
        [["--database", "medc"], /no database medc in lab-.*; it holds: _global_changes, _replicator, .*medic-users/],
        [["--path", `${data}/_db.couch`], /no \S+ in lab-.*; \S+couchdb holds: .*_dbs\.couch/],
        [["--path", env, "--into", "/home"], /there is something in \/home already. Nothing was changed/],
        [["--path", env, "--into", data], /the CHT works there \(in .*couchdb\); choose an empty directory/],
        [["--database", "medic", "--start"], /--start is for a whole CHT/],
      ];
      for (const [args, reason] of wrong) {
        const { code, stdout, stderr } = await get(...args);
        assert.equal(code, 2, stdout + stderr);
        assert.match(stderr, reason);
        assert.equal(stderr.trim().split("\n").length, 1, stderr);
      }
    });

    it("of an archive that is damaged there is named; the other databases can be had", async () => {
      const damaged = await putDamaged(damages.shardCut);
      try {
        const { code, stdout, stderr } = await get("--database", "medic", "--into", into);
        assert.equal(code, 1, stdout + stderr);
        assert.match(stderr, damages.shardCut.named);
        assert.match(stdout, new RegExp(`NOT put into ${into}: 2 of the checks failed`));
        assert.equal(await output("cht", `ls -d ${into} 2>/dev/null || true`), "");
        const other = await get("--database", "medic-sentinel", "--into", into);
        assert.equal(other.code, 0, other.stderr);
      } finally {
        await damaged.remove();
        await output("cht", `rm -rf ${into}`);
      }
    });
  });

  describe("on another machine", () => {
    let machine: FreshMachine;
    let counts: Record<string, number>;

    before(async () => {
      machine = await freshMachine("restore");
      counts = await documentCounts();
      const [whole] = await Promise.all([
        machine.restore("--start"),
        output("restore", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q curl"),
      ]);
      assert.equal(whole.code, 0, whole.stderr);
    });

    after(() => machine.remove());

    /** Runs the first block that has these words in it: the operator's with a way in, the others there as root. */
    async function follow(words: string): Promise<string> {
      const block = documented(archive).find((each) => each.includes(words)) ?? assert.fail(words);
      const command = block.replace("--to cht", ["--to", machine.destination, ...machine.login].join(" "));
      const done = block.startsWith("npm")
        ? await run("sh", ["-ec", command], { cwd: project, timeoutMs: 100_000 })
        : await exec("restore", `set -e\n${block}`);
      assert.equal(done.code, 0, done.stdout + done.stderr);
      return done.stdout;
    }

    it("gives a database its lost documents back, by the documented commands", async () => {
      // A shard without documents, as after a mistake, and nouveau's index of it.
      const empty = `$(ls ${data}/shards/00000000-15555554/_replicator.*.couch)`;
      await output("restore", `cp ${empty} ${shard}; mkdir ${data}/nouveau; echo old >${data}/nouveau/index`);
      const lost = async () => (await documentCounts("restore")).medic !== counts.medic;
      assert.ok(await waitFor(lost, 10_000));
      await follow("--database medic-sentinel");
      await follow("$aside");
      assert.deepEqual(await documentCounts("restore"), counts);
      const copy = await tree("restore");
      delete copy[`${data}/nouveau`];
      const source = await tree("cht");
      const aside = Object.keys(copy).filter((path) => path.startsWith("/home/ubuntu/cht/couchdb-aside"));
      assert.ok(aside.includes(`/home/ubuntu/cht/couchdb-aside/nouveau/index`));
      assert.equal(aside.filter((path) => path.endsWith(".couch")).length, 24);
      for (const path of aside) delete copy[path];
      assert.deepEqual(copy, source);
    });

    it("shows single documents in a second CouchDB, by the documented commands", async () => {
      await follow("--into /var/lib/cht-look");
      const shown = await follow("cht-look --env-file");
      assert.equal(JSON.parse(shown).doc_count, counts.medic);
      const left =
        "docker ps --all --quiet --filter name=look; docker volume ls -q; docker network ls --format '{{.Name}}' | grep look || true";
      assert.equal(await output("restore", left), "cht_cht-credentials\ncht_cht-ssl");
      assert.deepEqual(await documentCounts("restore"), counts);
    });
  });
});
