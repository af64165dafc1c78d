import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  copiesTable,
  copyPolicy,
  deleterSource,
  doneInWords,
  type PlannedCopy,
  seenAfter,
} from "../../operations/bucket-retention";
import { readSeen, readSeenCopies, writeSeen, writeSeenCopies } from "../../operations/ledger";

const at = Date.UTC(2026, 10, 28, 2, 10) / 1000;
const copy = (days: number, why: string[], more: Partial<PlannedCopy> = {}): PlannedCopy => ({
  key: `index/of-${days}.json.gz`,
  version: `v${days}`,
  at: at - days * 86400,
  deployment: "prod",
  repository: "ab".repeat(32),
  number: 1000 - days,
  size: 1e9,
  why,
  problem: null,
  lacks: 0,
  ...more,
});
const there = { versions: 5000, bytes: 9e9 };

describe("npm run retention in the bucket", () => {
  it("shows young copies in a line, older ones with their reasons, and what goes", () => {
    const copies = [
      copy(0, ["last 30 days", "day 2026-11-28"]),
      copy(29, ["last 30 days"]),
      copy(40, ["week 2026-W42"]),
      copy(50, ["newest"], { lacks: 3 }),
      copy(60, []),
      copy(61, [], { problem: "it is cut off\u001b[2J" }),
    ];
    assert.deepEqual(copiesTable({ copies, going: { copies: 2, versions: 1200, bytes: 2.5e9 }, there }), [
      "  2026-11-28 02:10  2 copies, back to 2026-10-30 02:10: last 30 days",
      "  2026-10-19 02:10  index/of-40.json.gz: week 2026-W42",
      "  2026-10-09 02:10  index/of-50.json.gz: newest; lacks 3 files",
      "  2026-09-29 02:10  2 copies, back to 2026-09-28 02:10: GO",
      "2 of 6 copies go, and 1200 of 5000 versions of files, 2500.0 MB of 9000.0 MB; but for those whose locks haven't ended yet.",
    ]);
    const none = { copies: 0, versions: 0, bytes: 0 };
    assert.equal(
      copiesTable({ copies: copies.slice(0, 1), going: none, there }).at(-1),
      "Everything stays (1 copies, 5000 versions of files).",
    );
    assert.deepEqual(copiesTable({ copies: [], going: none, there: { versions: 0, bytes: 0 } }), [
      "Everything stays (0 copies, 0 versions of files).",
    ]);
  });

  it("says what was removed, and until when locks keep the rest", () => {
    const locked = { copies: 0, versions: 3, bytes: 4e6, until: at };
    const done = { copies: 2, versions: 7, bytes: 5e6, locked, readBack: 1e6, problems: [] };
    assert.deepEqual(doneInWords(done), [
      "2 copies and 7 versions of files removed, 5.0 MB freed in the bucket.",
      "kept, as their locks haven't ended: 0 copies, 3 versions of files, 4.0 MB; the last of them ends 2026-11-28 02:10 (UTC)",
      "The copies that stay are complete; 1.0 MB of the newest were read back.",
    ]);
    assert.equal(doneInWords({ ...done, locked: { ...locked, versions: 0 } }).length, 2);
  });

  it("keeps no copies for months and years: each holds the archives of these", () => {
    const policy = { keepWithin: 7, daily: 14, weekly: 6, monthly: 4, yearly: 2 };
    assert.deepEqual(copyPolicy(policy), { within: 7, daily: 14, weekly: 6, monthly: 0, yearly: 0 });
  });

  it("takes the key that may delete from the environment, else from the operator's own account or from him", () => {
    const id = { CHT_BACKUP_DELETER_ACCESS_KEY_ID: "ID" };
    const secret = { CHT_BACKUP_DELETER_SECRET_ACCESS_KEY: "SECRET" };
    const key = { accessKeyId: "ID", secretAccessKey: "SECRET" };
    const [made, elsewhere] = [{ aws: {} as never }, {}];
    assert.deepEqual(deleterSource(elsewhere, { ...id, ...secret }, true), key);
    assert.deepEqual(deleterSource(made, { ...id, ...secret }, true), key);
    assert.equal(deleterSource(made, {}, false), "own account");
    assert.equal(deleterSource(elsewhere, {}, true), "asked for");
    assert.equal(deleterSource(elsewhere, {}, false), undefined);
    assert.throws(() => deleterSource(elsewhere, id, true), /SECRET_ACCESS_KEY is missing/);
    assert.throws(() => deleterSource(elsewhere, secret, true), /KEY_ID is missing/);
  });

  it("remembers copies that are there, and misses one that has vanished until somebody says that all is well", () => {
    const [one, two] = [copy(1, []), copy(2, [])];
    const vanished = { vanished: "1 copies are gone" };
    assert.deepEqual(seenAfter([one, two], [one], {}, []), [one]);
    assert.deepEqual(seenAfter([one, two], [one], vanished, []), [one, two]);
    assert.deepEqual(seenAfter([one, two], [one], vanished, ["vanished"]), [one]);
  });

  describe("on this computer", () => {
    let folder: string;
    const before = process.env.XDG_STATE_HOME;
    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), "cht-backup-seen-"));
      process.env.XDG_STATE_HOME = folder;
    });
    afterEach(() => {
      if (before === undefined) delete process.env.XDG_STATE_HOME;
      else process.env.XDG_STATE_HOME = before;
      rmSync(folder, { recursive: true });
    });

    it("notes a bucket's copies apart from the archives, and takes another bucket's for none", () => {
      assert.deepEqual(readSeenCopies("prod", "AWS/one/prod/"), []);
      writeSeen("prod", { repository: "r", archives: { a: "one" } });
      writeSeenCopies("prod", { place: "AWS/one/prod/", copies: [copy(1, [])] });
      assert.deepEqual(readSeenCopies("prod", "AWS/one/prod/"), [copy(1, [])]);
      assert.deepEqual(readSeenCopies("prod", "AWS/other/prod/"), []);
      assert.deepEqual(readSeen("prod"), { repository: "r", archives: { a: "one" } });
      assert.equal(statSync(join(folder, "cht-backup", "copies-prod.json")).mode & 0o777, 0o600);
    });
  });
});
