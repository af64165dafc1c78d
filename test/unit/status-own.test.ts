import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { overview } from "../../operations/status";
import { DRIFT_DAYS, found, reported } from "../../operations/status/own";
import { readReport } from "../../operations/status/report";
import { conditions } from "../../toolchain/conditions";
import { compares } from "../../toolchain/pulumi";
import { readLooked, writeLooked } from "../../toolchain/state-files";
import { wellReports } from "../status-reports";

const NOW = 1_800_000_000;
const DIGEST = "a".repeat(64);

describe("what status adds to what the machines report", () => {
  const ids = (known: Partial<Parameters<typeof found>[0]>) =>
    found({ kit: `2026-11-30 ${DIGEST}`, digest: DIGEST, lookedAt: NOW - 3600, now: NOW, ...known }).map(
      ({ id }) => id,
    );

  it("is nothing while the kit fits and somebody has looked for drift", () => assert.deepEqual(ids({}), []));

  it("is that a kit must be made, or made anew", () => {
    assert.deepEqual(ids({ kit: undefined }), ["kit-outdated"]);
    assert.deepEqual(ids({ kit: `2026-11-30 ${"b".repeat(64)}` }), ["kit-outdated"]);
  });

  it("is nothing of the kit where it can't be read what it must fit", () => {
    assert.deepEqual(ids({ kit: undefined, digest: undefined }), []);
  });

  it("is that nobody has looked for drift for long, where this computer once did", () => {
    assert.deepEqual(ids({ lookedAt: NOW - DRIFT_DAYS * 86_400 }), []);
    assert.deepEqual(ids({ lookedAt: NOW - (DRIFT_DAYS + 1) * 86_400 }), ["drift-unseen"]);
    assert.deepEqual(ids({ lookedAt: undefined }), []);
  });

  it("is told as the runbook has it, with its figures, as warnings", () => {
    const all = found({ kit: undefined, digest: DIGEST, lookedAt: NOW - 40 * 86_400, now: NOW });
    const own = reported(all, conditions());
    assert.deepEqual(
      own.map(({ text, link }) => [text, link]),
      [
        [
          "No recovery kit has been made: when this stack is lost, no archive can be read.",
          "docs/runbook.md#kit-outdated",
        ],
        [
          "The last preview or `up` from this computer was 40 days ago; 30 are allowed.",
          "docs/runbook.md#drift-unseen",
        ],
      ],
    );
    const machines = wellReports(NOW).map((raw) => {
      const read = readReport(JSON.stringify(raw), "moh");
      assert.ok(typeof read !== "string", `${read}`);
      return read.report;
    });
    const put = overview("moh", { reports: machines, unreached: [] }, NOW, own);
    assert.equal(put.verdict, "warnings");
    assert.deepEqual(put.conditions.map(({ id, toldBy }) => [id, ...toldBy]).sort(), [
      ["drift-unseen", "operator"],
      ["kit-outdated", "operator"],
    ]);
  });
});

describe("what this computer remembers", () => {
  const before = process.env.XDG_STATE_HOME;
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-state-"));
    process.env.XDG_STATE_HOME = folder;
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
    if (before === undefined) delete process.env.XDG_STATE_HOME;
    else process.env.XDG_STATE_HOME = before;
  });

  it("is when it compared machines and stack, by stack", () => {
    assert.equal(readLooked("moh"), undefined);
    writeLooked("moh", { at: NOW });
    writeLooked("org/project/moh", { at: NOW + 1 });
    assert.deepEqual([readLooked("moh"), readLooked("org/project/moh")], [{ at: NOW }, { at: NOW + 1 }]);
  });

  it("is nothing, and no error, where nothing can be written", () => {
    process.env.XDG_STATE_HOME = "/dev/null";
    writeLooked("moh", { at: NOW });
    assert.equal(readLooked("moh"), undefined);
  });

  it("is set by a preview, an up and a refresh, by nothing else", () => {
    for (const args of [["preview", "--stack", "moh"], ["--color", "up"], ["refresh"]]) {
      assert.equal(compares(args), args[0] !== "--color" || args[1] === "up");
    }
    for (const args of [["destroy"], ["config", "set", "up"], ["stack", "output"], ["preview", "--help"], []]) {
      assert.equal(compares(args), false);
    }
  });
});
