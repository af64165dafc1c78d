import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { json, overview } from "../../operations/status";
import type { Answers } from "../../operations/status/ask";
import { conditionsOf, verdictOf, verdicts } from "../../operations/status/overview";
import { type Report, readReport } from "../../operations/status/report";
import { fitting, lines } from "../../operations/status/text";
import { age, clock, size } from "../../operations/words";
import { project } from "../../toolchain/paths";
import { plain } from "../../toolchain/plain";
import { troubledReports, wellReports } from "../status-reports";

const NOW = Date.UTC(2026, 10, 28, 12, 10) / 1000;
const EVIL = "\u001b]0;all is well\u0007\u001b[2J\nwell\u202e";

interface State {
  name: string;
  reports: object[];
  unreached: Answers["unreached"];
  verdict: keyof typeof verdicts;
  exitCode: number;
  /** Id, who tells of it, and what follows from it. */
  told: [string, string[], string[]][];
}
const states: State[] = JSON.parse(readFileSync(join(project, "test/fixtures/status-states.json"), "utf8"));

/** Reports as they are read from what machines print. */
function read(reports: object[], deployment = "moh"): Report[] {
  return reports.map((report) => {
    const found = readReport(JSON.stringify(report), deployment);
    assert.ok(typeof found !== "string", String(found));
    return found.report;
  });
}

const shown = (reports: object[], unreached: Answers["unreached"] = []) =>
  lines(overview("moh", { reports: read(reports), unreached }, NOW));

describe("npm run status", () => {
  for (const { name, reports, unreached, verdict, exitCode, told } of states) {
    it(`judges as the page does: ${name}`, () => {
      const conditions = conditionsOf(read(reports));
      assert.deepEqual(
        conditions.map(({ id, toldBy, explains }) => [id, toldBy, explains]),
        told,
      );
      const complete = reports.length > 0 && unreached.length === 0;
      assert.equal(verdictOf(conditions, complete), verdict);
      assert.equal(verdicts[verdict], exitCode);
      // The same order for people, with whom couldn't be asked behind what needs somebody.
      const text = shown(reports, unreached);
      const heads = text.filter((line) => /^(CRITICAL|UNKNOWN|warning) /.test(line));
      const expected = [
        ...conditions.filter(({ severity }) => severity === "critical").map(({ title }) => `CRITICAL  ${title} (`),
        ...unreached.map(({ why }) => `UNKNOWN   ${why}`),
        ...conditions.filter(({ severity }) => severity === "warning").map(({ title }) => `warning   ${title} (`),
      ];
      assert.equal(heads.length, expected.length);
      for (const [index, head] of expected.entries()) assert.ok(heads[index]?.startsWith(head), heads[index]);
    });
  }

  it("says what is wrong since when, what to do, and what follows from it", () => {
    const text = shown(troubledReports(NOW));
    assert.deepEqual(text.slice(0, 7), [
      "moh: SOMEBODY HAS TO LOOK (2026-11-28 12:10 UTC)",
      "",
      "CRITICAL  The backup server doesn't answer (cht, since 2026-11-25 12:10 UTC (3 days ago))",
      "          backup.example.org doesn't answer: no answer at port 22.",
      "          What to do: See whether the server is on and its network works. Until it answers no backup can be made.",
      "          More: docs/runbook.md#server-unreachable",
      "          From it follows: There is no new backup; The last backup failed",
    ]);
    assert.ok(text.includes("copy       2 days ago   FAILED 2 h ago  server   2 problems"), text.join("\n"));
    const next = text.indexOf(text.find((line) => line.startsWith("next")) ?? "");
    assert.match(text[next + 1] ?? "", /^never: MASKED +server +cht-bucket-copy-moh\.timer$/);
  });

  it("says the last of each from each machine, space, and what runs next", () => {
    const text = shown(wellReports(NOW));
    assert.equal(text[0], "moh: all is well (2026-11-28 12:10 UTC)");
    assert.deepEqual(text.slice(1), [
      "",
      "last       success        machine  came to",
      "backup     9 h ago        cht      1,204 files, 12.3 GB, 34.0 MB new",
      "copy       8 h ago        server   35.0 MB uploaded",
      "check      2 days ago     server",
      "drill      3 days ago     drill    896,063 documents, from the bucket, took 12 min",
      "retention  12 days ago    server   3 archives removed, 1.2 GB freed",
      "audit      9 h ago        server   41 archives",
      "",
      "space   free              growth a week  full on                    held",
      "cht     380 GB of 500 GB  200 MB         not in sight               data 12.3 GB",
      "server  380 GB of 500 GB  2.0 GB         2030-06-20 (in 1300 days)  repository 80.0 GB, bucket 82.0 GB",
      "",
      "next       machine  unit",
      "in 2 h     server   cht-bucket-copy-moh.timer",
      "in 15 h    cht      cht-backup-moh.timer",
      "in 4 days  drill    cht-drill-moh.timer",
      "in 5 days  server   cht-bucket-check-moh.timer",
    ]);
  });

  it("shows the words of a hostile machine without doing what they say", () => {
    const hostile = troubledReports(NOW).map((report) =>
      JSON.parse(JSON.stringify(report).replaceAll(/cht-|The |docs/g, JSON.stringify(EVIL).slice(1, -1))),
    );
    const text = shown(hostile, [{ name: "x", why: EVIL }]);
    for (const line of text) assert.equal(line, plain(line));
    assert.ok(text.join("").includes("\\x1b]0;all is well"));
  });

  it("never scrolls the worst away on a screen that is too small", () => {
    const long = ["worst", "x".repeat(25), "y", "z"];
    assert.deepEqual(fitting(long, { rows: 4, columns: 10 }), ["worst", "x".repeat(25)]);
    assert.deepEqual(fitting(long, { rows: 3, columns: 10 }), ["worst"]);
    assert.deepEqual(fitting(long, { rows: 40, columns: 10 }), long);
  });

  it("gives programs the verdict, its exit code, and all that the machines reported", () => {
    const raw = [{ ...wellReports(NOW)[0], more: 5 }];
    const found = overview("moh", { reports: read(raw), unreached: [{ name: "server", why: "down" }] }, NOW);
    assert.deepEqual(json(found, raw), {
      deployment: "moh",
      at: NOW,
      verdict: "unknown",
      exitCode: 3,
      conditions: [],
      unreached: [{ name: "server", why: "down" }],
      reports: raw,
    });
  });

  it("speaks of times and sizes as the page does", () => {
    assert.deepEqual([-5, 89, 90, 5400, 47 * 3600, 9 * 86_400].map(age), [
      "0 s",
      "89 s",
      "2 min",
      "2 h",
      "47 h",
      "9 days",
    ]);
    const sizes = [0, 999, 999.6, 12_340_000, 99_960_000, 999_600_000, 5e15, -12e6, null].map(size);
    const expected = [
      "0 bytes",
      "999 bytes",
      "1.0 kB",
      "12.3 MB",
      "100 MB",
      "1.0 GB",
      "5,000.0 TB",
      "-12.0 MB",
      "unknown",
    ];
    assert.deepEqual(sizes, expected);
    assert.deepEqual([NOW, null, -1, 1e12].map(clock), ["2026-11-28 12:10", "unknown", "unknown", "unknown"]);
  });
});

