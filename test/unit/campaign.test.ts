import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { compare, readAnswers } from "../../campaign/answers";
import { type Drawable, dice, draw } from "../../campaign/draw";
import { elsewhere } from "../../campaign/elsewhere";
import { victimNames } from "../../campaign/fault";
import { faults } from "../../campaign/faults";
import type { Load } from "../../campaign/load";
import { page, pageFile, reliability } from "../../campaign/page";
import type { Round } from "../../campaign/round";
import { isWell, line, rows, table } from "../../campaign/summary";
import { project } from "../../toolchain/paths";

describe("the campaign's drawing", () => {
  const of: Drawable<string>[] = [
    ...Array.from({ length: 20 }, (_, index) => ({ kind: "many", name: `many ${index}`, victims: ["a", "b"] })),
    { kind: "one", name: "one", victims: ["c"] },
    { kind: "weighed", name: "seldom", victims: ["a"], weight: 0.1 },
    { kind: "weighed", name: "often", victims: ["a"], weight: 0.9 },
  ];
  const drawn = (seed: number, count: number) => Array.from({ length: count }, (_, round) => draw(of, seed, round));

  it("is the same for the same seed and round, whatever was drawn before", () => {
    assert.deepEqual(drawn(7, 50), drawn(7, 50));
    assert.deepEqual(draw(of, 7, 31), drawn(7, 50)[31]);
  });

  it("is another for another seed", () => assert.notDeepEqual(drawn(7, 50), drawn(8, 50)));

  it("takes each kind as often, however many faults it has, and each fault by its weight", () => {
    const all = drawn(1, 3000).map(({ fault }) => fault);
    for (const kind of ["many", "one", "weighed"]) {
      const count = all.filter((each) => each.kind === kind).length;
      assert.ok(count > 850 && count < 1150, `${kind}: ${count}`);
    }
    const seldom = all.filter(({ name }) => name === "seldom").length;
    assert.ok(seldom > 50 && seldom < 160, `${seldom}`);
  });

  it("comes to every victim, by its share, and to every moment", () => {
    const all = Array.from({ length: 2000 }, (_, round) => draw(of, 3, round, (victim) => (victim === "b" ? 3 : 1)));
    const count = (victim: string) => all.filter((each) => each.fault.kind === "many" && each.victim === victim).length;
    assert.ok(count("b") > 2 * count("a") && count("a") > 50, `${count("a")}, ${count("b")}`);
    const moments = all.map(({ moment }) => moment);
    assert.ok(Math.min(...moments) < 0.01 && Math.max(...moments) > 0.99 && Math.max(...moments) < 1);
  });

  it("refuses to draw from nothing", () => assert.throws(() => draw([], 1, 1), /no fault/));

  it("has dice that are evenly spread", () => {
    const { number, pick } = dice(42);
    const mean = Array.from({ length: 10_000 }, number).reduce((sum, each) => sum + each, 0) / 10_000;
    assert.ok(Math.abs(mean - 0.5) < 0.02, `${mean}`);
    assert.deepEqual([...new Set(Array.from({ length: 100 }, () => pick([1, 2, 3])))].sort(), [1, 2, 3]);
  });
});

describe("the campaign's faults", () => {
  it("have names of their own, and victims that there are", () => {
    const names = faults.map(({ kind, name }) => `${kind}: ${name}`);
    assert.equal(new Set(names).size, names.length);
    for (const { name, victims } of faults) {
      assert.ok(victims.length > 0 && victims.every((victim) => victimNames.includes(victim)), name);
    }
  });

  it("hit each program by several kinds", () => {
    for (const victim of victimNames) {
      const kinds = new Set(faults.filter(({ victims }) => victims.includes(victim)).map(({ kind }) => kind));
      assert.ok(kinds.size >= 3, `${victim}: ${[...kinds].join(", ")}`);
    }
  });

  it("take back what they did, where it would last", () => {
    for (const { name, lasts, undo, before, after } of faults) {
      if (lasts !== undefined) assert.ok(undo, name);
      if (before !== undefined) assert.ok(after, name);
    }
  });
});

