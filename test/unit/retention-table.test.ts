import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { policyOf, retentionSchema } from "../../config/retention";
import { project } from "../../toolchain/paths";

describe("What docs/retention.md says of attacks", () => {
  const folder = join(project, "test", "guard");
  const tests = readdirSync(folder)
    .filter((name) => /^test_retention.*\.py$/.test(name))
    .map((name) => readFileSync(join(folder, name), "utf8"))
    .join("\n");
  const page = readFileSync(join(project, "docs", "retention.md"), "utf8");

  it("names a test that there is, for each", () => {
    const named = [...page.matchAll(/^\|.*\| `(test_\w+)` \|$/gm)].map(([, name = ""]) => name);
    assert.ok(named.length >= 15, `${named.length}`);
    assert.deepEqual(
      named.filter((name) => !tests.includes(`def ${name}(self)`)),
      [],
    );
  });

  it("is tried with a year of the default policy", () => {
    const text = readFileSync(join(folder, "simulated.py"), "utf8");
    const found = /^DEFAULT = (\{.*\})$/m.exec(text)?.[1] ?? "";
    assert.deepEqual(JSON.parse(found), policyOf(retentionSchema.parse(undefined)));
  });
});
