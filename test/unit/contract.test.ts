import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { contracts, fileOf, schemaOf } from "../../contract";
import { contractFiles } from "../../toolchain/docs/write";

describe("a file that TypeScript writes and a program on a machine reads", () => {
  it("is checked there by the schema of its declaration", () => {
    assert.equal(contractFiles().length, Object.keys(contracts).length);
    for (const [file, schema] of contractFiles())
      assert.equal(readFileSync(file, "utf8"), schema, "stale: npm run docs");
  });

  it("is refused before it is written where it isn't as declared", () => {
    const drill = {
      deployment: "moh",
      repository: "ssh://offsite/srv/cht-backup/moh/repository",
      scratch: "/var/lib/cht-backup/moh/drill",
      scratchGibibytes: 0,
      keep: 10,
      overdueAfterDays: 8,
      network: "cht-drill-moh",
      image: null,
      pull: true,
      memoryMebibytes: 1024,
      cpus: 1,
    };
    assert.equal(JSON.parse(fileOf("drill", drill)).from, "server");
    assert.throws(() => fileOf("drill", { ...drill, keep: 0 }));
    assert.throws(() => fileOf("drill", { ...drill, more: 1 } as never));
  });

  it("says of each setting what it must be, for whoever has changed it by hand", () => {
    for (const name of Object.keys(contracts) as (keyof typeof contracts)[]) {
      const { properties } = JSON.parse(schemaOf(name)) as { properties: Record<string, { description?: string }> };
      for (const [setting, { description }] of Object.entries(properties))
        assert.ok(description, `${name}: ${setting}`);
    }
  });
});