describe("the campaign's table", () => {
  const round = (more: Partial<Round>): Round => ({
    ...{ seed: 1, round: 1, kind: "power cut", fault: "the server loses its power", victim: "backup", at: 1500 },
    ...{ hit: "right", words: "", healed: 0, problems: [] },
    ...more,
  });

  it("counts each kind, and doesn't count what hit nothing", () => {
    const all = [
      round({}),
      round({ hit: "told", healed: 10 }),
      round({ hit: "told", healed: 30 }),
      round({ hit: "untold", healed: 20 }),
      round({ hit: "missed" }),
      round({ kind: "network", hit: "told", healed: null, problems: ["LOST: the archive x", "NOT HEALED: y"] }),
    ];
    const [network, power, sum] = rows(all);
    assert.deepEqual(network, {
      ...{ kind: "network", tried: 1, lost: 1, right: 0, told: 1, untold: 0, healed: 0, median: null, failed: 1 },
    });
    assert.deepEqual(power, {
      ...{ kind: "power cut", tried: 4, lost: 0, right: 1, told: 2, untold: 1, healed: 3, median: 20, failed: 0 },
    });
    assert.deepEqual([sum?.kind, sum?.tried, sum?.lost], ["all", 5, 1]);
    assert.deepEqual(table(all).at(-1), ["all", "5", "1", "1", "3", "1", "3", "20", "1"]);
  });

  it("says of a round what hit what, when, and what came of it", () => {
    assert.equal(
      line(round({ hit: "told", healed: 12.3 })),
      "   1  the server loses its power: backup after 1.5 s: told, healed after 12 s",
    );
    const failed = round({ problems: ["LOST: the archive x"] });
    assert.match(line(failed), /: FAILED\n {6}LOST: the archive x$/);
    assert.deepEqual([isWell(round({})), isWell(failed)], [true, false]);
  });
});

describe("the CHT's answers under load", () => {
  const text = ["1.0 read 10", "2.0 read 30", "3.0 read 20", "11 read 40", "12 read failed", "13 read 44", "21 read 20"]
    .concat("30 read 9000")
    .join("\n");

  it("are compared by their medians, with those of before and after, and counted where none came", () => {
    const { read } = compare(
      readAnswers(text),
      [
        [0, 10],
        [20, 25],
      ],
      [[10, 20]],
    );
    assert.deepEqual(read, { quiet: 20, busy: 42, ratio: 2.1, slow: [30, 44], asked: 7, failed: 1 });
  });

  it("can't be compared where none came in one of the two", () =>
    assert.throws(() => compare(readAnswers(text), [[0, 10]], [[40, 50]]), /no numbers/));

  it("are in docs/reliability.md, with what the programs took, by the newest run", () => {
    const load: Load = {
      ...{ load: true, gigabytes: 10, minutes: 60, every: 5, quiet: 5, documents: 312_000, bytes: 10.2e9 },
      ...{ took: { backup: [60, 80, 70] }, ran: [], memory: { cht: { "borg create": 123_400_000 } }, problems: [] },
      answers: compare(
        readAnswers(text),
        [
          [0, 10],
          [20, 25],
        ],
        [[10, 20]],
      ),
    };
    const lines = [{ ...load, problems: ["backup: old"] }, load].map((each) =>
      JSON.stringify({ ...each, when: "2026-11-30T01:00:00Z" }),
    );
    const found = page(lines.join("\n"));
    assert.match(found, /a real CouchDB of 10 GB with 312,000 documents/);
    assert.match(found, /Every run came out right/);
    assert.match(found, /^\| read \| 20\.0 \| 42\.0 \| 2\.10 \|/m);
    assert.match(found, /^\| run \| backup \| 3 \| 70 \| 80 \|/m);
    assert.match(found, /^\| cht \| borg create \|.*\| 123 \|$/m);
    assert.doesNotMatch(found, /backup: old/);
  });
});

describe("docs/reliability.md", () => {
  it("is what the campaign's results make of it", () => {
    assert.equal(readFileSync(pageFile, "utf8"), reliability(), "stale: npm run campaign -- --write-docs");
  });

  it("names tests that there are", () => {
    assert.ok(elsewhere.length > 20);
    for (const { file, test } of elsewhere) {
      assert.match(
        readFileSync(join(project, file), "utf8"),
        new RegExp(`^    def ${test}\\(`, "m"),
        `${file}: ${test}`,
      );
    }
  });

  it("counts an act that was played twice once, by its newest answer, and says which was granted", () => {
    const act = {
      means: "the key",
      name: "delete all",
      answer: "refused",
      refused: true,
      when: "2026-11-30T01:00:00Z",
    };
    const round = {
      seed: 5,
      round: 3,
      kind: "k",
      fault: "f",
      victim: "up",
      at: 1,
      hit: "untold",
      words: "",
      healed: 4,
    };
    const lines = [{ ...act, refused: false }, act, { ...act, name: "other", refused: false }].map((each) =>
      JSON.stringify(each),
    );
    const failed = { ...round, problems: ["UNTOLD: nobody was told"], when: act.when };
    const text = page([...lines, JSON.stringify(failed)].join("\n"));
    assert.match(text, /^\| the key \| 2 \| 1 \|$/m);
    assert.match(text, /^- seed 5, round 3 \(f; up\): UNTOLD: nobody was told$/m);
    assert.match(text, /Nobody was told at once of: f \(up\)/);
  });
});
