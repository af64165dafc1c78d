import assert from "node:assert/strict";
import { output } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { approve, archives, assertComplete, backUp, recovery, repository, state } from "./backup";
import { copiesEnded, copyPath } from "./bucket";
import { assertNoDrift } from "./stack";

/** Makes archives older in the server's own ledger: all of them belong to one day, of which the last one stays. */
const age = (ids: string[]) =>
  output(
    "server",
    `python3 - ${ids.join(" ")} <<'END'
import sqlite3, sys, time
database = sqlite3.connect("/var/lib/cht-backup-server/lab/audit.sqlite", timeout=300)
day = int(time.time()) // 86400 * 86400 - 40 * 86400
# One that no earlier run in this lab has taken.
while database.execute("SELECT count(*) FROM archives WHERE at BETWEEN ? AND ?", (day, day + 86399)).fetchone()[0]:
    day -= 86400
times = [(day + 3600 * hour, bytes.fromhex(id)) for hour, id in enumerate(sys.argv[1:], 1)]
known = "SELECT count(*) FROM archives WHERE id = ?"
end = time.monotonic() + 300
while not all(database.execute(known, [id]).fetchone()[0] for _, id in times):
    assert time.monotonic() < end, "the audit doesn't know them"
    time.sleep(0.2)
with database:
    database.executemany("UPDATE archives SET at = ? WHERE id = ?", times)
END`,
  );

/** In a lab that many tests have used, times are set by hand, and there were more archives than a schedule makes. */
const known = ["clock", "flood", "drill"].flatMap((doubt) => ["--despite", doubt]);

/** On the server alone: the lab's bucket can't be reached from here, only from its machines (test/bucket has that part). */
function retention(...options: string[]): Promise<Result> {
  const words = ["run", "-s", "retention", "--", "--stack", "lab", "--only", "server", ...options];
  return run("npm", words, { cwd: project });
}

describe("npm run retention", function () {
  this.timeout(180_000);
  let passphrase: string;
  let archivesBefore: string[];
  const old: string[] = [];
  /** What goes: the first two of those, and what other tests have made as old. */
  let going: string[] = [];
  const listed = () => archives(passphrase);
  /** All that is in the repository, by name and content. */
  const stored = () =>
    output("server", `cd ${repository} && find . -path './lock*' -prune -o -type f -print | sort | xargs sha256sum`);

  before(async () => {
    passphrase = (await recovery()).passphrase;
    // A copy's `with-lock` is a transaction, too.
    await output("server", `systemctl stop ${copyPath}`);
    await copiesEnded();
    await approve("before retention");
    const ids: string[] = [];
    for (let count = 0; count < 3; count++) {
      const report = assertComplete(await backUp());
      old.push(report.archive ?? "");
      ids.push(report.archiveId ?? "");
    }
    // The newest must not be one of those that are old.
    assertComplete(await backUp());
    await age(ids);
    archivesBefore = await listed();
  });

  after(() => output("server", `systemctl start ${copyPath}`));

  it("shows what goes and changes nothing, with --dry-run", async () => {
    const was = await stored();
    const shown = await retention("--dry-run", ...known);
    assert.equal(shown.code, 0, shown.stderr);
    going = [...shown.stdout.matchAll(/(\S+) +GOES$/gm)].map(([, name = ""]) => name);
    for (const name of old.slice(0, 2)) assert.ok(going.includes(name), shown.stdout);
    assert.match(shown.stdout, new RegExp(`${old[2]} +day `));
    const [all, go] = [archivesBefore.length, going.length];
    assert.ok(shown.stdout.includes(`\n${go} of ${all} archives go, ${all - go} stay.\n`), shown.stdout);
    assert.equal(await stored(), was);
  });

  it("removes nothing where anything is odd, and says what", async () => {
    const refused = await retention("--yes");
    assert.equal(refused.code, 1, refused.stderr);
    assert.match(refused.stderr, /^DOUBT \(clock\): /m);
    assert.deepEqual(await listed(), archivesBefore);
  });

  it("removes nothing where nobody can be asked", async () => {
    const refused = await retention(...known);
    assert.equal(refused.code, 2, refused.stderr);
    assert.match(refused.stderr, /add --yes/);
    assert.deepEqual(await listed(), archivesBefore);
  });

  it("removes what the policy no longer keeps, and says how much room that made", async () => {
    const done = await retention("--yes", ...known);
    assert.equal(done.code, 0, done.stderr);
    assert.match(
      done.stdout,
      new RegExp(`^${going.length} archives removed, \\d+\\.\\d MB freed on the server\\.$`, "m"),
    );
    assert.deepEqual(
      await listed(),
      archivesBefore.filter((name) => !going.includes(name)),
    );
  });

  it("has nothing to do a second time", async () => {
    const was = await stored();
    const again = await retention("--yes", ...known);
    assert.equal(again.code, 0, again.stderr);
    assert.match(again.stdout, /^Every archive stays \(\d+\)\.$/m);
    assert.equal(await stored(), was);
  });

  it("leaves all that watches content: the audit, the list on this computer, the next backup, the stack", async () => {
    await output("server", `systemctl start ${copyPath}`);
    assertComplete(await backUp());
    await output("server", "systemctl start cht-repository-audit-lab.service");
    const list = await run("npm", ["run", "-s", "archives", "--", "--stack", "lab", "--last", "1"], { cwd: project });
    assert.equal(list.code, 0, list.stdout + list.stderr);
    await assertNoDrift();
  });

  it("isn't missed by the machine that drills", async () => {
    const ledger = await output("cht", `cat ${state}/drills/ledger.json 2>/dev/null || true`);
    for (const name of old.slice(0, 2)) assert.doesNotMatch(ledger, new RegExp(name));
  });
});
