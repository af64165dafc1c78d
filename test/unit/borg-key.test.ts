import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { exportOf, isKeyBlob, type KeyContents, keyBlob, openKey, sameKey, wrapKey } from "../../provider/borg-key";

/** Keys of empty repositories that borg itself made and exported, and their passphrase. */
const fixture: { passphrase: string; exports: Record<string, string> } = JSON.parse(
  readFileSync(join(__dirname, "../fixtures/borg-keys.json"), "utf8"),
);
const { passphrase } = fixture;
const bothExports = Object.entries(fixture.exports);
const [[, first = ""] = [], [, second = ""] = []] = bothExports;

async function opened(text: string, by = passphrase): Promise<KeyContents> {
  const result = await openKey(text, by);
  if ("reason" in result) assert.fail(result.reason);
  return result.contents;
}

async function refused(text: string, by = passphrase): Promise<string> {
  const result = await openKey(text, by);
  return "reason" in result ? result.reason : assert.fail("it was opened");
}

/** An export with other bytes in its base64. */
function changed(text: string, change: (blob: Buffer) => Buffer): string {
  const [head = ""] = text.split("\n");
  return `${head}\n${change(Buffer.from(keyBlob(text) ?? "", "base64")).toString("base64")}\n`;
}

describe("a repository's key on the operator's side", function () {
  this.timeout(20_000);
  for (const [what, text] of bothExports) {
    it(`is opened by its passphrase: ${what}`, async () => {
      const { repositoryId, encryptionKey, authenticationKey, idKey } = await opened(text);
      assert.equal(text.slice(9, 73), repositoryId);
      const length = what.includes("blake2") ? 128 : 32;
      assert.deepEqual([encryptionKey.length, authenticationKey.length, idKey.length], [32, length, length]);
    });

    it(`gets another passphrase, and stays the same key: ${what}`, async () => {
      const wrapped = await wrapKey(await opened(text), "naïve 4711");
      assert.ok(sameKey(await opened(text), await opened(wrapped, "naïve 4711")));
      assert.equal(await refused(wrapped), "isn't opened by the passphrase");
      assert.notEqual(wrapped, await wrapKey(await opened(text), "naïve 4711"), "a salt was used twice");
      // Borg's own layout: name by name, the lines, and the packing of 1.x (no "bin", no short "str").
      assert.equal(wrapped.length, text.length);
      const parts = (of: string) =>
        Buffer.from(keyBlob(of) ?? "", "base64")
          .toString("latin1")
          .replace(/(data|hash|salt)\xda(..)[\s\S]{32,}?(?=\xa4hash|\xaaiterations|\xa7version)/g, "$1 $2");
      assert.equal(parts(wrapped), parts(text));
    });
  }

  it("isn't opened by another passphrase, not even one that looks the same", async () => {
    for (const wrong of ["", `${passphrase} `, passphrase.normalize("NFD")]) {
      assert.equal(await refused(first, wrong), "isn't opened by the passphrase");
    }
  });

  it("is told from another one, whatever its text", async () => {
    assert.ok(!sameKey(await opened(first), await opened(second)));
    const one = await opened(first);
    for (const part of ["encryptionKey", "authenticationKey", "idKey"] as const) {
      assert.ok(!sameKey(one, { ...one, [part]: Buffer.alloc(one[part].length) }), part);
    }
    assert.ok(!sameKey(one, { ...one, chunkSeed: one.chunkSeed + 1 }));
  });

  it("under the id of another repository is refused", async () => {
    const stolen = second.slice(0, 73) + first.slice(73);
    assert.equal(await refused(stolen), "is that of another repository than it says");
  });

  it("with one bit changed, or cut off, is refused", async () => {
    const blob = Buffer.from(keyBlob(first) ?? "", "base64");
    for (let at = 0; at < blob.length; at += 29) {
      const bit = changed(first, (bytes) => Buffer.from(bytes.map((byte, i) => (i === at ? byte ^ 1 : byte))));
      await refused(bit);
      await refused(changed(first, (bytes) => bytes.subarray(0, at)));
    }
  });

  it("that is none is refused in words", async () => {
    const id = "a".repeat(64);
    for (const text of [
      "",
      "x",
      `BORG_KEY ${id}\n`,
      `BORG_KEY ${id}\n!!!!\n`,
      `BORG_KEY ${id}\n${"A".repeat(1e6)}\n`,
    ]) {
      assert.equal(await refused(text), "is no key as borg 1.x exports it");
    }
    assert.match(await refused(exportOf(id, Buffer.from(`\x81${"x".repeat(60)}`).toString("base64"))), /is damaged/);
  });

  it("that asks for hours of work is refused at once", async () => {
    const greedy = changed(first, (bytes) => {
      const at = bytes.indexOf("iterations") + "iterations".length;
      bytes.writeUInt32BE(0xffffffff, at + 1);
      return bytes;
    });
    const start = process.hrtime.bigint();
    assert.match(await refused(greedy), /is damaged/);
    assert.ok(process.hrtime.bigint() - start < 5_000_000_000n);
  });

  it("is compared by its base64, whatever breaks its lines", () => {
    assert.equal(keyBlob(first.replaceAll("\n", "\r\n")), keyBlob(first));
    assert.equal(exportOf(first.slice(9, 73), keyBlob(first) ?? ""), first);
    assert.ok(isKeyBlob(keyBlob(first) ?? ""));
    for (const wrong of ["", "AAAA", "x\rid = 00".repeat(4), `${keyBlob(first)}A`]) assert.ok(!isKeyBlob(wrong), wrong);
  });
});
