import assert from "node:assert/strict";
import { output } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertComplete, backUp, data, home } from "./backup";
import { type Damage, damages, putDamaged, rot, viewAhead } from "./damage";
import { type FreshMachine, freshMachine, tree } from "./fresh-machine";
import { healthyLab } from "./hooks";
import { assertNoDrift } from "./stack";

const { shardRemoved, shardCut, shardUnreadable, shardOfLater, stranger, environment, certificate } = damages;
/** On different files, so that one archive can have them all. */
const together = [stranger, shardUnreadable, environment, certificate];
const wrong: [Damage, Damage[]][] = [
  ...[shardRemoved, shardCut, shardOfLater].map((damage): [Damage, Damage[]] => [damage, [damage]]),
  [
    {
      what: together.map(({ what }) => what).join(", and that "),
      make: together.map(({ make }) => make).join("\n"),
      named: /./,
    },
    together,
  ],
];

describe("a restore of what isn't what was backed up", function () {
  this.timeout(120_000);

  let machine: FreshMachine | undefined;
  let remove: (() => Promise<void>) | undefined;
  /** Names of the damaged archives. */
  const archives = new Map<Damage, string>();
  let keys: string;
  const keysNow = () => output("server", `cat ${home}/.ssh/authorized_keys`);

  before(async () => {
    await healthyLab();
    keys = await keysNow();
    const making = freshMachine("restore");
    const wanted = [...wrong.map(([damage]) => damage), viewAhead];
    const damaged = await putDamaged(...wanted);
    remove = damaged.remove;
    for (const [index, damage] of wanted.entries()) {
      archives.set(damage, damaged.archives[index] as string);
    }
    machine = await making;
  });

  after(async () => {
    await remove?.();
    await machine?.remove();
  });

  function restore(damage: Damage | undefined, ...options: string[]): Promise<Result> {
    assert.ok(machine);
    return machine.restore(...(damage ? ["--archive", archives.get(damage) as string] : []), ...options);
  }

  /** Nothing that could be taken for a CHT, and no way into the repository. */
  async function assertNothingInPlace(): Promise<void> {
    assert.equal(await output("restore", "ls -d /home/ubuntu/cht 2>/dev/null || true; docker volume ls -q"), "");
    assert.equal(await keysNow(), keys);
  }

  for (const [damage, expected] of wrong) {
    it(`says that ${damage.what}, and puts nothing in place`, async () => {
      const { code, stdout, stderr } = await restore(damage);
      assert.equal(code, 1, stdout + stderr);
      const lines = stderr.split("\n").filter((line) => line.startsWith("WRONG: "));
      for (const { named } of expected) assert.equal(lines.filter((line) => named.test(line)).length, 1, stderr);
      assert.doesNotMatch(stderr, /Traceback/);
      assert.match(stdout, /NOT put in place: \d of the checks failed/);
      await assertNothingInPlace();
    });
  }

  for (const where of ["content", "description"] as const) {
    it(`says that the newest archive's ${where} has rotted on the server's disk, and puts nothing in place`, async () => {
      const { archive, mend } = await rot(where);
      const damaged = new RegExp(`a part of the archive ${archive} can't be read .*checksum mismatch.*another archive`);
      try {
        const { code, stdout, stderr } = await restore(undefined);
        assert.equal(code, 2, stdout + stderr);
        assert.match(stderr, damaged);
        assert.doesNotMatch(stderr, /Traceback/);
        await assertNothingInPlace();
        if (where === "description") {
          const list = await run("npm", ["run", "-s", "archives", "--", "--stack", "lab", "--last", "2", "--json"], {
            cwd: project,
          });
          const [first, second] = JSON.parse(list.stdout).archives;
          assert.match(first.damaged, damaged);
          assert.equal(second.finished, true);
        }
      } finally {
        await mend();
      }
    });
  }

  it("leaves out what CouchDB builds anew: a view ahead of its shard", async () => {
    const { code, stdout, stderr } = await restore(viewAhead);
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, viewAhead.named);
    const [source, copy] = await Promise.all([tree("cht"), tree("restore")]);
    const views = Object.keys(source).filter((path) => !(path in copy));
    assert.equal(views.length, 1);
    assert.match(stdout, new RegExp(`${views[0]} was ahead`));
  });

  it("puts it in place where that is wanted, for want of a better one, and still says by its exit code that it's wrong", async () => {
    const { code, stdout, stderr } = await restore(shardRemoved, "--despite-problems", "--replace");
    assert.equal(code, 1, stdout + stderr);
    assert.match(stderr, shardRemoved.named);
    assert.match(stdout, /is in place, but \d checks failed/);
    assert.equal(await output("restore", `find ${data}/shards -name 'medic.*' | wc -l`), "11");
  });

  it("is over when the damage is: the next backup works, and nothing has drifted", async () => {
    await remove?.();
    assertComplete(await backUp());
    await assertNoDrift();
  });
});
