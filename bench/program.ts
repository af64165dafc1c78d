/** The program's own start, with mocks in place of the engine: what the SDKs cost that a stack doesn't use. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { exampleForAws } from "../test/example";
import { lastLines, run } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import { comparison, inTurns, seconds } from "./figures";

const existing = {
  file: "Pulumi.staging.yaml",
  "cht-backup:firstBackup": false,
  "cht-backup:drill": { manageDocker: false },
};

/** Contestants: an example's settings with some changed. The first is what the others are compared with. */
const stacks: Record<string, Record<string, unknown> | undefined> = {
  "machines that exist": existing,
  "Pulumi's SDK alone": undefined,
  "with the Docker and the Command plugin": { file: "Pulumi.staging.yaml" },
  "server and bucket at AWS": { file: "Pulumi.prod.yaml" },
};

/** A stack's settings as Pulumi hands them to the program. */
function settingsOf({ file, ...changes }: Record<string, unknown>): Record<string, string> {
  const example = () => parse(readFileSync(join(project, String(file)), "utf8")).config;
  const settings = { ...(file === "Pulumi.prod.yaml" ? exampleForAws() : example()), ...changes };
  return Object.fromEntries(
    Object.entries(settings).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
  );
}

/** Starts Node as Pulumi does, and runs the program to its end. */
async function start(name: string): Promise<void> {
  const args = ["--require", "./toolchain/typescript.cjs", __filename, name];
  const env = { ...process.env, AWS_ACCESS_KEY_ID: "none", AWS_SECRET_ACCESS_KEY: "none" };
  const done = await run(process.execPath, args, { cwd: project, env });
  if (done.code !== 0) throw new Problem(`the program with ${name} failed:\n${lastLines(done.stderr)}`);
}

/** Measures; returns a table and figures. */
export async function benchProgram(rounds: number, progress: Progress) {
  const names = Object.keys(stacks);
  // The first run of each fills caches.
  for (const name of names) await start(name);
  const contestants = Object.fromEntries(names.map((name) => [name, () => seconds(() => start(name))]));
  const results = await progress.step(`start of the program, ${rounds} rounds`, () =>
    inTurns(rounds, contestants, (text) => progress.note(text)),
  );
  return {
    rows: comparison("start of the program", results),
    words: ["Node's start to the last registration; engine, plugins and machines not included."],
    figures: { seconds: results },
  };
}

if (process.argv[1] === __filename) {
  const changes = stacks[process.argv[2] ?? ""];
  if (changes === undefined) require("@pulumi/pulumi");
  else {
    const { runProgram }: typeof import("../test/unit/program") = require("../test/unit/program");
    runProgram(settingsOf(changes)).then(
      ({ resources }) => process.exit(resources.size > 10 ? 0 : 1),
      (error) => {
        process.stderr.write(`${error.stack}\n`);
        process.exit(1);
      },
    );
  }
}
