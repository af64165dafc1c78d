import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { plain, plainJson, plainLines, withoutColours } from "../../toolchain/plain";

interface Table {
  lines: [string, string][];
  texts: [string, string][];
  ranges: [string, string][];
}
const table = JSON.parse(readFileSync(join(__dirname, "..", "plain.json"), "utf8")) as Table;

describe("what is shown of others' words", () => {
  it("is what the table says, as on the machines", () => {
    for (const [text, expected] of table.lines) assert.equal(plain(text), expected);
    for (const [text, expected] of table.texts) assert.equal(plainLines(text), expected);
  });

  it("has of all characters those of the table escaped, and no other", () => {
    const ranges = table.ranges.map((range) => range.map((text) => Number.parseInt(text, 16)) as [number, number]);
    for (let code = 0; code < 0x110000; code++) {
      const character = String.fromCodePoint(code);
      const unsafe = ranges.some(([first, last]) => first <= code && code <= last);
      const escaped = plain(character);
      if ((escaped !== character) !== unsafe || (unsafe && !/^[!-~]+$/.test(escaped))) {
        assert.fail(`U+${code.toString(16)} becomes ${JSON.stringify(escaped)}`);
      }
    }
  });

  it("stays as it is when it is plain", () => {
    for (const [text, expected] of table.lines) assert.equal(plain(plain(text)), expected);
  });

  it("as JSON is the same value to a program, and does nothing to a terminal", () => {
    for (const [text] of table.lines) {
      const value = { [text]: [text, 7, null, { deep: text }] };
      const json = plainJson(value);
      assert.deepEqual(JSON.parse(json), value);
      assert.equal(plainLines(json), json);
    }
    assert.equal(plainJson({ a: "\u009b\u202e\u{e0041}" }), '{\n  "a": "\\u009b\\u202e\\udb40\\udc41"\n}\n');
  });

  it("of Pulumi's own is read without its colours", () => {
    assert.equal(withoutColours("\u001b[1;31mred\u001b[0m"), "red");
  });
});
