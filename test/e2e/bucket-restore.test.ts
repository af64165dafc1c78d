import assert from "node:assert/strict";
import { bucketSecrets } from "../../lab/bucket";
import { documentCounts } from "../../lab/cht";
import { exec, output, stateOf, waitFor } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { archives, assertComplete, backUp, home, maintain, recovery, repository, timer, user } from "./backup";
import { bucketFailedService, copiesEnded, copyNow, copyService, lastCopy, settle } from "./bucket";
import { type Destroyed, destroy, type FreshMachine, tree } from "./fresh-machine";
import { chtAnswers, healthyLab } from "./hooks";
import { runbook } from "./runbook";
import { assertNoDrift, up } from "./stack";

const cht = "/home/ubuntu/cht";
const fetched = "/var/lib/cht-restore/lab/repository";

/** A time, in seconds as the commands have it, by which everything is done that was done before. */
const now = () => new Date(Date.now() + 1000).toISOString();

describe("a restore from the bucket, with the CHT machine and the server destroyed", function () {
  this.timeout(180_000);

  let machine: FreshMachine;
  let destroyed: Destroyed | undefined;
  let passphrase: string;
  let archive: string;
  let older: string;
  let was: { tree: object; counts: object; archives: string[] };
  let firstCopy: string;
  let lastOfAll: string;
  let number: number;

  before(async () => {
    await healthyLab();
    ({ passphrase } = await recovery());
    await output("cht", `systemctl stop ${timer}`);
    older = assertComplete(await backUp()).archive as string;
    assert.equal((await copyNow()).ok, true);
    firstCopy = new Date().toISOString();
    archive = assertComplete(await backUp()).archive as string;
    const { ok, copy } = await copyNow();
    assert.equal(ok, true);
    number = copy?.number ?? 0;
    lastOfAll = now();
    was = { tree: await tree("cht"), counts: await documentCounts(), archives: await archives(passphrase) };
    destroyed = await destroy("cht", "server");
    machine = await destroyed.newCht();
    assert.equal(await stateOf("server"), undefined);
  });

  after(async function () {
    this.timeout(400_000);
    await machine?.remove();
    await destroyed?.anew();
  });

  /** What no restore may leave on the machine. */
  async function assertTidy(): Promise<void> {
    const left = "ls -A /var/lib/cht-restore/lab | grep run || true; pgrep -x borg || true";
    assert.equal(await output("cht", left), "");
  }

  /** What `npm run archives` lists of a copy, the newest first. */
  async function listed(...options: string[]) {
    const words = ["--stack", "lab", "--from", "bucket", "--via", machine.destination, ...machine.login, ...options];
    const list = await run("npm", ["run", "-s", "archives", "--", ...words, "--json"], { cwd: project });
    assert.equal(list.code, 0, list.stderr);
    return JSON.parse(list.stdout).archives as { name: string; documents: object }[];
  }

  it("says beforehand which copy it would take and how much room that needs, and fetches nothing", async () => {
    const { code, stdout, stderr } = await machine.fromBucket("--dry-run");
    assert.equal(code, 0, stdout + stderr);
    assert.match(
      stdout,
      /^copy \d+, index\/\S+, finished \S+: deployment lab, repository [0-9a-f]{64}, transaction \d+$/m,
    );
    assert.match(stdout, /^\d+ files, [\d.,]+ MB\nspace for the repository: [\d.,]+ MB needed, [\d.,]+ MB free in /m);
    assert.match(stdout, /^dry run: nothing was fetched/m);
    assert.equal(await output("cht", `ls -d ${fetched} 2>/dev/null || true`), "");
    await assertTidy();
  });

  it("lists the archives from there, with the counts of their documents", async () => {
    const found = await listed("--last", "2");
    assert.deepEqual(
      found.map(({ name }) => name),
      [archive, older],
    );
    assert.deepEqual(found[0]?.documents, was.counts);
    await assertTidy();
  });

  it("takes an earlier copy, which holds no later archive, where one is asked for", async () => {
    const wrong = await machine.fromBucket("--copy-as-of", "2020-01-01", "--dry-run");
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /^no copy is as old as 2020-01-01T23:59:59Z: the oldest is of /m);
    const { code, stdout, stderr } = await machine.fromBucket("--copy-as-of", firstCopy, "--archive", archive);
    assert.equal(code, 2, stdout);
    assert.match(stderr, new RegExp(`there is no archive ${archive}; `));
    await assertTidy();
  });

  it("brings back every file byte for byte, starts the CHT, and leaves neither repository nor secrets behind", async () => {
    const { code, stdout, stderr } = await machine.fromBucket("--start");
    assert.equal(code, 0, stdout + stderr);
    const right = [...stdout.matchAll(/^right: (\w+)/gm)].map(([, what]) => what);
    assert.deepEqual(right, ["files", "checksums", "headers", "counts", "TLS", "login", "CouchDB", "TLS"]);
    assert.match(stdout, new RegExp(`${archive} is restored to ${cht} and right`));
    assert.match(stdout, new RegExp(`^removed: ${fetched}, the repository that was fetched$`, "m"));
    assert.deepEqual(await documentCounts(), was.counts);
    assert.deepEqual(await tree("cht"), was.tree);
    await assertTidy();
    const search =
      "umask 077; cat > /tmp/words; grep -rlFf /tmp/words /var/lib/cht-restore /var/log /root || true; rm /tmp/words";
    const found = await exec("cht", search, { stdin: `${passphrase}\n${bucketSecrets().reader}\n` });
    assert.equal(found.stdout, "");
  });

  describe("a new server after that", () => {
    let fresh: string;

    it("begins with a new repository, and the copies beside the earlier ones say so once", async () => {
      await destroyed?.tellStack();
      assert.match(await up(), /is another repository than before .*copies in a bucket \(docs\/restore\.md, 8\)/);
      await assertNoDrift();
      await chtAnswers();
      await output("cht", `systemctl stop ${timer}`);
      await settle();
      await copiesEnded();
      fresh = assertComplete(await backUp()).archive as string;
      assert.equal((await copyNow()).ok, true);
      const words = await output("server", `journalctl --sync; journalctl --output=cat -u ${copyService}`);
      assert.equal(words.match(/copies in the bucket are of another repository .* nothing lengthens/g)?.length, 1);
      const alarm = /Copy of the backups to the bucket .*are of another repository/;
      const raised = async () =>
        alarm.test(await output("server", `journalctl --output=cat -u ${bucketFailedService}`));
      assert.ok(await waitFor(raised, 120_000), "no alarm was raised");
      assert.ok(((await lastCopy())?.copy?.number ?? 0) > number);
      assert.deepEqual(
        (await listed()).map(({ name }) => name),
        [fresh],
      );
    });

    it("doesn't harm the earlier copies: they hold what they held", async () => {
      const found = await listed("--copy-as-of", lastOfAll, "--last", "0");
      assert.deepEqual(found.map(({ name }) => name).sort(), [...was.archives].sort());
      assert.deepEqual(found[0]?.documents, was.counts);
    });

    it("gets the earlier repository by the documented commands, and goes on with it", async () => {
      const fetch = runbook(8, "--repository-only");
      const early = await run("sh", ["-ec", `${fetch} --copy-as-of ${lastOfAll}`], { cwd: project });
      assert.equal(early.code, 0, early.stdout + early.stderr);
      assert.match(early.stdout, /^the repository is in \/srv\/cht-backup\/lab\/fetched$/m);
      const put = await exec("server", runbook(8, "mv fetched repository"));
      assert.equal(put.code, 0, put.stdout + put.stderr);
      await up();
      await assertNoDrift();
      assert.deepEqual(await archives(passphrase), was.archives);
      const next = assertComplete(await backUp()).archive as string;
      assert.deepEqual(await archives(passphrase), [...was.archives, next]);
      await maintain(
        "an earlier repository was put in its place, and checked",
        `cd /; runuser -u ${user} -- env BORG_BASE_DIR=/tmp/check borg --lock-wait 60 check --repository-only ${repository}`,
      );
      await copyNow();
      const again = await copyNow();
      assert.deepEqual([again.ok, again.outcome], [true, "unchanged"], JSON.stringify(again));
      assert.deepEqual(
        (await listed("--last", "2")).map(({ name }) => name),
        [next, archive],
      );
      await output("server", `rm -rf ${home}/repository-* /tmp/check`);
      await output("cht", `rm -r ${fetched}*; systemctl start ${timer}`);
      destroyed = undefined;
    });
  });
});

describe("a restore from a bucket that can't begin", function () {
  this.timeout(60_000);

  it("says why in one line, and its exit code is 2", async () => {
    for (const [args, reason] of [
      [["--from", "tape"], /--from tape: it must be `server`, the offsite server, or `bucket`/],
      [["--from", "server", "--copy-as-of", "2026-11-21"], /--copy-as-of goes with --from bucket only/],
    ] as const) {
      const words = ["run", "-s", "restore", "--", "--stack", "lab", "--to", "root@nowhere.invalid", ...args];
      const { code, stderr } = await run("npm", words, { cwd: project });
      assert.equal(code, 2, stderr);
      assert.match(stderr, reason);
      assert.doesNotMatch(stderr, /\n\s+at /);
    }
  });
});
