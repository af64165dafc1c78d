/** `npm run bench`: how long a preview, a backup and a restore take, how much a backup stores and a bucket's copy sends, beside what one would compare it with. */
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { machines, stateOf } from "../lab/machines";
import { main, onInterrupt } from "../toolchain/main";
import { Problem, Progress } from "../toolchain/progress";
import { benchBackup } from "./backup";
import { benchBucket } from "./bucket";
import { table } from "./figures";
import { benchGrowth } from "./growth";
import { benchGuard } from "./guard";
import { benchPreview } from "./preview";
import { benchProgram } from "./program";
import { benchRestore } from "./restore";
import { benchFolder } from "./stack";
import { benchYear } from "./year";

const help = `Usage: npm run bench [-- OPTIONS]

Measures on the lab's two machines (\`npm run lab\` sets them up):
  preview   a preview without a change, beside an empty Pulumi program's and Ansible's check mode on the same state
  backup    the backup's unit, beside a bare \`borg create\` of the same files to the same server
  restore   the whole restore with its start, beside a bare \`borg extract\` of the same archive and \`docker compose up\`
  growth    what ten days store, beside borg's defaults and restic; needs no lab, but --data
  program   the program's start with and without the SDKs of clouds; needs no lab
  bucket    what copies into a bucket send and ask, beside \`rclone sync\` of the live folder; needs no lab
  guard     backups with the server's guard and seals, beside bare \`borg serve\`; needs no lab, but root
  year      what a simulated year stores by the default policy, beside one without retention; needs no lab, but root,
            takes an hour, and runs only when it is named

  --only PART                    one of them
  --data FILE                    a .tar.zst with day00, day01, … of a CouchDB's data directory; growth needs it, backup
                                 and restore take its first day instead of the lab's own small data, and bucket its
                                 days instead of random data
  --size N                       MB to back up and to restore (default 400; the data is copied, with other bytes; guard
                                 takes random data)
  --rounds N                     how often each is measured (default 7; backup, restore and guard: half as often)
  --help                         this text

All contestants are measured in turns, so that a busy machine slows all of them; ratios are medians over the turns. A
part that did not do its work ends the bench with exit code 1; no figure does. Exit codes: 0 measured, 1 failed, 2 wrong
option, 130 Ctrl-C. The figures of the last run are in .lab/bench/results.json, too.
`;

const parts = ["preview", "backup", "restore", "growth", "program", "bucket", "guard", "year"] as const;
const withoutLab: readonly string[] = ["growth", "program", "bucket", "guard", "year"];

interface Measured {
  rows: string[][];
  words: string[];
  figures: unknown;
}

function wholeNumber(option: string, text: string): number {
  if (!/^[1-9][0-9]{0,5}$/.test(text)) throw new Error(`--${option} ${text}: must be a whole number from 1 to 999999`);
  return Number(text);
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        only: { type: "string" },
        data: { type: "string" },
        rounds: { type: "string", default: "7" },
        size: { type: "string", default: "400" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.only !== undefined && !parts.some((part) => part === values.only)) {
      throw new Error(`--only ${values.only}: must be ${parts.join(", ")}`);
    }
    return { ...values, rounds: wholeNumber("rounds", values.rounds), size: wholeNumber("size", values.size) };
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message.split("\n")[0]}\n\n${help}`);
    return undefined;
  }
}

async function bench(): Promise<number> {
  const chosen = options();
  if (chosen === undefined) return 2;
  if (chosen.help) {
    process.stdout.write(help);
    return 0;
  }
  onInterrupt("stopped; `npm run bench` begins anew and tidies up what is left", () => undefined);
  mkdirSync(benchFolder, { recursive: true, mode: 0o700 });
  const wanted = parts.filter((part) => (chosen.only === undefined ? part !== "year" : part === chosen.only));
  if (wanted.some((part) => !withoutLab.includes(part))) {
    for (const machine of machines) {
      if ((await stateOf(machine)) !== "running") throw new Problem("the lab isn't there: `npm run lab` sets it up.");
    }
  }

  const progress = new Progress();
  const results: Record<string, unknown> = {};
  for (const part of wanted) {
    const measured: Measured | string =
      part === "preview"
        ? await benchPreview(chosen.rounds, progress)
        : part === "backup"
          ? await benchBackup(Math.ceil(chosen.rounds / 2), chosen.data, chosen.size, progress)
          : part === "restore"
            ? await benchRestore(Math.ceil(chosen.rounds / 2), chosen.data, chosen.size, progress)
            : part === "growth"
              ? await benchGrowth(chosen.data, progress)
              : part === "program"
                ? await benchProgram(chosen.rounds, progress)
                : part === "guard"
                  ? await benchGuard(Math.ceil(chosen.rounds / 2), chosen.size, progress)
                  : part === "year"
                    ? await benchYear(progress)
                    : await benchBucket(chosen.data, progress);
    if (typeof measured === "string") {
      process.stdout.write(`\n${part}: ${measured}\n`);
      results[part] = measured;
      continue;
    }
    process.stdout.write(`\n${table(measured.rows)}\n${measured.words.map((line) => `${line}\n`).join("")}\n`);
    results[part] = measured.figures;
  }
  const file = join(benchFolder, "results.json");
  const where = { node: process.version, processors: cpus().length, time: new Date().toISOString() };
  writeFileSync(file, `${JSON.stringify({ ...where, ...results }, null, 2)}\n`);
  process.stderr.write(`figures: ${file}\n`);
  return 0;
}

void main("bench", bench);
