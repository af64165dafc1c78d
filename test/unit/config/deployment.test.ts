import assert from "node:assert/strict";
import { mistakes, read, wrongSettings } from "./settings";

wrongSettings([
  [
    "a deployment with a capital",
    { "cht-backup:deployment": "MoH" },
    /^cht-backup:deployment: found "MoH"; must be lower/,
  ],
  [
    "a deployment too long for a user's name",
    { "cht-backup:deployment": "m".repeat(22) },
    /^cht-backup:deployment: found/,
  ],
  [
    "a deployment whose units would be another one's",
    { "cht-backup:deployment": "moh-failed" },
    /^cht-backup:deployment: found "moh-failed"; must be .* not ending in `-failed`/,
  ],
  [
    "a deployment whose units would be another one's drill",
    { "cht-backup:deployment": "moh-overdue" },
    /^cht-backup:deployment: found "moh-overdue"; must be .* `-overdue` or `-cleanup`/,
  ],
]);

describe("wrong settings", () => {
  it("include a stack whose name can't be the deployment's", () => {
    const lines = mistakes({}, [], "Prod_2");
    assert.match(
      lines.join(),
      /^cht-backup:deployment: missing, and the stack's name "Prod_2" can't stand in; must be /,
    );
    assert.equal(read({ "cht-backup:deployment": "prod" }, [], "Prod_2").deployment, "prod");
  });
});
