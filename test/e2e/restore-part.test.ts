import assert from "node:assert/strict";
import { output } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertComplete, backUp, data, home, stopExtraction, timer } from "./backup";
import { damages, putDamaged } from "./damage";
import { tree } from "./fresh-machine";
import { healthyLab } from "./hooks";

const notes = "/var/lib/cht-restore";
const into = "/var/tmp/part-test";
const env = "/home/ubuntu/cht/upgrade-service/.env";

describe("a part of an archive", function () {
  this.timeout(120_000);

  let archive: string;
  let keys: string;

  /** Runs the command on the CHT machine, as an operator does. */
  function get(...args: string[]): Promise<Result> {
    const words = ["run", "-s", "restore", "--", "--stack", "lab", "--from", "server", "--to", "cht", ...args];
    return run("npm", words, { cwd: project, timeoutMs: 400_000 });
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
      await output("cht", `printf x >>${into}${env}`);
      const spoilt = await get("--database", "medic", "--path", env, "--into", into);
      assert.equal(spoilt.code, 1, spoilt.stderr);
      assert.match(spoilt.stdout, /holds this already; it is checked again\nright: files/);
      assert.match(spoilt.stderr, new RegExp(`WRONG: ${env}: its content is not what was backed up`));
      await output("cht", `rm -r ${into}`);
    });

    it("that is interrupted leaves nothing in its place; the same command goes on", async () => {
      const stopped = stopExtraction("cht", "/var/tmp/.part-test.restoring/files/home", 3);
      const running = get("--database", "medic", "--into", into);
      await stopped;
      await output("cht", "kill -TERM $(pgrep -f '[c]htbackup part')");
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
        [["--path", env, "--into", "/home"], /there is something in \/home already. Nothing was changed/],
      ];
      for (const [args, reason] of wrong) {
        const { code, stdout, stderr } = await get(...args);
        assert.equal(code, 2, stdout + stderr);
        assert.match(stderr, reason);
        assert.equal(stderr.trim().split("\n").length, 1, stderr);
      }
    });

    it("of an archive that is damaged there is named, and not put in its place", async () => {
      const damaged = await putDamaged(damages.shardCut);
      try {
        const { code, stdout, stderr } = await get("--database", "medic", "--into", into);
        assert.equal(code, 1, stdout + stderr);
        assert.match(stderr, damages.shardCut.named);
        assert.match(stdout, new RegExp(`NOT put into ${into}: 2 of the checks failed`));
        assert.equal(await output("cht", `ls -d ${into} 2>/dev/null || true`), "");
      } finally {
        await damaged.remove();
        await output("cht", `rm -rf ${into}`);
      }
    });
  });
});
