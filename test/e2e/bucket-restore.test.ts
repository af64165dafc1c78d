import assert from "node:assert/strict";
import { bucketSecrets } from "../../lab/bucket";
import { documentCounts } from "../../lab/cht";
import { addressOf, exec, type Machine, output, start, stop } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertComplete, backUp, recovery, timer } from "./backup";
import { copyNow } from "./bucket";
import { type FreshMachine, freshMachine, tree } from "./fresh-machine";
import { chtAnswers, healthyLab } from "./hooks";

const cht = "/home/ubuntu/cht";
const fetched = "/var/lib/cht-restore/lab/repository";

describe("a restore from the bucket, with the CHT machine and the server gone", function () {
  this.timeout(180_000);

  let machine: FreshMachine;
  let archive: string;
  let older: string;
  let source: Awaited<ReturnType<typeof tree>>;
  let counts: Awaited<ReturnType<typeof documentCounts>>;
  let firstCopy: string;
  let stopped: Machine[];

  before(async () => {
    await healthyLab();
    await output("cht", `systemctl stop ${timer}`);
    older = assertComplete(await backUp()).archive as string;
    assert.equal((await copyNow()).ok, true);
    firstCopy = new Date().toISOString();
    archive = assertComplete(await backUp()).archive as string;
    assert.equal((await copyNow()).ok, true);
    [source, counts] = await Promise.all([tree("cht"), documentCounts()]);
    machine = await freshMachine("restore");
    // The engine gives out the lowest free address. Started in this order each machine gets its own again, which the
    // stack's settings name.
    const last = async (name: Machine) => Number((await addressOf(name)).split(".").at(-1));
    stopped = (await last("cht")) < (await last("server")) ? ["cht", "server"] : ["server", "cht"];
    await Promise.all(stopped.map(stop));
  });

  after(async () => {
    for (const name of stopped) await start(name);
    await machine.remove();
    await output("cht", `systemctl start ${timer}`);
    await chtAnswers();
  });

  /** What no restore may leave on the machine. */
  async function assertTidy(): Promise<void> {
    const left = "ls -A /var/lib/cht-restore/lab | grep run || true; pgrep -x borg || true";
    assert.equal(await output("restore", left), "");
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
    assert.equal(await output("restore", `ls -d ${fetched} 2>/dev/null || true`), "");
    await assertTidy();
  });

  it("lists the archives from there, with the counts of their documents", async () => {
    const words = ["--stack", "lab", "--from", "bucket", "--via", machine.destination, ...machine.login];
    const list = await run("npm", ["run", "-s", "archives", "--", ...words, "--last", "2", "--json"], { cwd: project });
    assert.equal(list.code, 0, list.stderr);
    const { archives } = JSON.parse(list.stdout);
    assert.deepEqual(
      archives.map(({ name }: { name: string }) => name),
      [archive, older],
    );
    assert.deepEqual(archives[0].documents, counts);
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
    assert.deepEqual(await documentCounts("restore"), counts);
    assert.deepEqual(await tree("restore"), source);
    await assertTidy();
    const { passphrase } = await recovery();
    const search =
      "umask 077; cat > /tmp/words; grep -rlFf /tmp/words /var/lib/cht-restore /var/log /root || true; rm /tmp/words";
    const found = await exec("restore", search, { stdin: `${passphrase}\n${bucketSecrets().reader}\n` });
    assert.equal(found.stdout, "");
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
