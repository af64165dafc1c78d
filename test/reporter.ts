/**
 * Mocha's usual report; and for test/run.ts its counts, what failed, and how long each file took, as JSON in the file that
 * TEST_COUNTS names.
 */
import { writeFileSync } from "node:fs";
import { relative } from "node:path";
import { type MochaOptions, Runner, reporters } from "mocha";

/** Lines of an error that are shown: a program's output says first what it does, and last what went wrong. */
const [FIRST, LAST, WIDTH] = [4, 8, 300];

/** As much of an error as tells one failure from another, indented below the test's name. */
function shortened(message: string): string {
  const lines = message
    .trimEnd()
    .split("\n")
    .map((line) => line.slice(0, WIDTH));
  const shown = lines.length <= FIRST + LAST ? lines : [...lines.slice(0, FIRST), "…", ...lines.slice(-LAST)];
  return shown.map((line) => `\n      ${line}`).join("");
}

class Counting extends reporters.Spec {
  constructor(runner: Runner, options: MochaOptions) {
    super(runner, options);
    const names: string[] = [];
    const seconds: Record<string, number> = {};
    let begin = Date.now();
    runner.on(Runner.constants.EVENT_TEST_FAIL, (test, error) => {
      names.push(test.titlePath().join(" › ") + shortened(error.message));
      // At once, as the report at the end may be an hour away.
      console.log(`${error.message}\n`);
    });
    runner.on(Runner.constants.EVENT_SUITE_BEGIN, (suite) => {
      if (suite.parent?.root) begin = Date.now();
    });
    runner.on(Runner.constants.EVENT_SUITE_END, ({ parent, file }) => {
      if (!parent?.root || file === undefined) return;
      const name = relative(process.cwd(), file);
      seconds[name] = (seconds[name] ?? 0) + (Date.now() - begin) / 1000;
    });
    runner.once(Runner.constants.EVENT_RUN_END, () => {
      const { passes = 0, failures = 0 } = runner.stats ?? {};
      const file = process.env.TEST_COUNTS;
      if (file !== undefined) writeFileSync(file, JSON.stringify({ passed: passes, failed: failures, names, seconds }));
    });
  }
}

export = Counting;
