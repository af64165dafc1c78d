/**
 * Gives each test and hook five times its limit and never less than two minutes, as two labs share the processors of
 * whoever runs them all: a Python that starts in a tenth of a second has been seen to take several.
 * A limit is there for what hangs; how quick something is belongs into bench/.
 */
import type { Runnable, Suite } from "mocha";

const FACTOR = 5;
const AT_LEAST_MS = 120_000;

/** Where a suite keeps its hooks; Mocha's types call that private. */
const hooks = ["_beforeAll", "_beforeEach", "_afterEach", "_afterAll"];

function prolong(suite: Suite): void {
  const kept = suite as unknown as Record<string, Runnable[]>;
  for (const each of [...suite.tests, ...hooks.flatMap((name) => kept[name] ?? [])]) {
    // 0 is without a limit.
    if (each.timeout() > 0) each.timeout(Math.max(AT_LEAST_MS, each.timeout() * FACTOR));
  }
  suite.suites.forEach(prolong);
}

export const mochaHooks = {
  beforeAll(this: Mocha.Context) {
    const root = this.test?.parent;
    if (root !== undefined) prolong(root);
  },
};
