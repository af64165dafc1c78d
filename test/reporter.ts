/** Mocha's usual report; and for test/run.ts its counts and the names of what failed, as JSON in the file that TEST_COUNTS names. */
import { writeFileSync } from "node:fs";
import { type MochaOptions, Runner, reporters } from "mocha";

class Counting extends reporters.Spec {
  constructor(runner: Runner, options: MochaOptions) {
    super(runner, options);
    const names: string[] = [];
    runner.on(Runner.constants.EVENT_TEST_FAIL, (test, error) => {
      names.push(test.titlePath().join(" › "));
      // At once, as the report at the end may be an hour away.
      console.log(`${error.message}\n`);
    });
    runner.once(Runner.constants.EVENT_RUN_END, () => {
      const { passes = 0, failures = 0 } = runner.stats ?? {};
      const file = process.env.TEST_COUNTS;
      if (file !== undefined) writeFileSync(file, JSON.stringify({ passed: passes, failed: failures, names }));
    });
  }
}

export = Counting;
