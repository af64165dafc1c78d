/**
 * Gives each test and hook five times its limit and never less than two minutes, as two labs share the processors of
 * whoever runs them all: a Python that starts in a tenth of a second has been seen to take several.
 * A limit is there for what hangs; how quick something is belongs into bench/.
 */
import { Context, type Runnable, type Suite } from "mocha";

const FACTOR = 5;
const AT_LEAST_MS = 120_000;

/** Where a suite keeps its hooks; Mocha's types call that private. */
const hooks = ["_beforeAll", "_beforeEach", "_afterEach", "_afterAll"];

// 0 is without a limit.
const prolonged = (limit: number) => (limit > 0 ? Math.max(AT_LEAST_MS, limit * FACTOR) : 0);

function prolong(suite: Suite): void {
  const kept = suite as unknown as Record<string, Runnable[]>;
  for (const each of [...suite.tests, ...hooks.flatMap((name) => kept[name] ?? [])]) {
    each.timeout(prolonged(each.timeout()));
  }
  suite.suites.forEach(prolong);
}

/** What a test says of its own limit while it runs is prolonged, too. */
function prolongWhileRunning(): void {
  const { prototype } = Context as unknown as { prototype: { timeout(...limit: unknown[]): unknown } };
  const { timeout } = prototype;
  // Without a limit it says what it is.
  prototype.timeout = function (...limit) {
    return timeout.apply(
      this,
      limit.map((each) => (typeof each === "number" ? prolonged(each) : each)),
    );
  };
}

export const mochaHooks = {
  beforeAll(this: Mocha.Context) {
    const root = this.test?.parent;
    if (root !== undefined) prolong(root);
    prolongWhileRunning();
  },
};
