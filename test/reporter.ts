/** Mocha's usual report, and the counts of it as JSON in the file that TEST_COUNTS names, for test/run.ts. */
import { writeFileSync } from "node:fs";
import { type MochaOptions, Runner, reporters } from "mocha";

class Counting extends reporters.Spec {
  constructor(runner: Runner, options: MochaOptions) {
    super(runner, options);
    runner.once(Runner.constants.EVENT_RUN_END, () => {
      const { passes = 0, failures = 0 } = runner.stats ?? {};
      const file = process.env.TEST_COUNTS;
      if (file !== undefined) writeFileSync(file, JSON.stringify({ passed: passes, failed: failures }));
    });
  }
}

export = Counting;
