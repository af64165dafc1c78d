import assert from "node:assert/strict";
import { missing, seenNow } from "../../operations/ledger";

const [one, two, three] = ["1", "2", "3"].map((digit) => digit.repeat(64)) as [string, string, string];
const at = "2026-11-28T02:00:00Z";

describe("archives that were there", () => {
  it("and are, are no news", () => {
    const listing = { repository: "r", ids: { a: one, b: two } };
    const server = [one, two].map((id) => ({ id, at, gone: null }));
    assert.deepEqual(missing(listing, server, { repository: "r", archives: { [one]: "a" } }), []);
  });

  it("and went, are named by this computer, which has seen them", () => {
    const lines = missing({ repository: "r", ids: { b: two } }, undefined, {
      repository: "r",
      archives: { [one]: "a" },
    });
    assert.deepEqual(lines, ["a (1111111111111111…) was here when this computer looked before, and is gone"]);
  });

  it("and went, are named even where another archive has got the name", () => {
    const lines = missing({ repository: "r", ids: { a: two } }, undefined, {
      repository: "r",
      archives: { [one]: "a" },
    });
    assert.equal(lines.length, 1);
  });

  it("are named by the server, which has taken them in, also to a computer that has seen nothing", () => {
    const server = [one, two, three].map((id) => ({ id, at, gone: id === three ? 7 : null }));
    assert.deepEqual(missing({ repository: "r", ids: { b: two } }, server, undefined), [
      `the server took an archive at ${at} (1111111111111111…) that isn't listed`,
    ]);
  });

  it("are told once, though both have seen them", () => {
    const server = [{ id: one, at, gone: null }];
    const seen = { repository: "r", archives: { [one]: "a" } };
    assert.equal(missing({ repository: "r", ids: {} }, server, seen).length, 1);
  });

  it("in another repository, are nobody's business", () => {
    const seen = { repository: "r", archives: { [one]: "a" } };
    assert.deepEqual(missing({ repository: "other", ids: {} }, [], seen), []);
    assert.deepEqual(seenNow({ repository: "other", ids: { b: two } }, seen).archives, { [two]: "b" });
  });

  it("are remembered, however often they are missed", () => {
    const seen = { repository: "r", archives: { [one]: "a" } };
    assert.deepEqual(seenNow({ repository: "r", ids: { b: two } }, seen).archives, { [one]: "a", [two]: "b" });
  });
});
