import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import { passOverEngineEnd, unlessEngineEnded } from "../../components/engine-ended";

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

  it("is passed over by the SDK's listener alone, once", () => {
    const process = new EventEmitter() as NodeJS.Process;
    let calls = 0;
    process.on("unhandledRejection", function uncaughtHandler() {
      calls += 1;
    });
    process.on("unhandledRejection", listener);
    passOverEngineEnd(process);
    passOverEngineEnd(process);
    assert.equal(process.listenerCount("unhandledRejection"), 2);
    assert.ok(process.listeners("unhandledRejection").includes(listener));
    process.emit("unhandledRejection", new Error("Resource monitor is terminating"), Promise.resolve());
    assert.equal(calls, 0);
    process.emit("unhandledRejection", new Error("another"), Promise.resolve());
    assert.equal(calls, 1);
  });

  it("is what Pulumi's SDK says, and the listener what it has, as long as this passes", () => {
    const text = (of: string) => readFileSync(require.resolve(`@pulumi/pulumi/${of}`), "utf8");
    assert.ok(text("runtime/resource.js").includes('err.message = "Resource monitor is terminating"'));
    assert.ok(text("cmd/run/run.js").includes('process.on("unhandledRejection", uncaughtHandler)'));
  });
});
