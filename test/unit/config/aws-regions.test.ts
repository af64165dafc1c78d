import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { awsRegions, regionMistake } from "../../../config/aws-regions";

describe("AWS' regions", () => {
  it("are those that the plugin knows", () => {
    // Read and not loaded: another test looks at what the program alone has loaded.
    const [, text = ""] =
      /exports\.Region = \{(.*?)\}/s.exec(readFileSync(require.resolve("@pulumi/aws/types/enums"), "utf8")) ?? [];
    const known = [...text.matchAll(/: "(.*?)"/g)].map(([, region = ""]) => region);
    assert.deepEqual([...awsRegions].sort(), known.sort());
  });

  it("that don't exist are refused with the nearest that do", () => {
    assert.equal(regionMistake("eu-west-1"), undefined);
    for (const [name, words] of [
      ["eu-wset-1", "is no region of AWS; the nearest: eu-west-1"],
      ["eu-west-9", "is no region of AWS; the nearest: eu-west-1, eu-west-2, eu-west-3"],
      ["af-south1", "is no region of AWS; the nearest: af-south-1"],
      ["EU-WEST-1", "is no region of AWS; the nearest: eu-west-1"],
      ["eu-west-1a", "is an availability zone; its region is eu-west-1"],
      ["Ireland", "is no region of AWS; for instance eu-west-1 or af-south-1"],
      ["", "is no region of AWS; for instance eu-west-1 or af-south-1"],
    ] as const) {
      assert.equal(regionMistake(name), words, name);
    }
  });
});