describe("a machine's report", () => {
  const report = wellReports(NOW)[1] as object & { facts: object };
  const reason = (printed: string) => {
    const found = readReport(printed, "moh");
    return typeof found === "string" ? found : "";
  };

  it("is none where it isn't JSON, isn't in order, or is of another deployment", () => {
    assert.match(reason("Traceback"), /not with a report$/);
    for (const other of [null, 5, [], {}, { ...report, conditions: "none" }, { ...report, conditions: [5] }]) {
      assert.match(reason(JSON.stringify(other)), /isn't in order/);
    }
    const other = JSON.stringify({ ...report, deployment: `x${EVIL}` });
    assert.match(reason(other), /^it reports of the deployment x\\x1b.*, not of moh$/);
  });

  it("is read for what is of the right kind in it, and shown, whatever the rest is", () => {
    const kinds = [null, true, -1, 1e300, "", EVIL, [], [[]], {}, { "": {} }];
    for (const value of kinds) {
      for (const name of ["role", "host", "at", "facts"]) shown([{ ...report, [name]: value }]);
      for (const name of Object.keys(report.facts)) shown([{ ...report, facts: { ...report.facts, [name]: value } }]);
      for (const name of ["ok", "finishedAt", "lastSuccessAt", "problems", "counts", "removed", "freed", "archives"]) {
        const facts = Object.fromEntries(
          ["copy", "drill", "retention", "audit"].map((duty) => [duty, { [name]: value }]),
        );
        shown([{ ...report, facts }]);
      }
      for (const name of ["total", "free", "fullAt", "reserve"]) {
        shown([{ ...report, facts: { disk: { [name]: value }, units: [{ unit: value, next: value }, value] } }]);
      }
      for (const name of ["severity", "title", "since", "hiddenBy"]) {
        assert.ok(shown([{ ...report, conditions: [{ id: "a", [name]: value }] }]).length > 1);
      }
    }
  });
});
