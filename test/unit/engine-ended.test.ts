import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { unlessEngineEnded } from "../../components/engine-ended";

describe("the engine's end, when a resource has failed", () => {
  const heard: unknown[] = [];
  const listener = unlessEngineEnded((error: unknown, ...more: unknown[]) => heard.push([error, ...more]));
  beforeEach(() => heard.splice(0));

  it("is no error of the program's, with a stack trace: the engine has said what failed", () => {
    // As the SDK makes it: gRPC's error, with another message.
    const error = Object.assign(new Error("14 UNAVAILABLE: resource monitor shut down"), { code: 14 });
    error.message = "Resource monitor is terminating";
    listener(error, Promise.resolve());
    assert.deepEqual(heard, []);
  });

  it("hides nothing else", () => {
    const error = new Error("14 UNAVAILABLE: of a provider");
    listener(error, 1);
    listener("a text", 2);
    assert.deepEqual(heard, [
      [error, 1],
      ["a text", 2],
    ]);
  });

  it("is what Pulumi's SDK says, as long as this passes", () => {
    const text = readFileSync(require.resolve("@pulumi/pulumi/runtime/resource.js"), "utf8");
    assert.ok(text.includes('err.message = "Resource monitor is terminating"'));
  });
});
