import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostFile } from "../../components/host-files";
import { forgotten } from "../../operations/ledger";
import { drillFacts, policyInWords, table } from "../../operations/retention";

describe("npm run retention", () => {
  it("says which archives go, and why the others stay", () => {
    const at = Date.UTC(2026, 10, 28, 2, 10) / 1000;
    const archives = [
      { name: "prod-2026-11-28T02:00:07Z", id: "a", at, why: ["last 7 days", "month 2026-11"] },
      { name: "prod-2026-10-02T02:00:07Z", id: "b", at: at - 57 * 86400, why: [] },
      { name: "cht-1", id: "c", at: null, why: ["made by hand"] },
    ];
    assert.deepEqual(table({ archives }), [
      "  2026-11-28 02:10  prod-2026-11-28T02:00:07Z  last 7 days, month 2026-11",
      "  2026-10-02 02:10  prod-2026-10-02T02:00:07Z  GOES",
      "                    cht-1                      made by hand",
      "1 of 3 archives go, 2 stay.",
    ]);
    assert.equal(table({ archives: archives.slice(0, 1) }).at(-1), "Every archive stays (1).");
  });

  it("shows names that a client chose without doing what they say", () => {
    const name = "prod\u001b[2J\nprod-2";
    const shown = table({ archives: [{ name, id: "a", at: 0, why: [] }] });
    assert.equal(shown.length, 2);
    assert.ok(!shown.join("").includes("\u001b") && !shown.join("").includes("\n"));
  });

  it("says the policy in words", () => {
    const policy = { within: 7, daily: 14, weekly: 6, monthly: 4, yearly: 1 };
    const words = "all archives of the last 7 days, and the last one of 14 days, 6 weeks, 4 months, 1 year";
    assert.equal(policyInWords(policy), words);
    const little = { within: 1, daily: 0, weekly: 0, monthly: 0, yearly: 0 };
    assert.equal(policyInWords(little), "all archives of the last day");
  });

  it("knows no drill where there are none, and none that succeeded where no report is", () => {
    assert.deepEqual(drillFacts(undefined, undefined), {});
    const drill = { overdueAfterDays: 9 } as Parameters<typeof drillFacts>[0];
    assert.deepEqual(drillFacts(drill, undefined), { succeeded: null, failed: false, overdueAfterDays: 9 });
    const report = { ok: false, lastSuccessAt: 5 };
    assert.deepEqual(drillFacts(drill, report), { succeeded: 5, failed: true, overdueAfterDays: 9 });
  });

  it("makes this computer forget what was removed on purpose, and nothing else", () => {
    const seen = { repository: "r", archives: { a: "one", b: "two" } };
    assert.deepEqual(forgotten(seen, ["a", "z"]), { repository: "r", archives: { b: "two" } });
  });

  it("makes the machine that drills forget it, too", () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-forget-"));
    const ledger = join(folder, "ledger.json");
    const forget = (ids: string[]) => {
      const words = [hostFile("chtbackup"), "forget", ledger];
      const done = spawnSync("python3", words, { input: JSON.stringify(ids), encoding: "utf8" });
      assert.equal(done.status, 0, done.stderr);
    };
    try {
      forget(["a"]);
      writeFileSync(ledger, JSON.stringify({ repository: "r", archives: { a: "one", b: "two" } }), { mode: 0o600 });
      const before = statSync(ledger).ino;
      forget(["z"]);
      assert.equal(statSync(ledger).ino, before, "it was written although there was nothing to forget");
      forget(["a", "z"]);
      assert.deepEqual(JSON.parse(readFileSync(ledger, "utf8")), { repository: "r", archives: { b: "two" } });
      assert.equal(statSync(ledger).mode & 0o777, 0o600);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
