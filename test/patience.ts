/**
 * Gives each test and hook three times its limit, as two labs and other checks share the processors of whoever runs them all.
 * A limit is there for what hangs; how quick something is belongs into bench/.
 */
import type { Runnable, Suite } from "mocha";

const FACTOR = 3;

/** Where a suite keeps its hooks; Mocha's types call that private. */
const hooks = ["_beforeAll", "_beforeEach", "_afterEach", "_afterAll"];

function prolong(suite: Suite): void {
  const kept = suite as unknown as Record<string, Runnable[]>;
  for (const each of [...suite.tests, ...hooks.flatMap((name) => kept[name] ?? [])]) {
    each.timeout(each.timeout() * FACTOR);
  }
  suite.suites.forEach(prolong);
}

export const mochaHooks = {
  beforeAll(this: Mocha.Context) {
    const root = this.test?.parent;
    if (root !== undefined) prolong(root);
  },
};
