/** A simulated year with the default policy, beside the same year without retention. Runs on this computer alone, as root. */
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { guardEnvironments } from "../test/run";
import { lastLines, run } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import { median } from "./figures";

/** What year.py prints of a week, after its retention: bytes, and how many archives stay. */
export interface Week {
  /** On the CHT's disk. */
  data: number;
  /** In the repository before this week's retention. */
  before: number;
  after: number;
  without: number;
  bucket: number;
  bucket_without: number;
  archives: number;
}

const churns = { busy: "1 % a day, a compaction a month", measured: "as in the ten days, a compaction a month" };
/** Bytes of the data after a compaction. */
const size = 4_000_000;
const days = 365;

/** Runs it for each way in which data change; returns a table and figures. */
export async function benchYear(progress: Progress) {
  const [version = "", environment = ""] = (await guardEnvironments()).at(-1) ?? [];
  const scratch = mkdtempSync(join(tmpdir(), "cht-backup-bench-"));
  // The account that receives the backups must reach what is in it.
  chmodSync(scratch, 0o755);
  try {
    const env = {
      ...process.env,
      TMPDIR: scratch,
      PYTHONDONTWRITEBYTECODE: "1",
      PYTHONPATH: join(project, "test/guard"),
      GUARD_ENVIRONMENTS: JSON.stringify({ [version]: environment }),
    };
    const measured: Record<string, Week[]> = {};
    for (const churn of Object.keys(churns)) {
      measured[churn] = await progress.step(`year: ${churn}`, async () => {
        const program = [join(project, "bench/year.py"), JSON.stringify({ churn, days, size })];
        const { code, stdout, stderr } = await run(join(environment, "bin", "python"), program, { env });
        if (code !== 0) throw new Problem(`year: exit code ${code}:\n${lastLines(stderr)}`);
        return JSON.parse(stdout) as Week[];
      });
    }
    return { ...report(measured), figures: measured };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Multiples of the data on the disk: in the middle of the year's second half, at the most, and in the end. */
export function report(measured: Record<string, Week[]>) {
  const rows = [["stored, by the data on the CHT's disk", "median", "most", "in the end"]];
  for (const [churn, weeks] of Object.entries(measured)) {
    const later = weeks.slice(Math.floor(weeks.length / 2));
    const row = (name: string, of: (week: Week) => number) => {
      const ratios = later.map((week) => of(week) / week.data);
      const figures = [median(ratios), Math.max(...ratios), ratios.at(-1) ?? Number.NaN];
      rows.push([`  ${churn}, ${name}`, ...figures.map((figure) => figure.toFixed(2))]);
    };
    row("server", (week) => week.after);
    row("server before its weekly retention", (week) => week.before);
    row("server without retention", (week) => week.without);
    row("bucket, by a model of its locks", (week) => week.bucket);
    row("bucket from which nothing is removed", (week) => week.bucket_without);
  }
  const words = Object.entries(churns).map(([name, text]) => `${name}: ${text}.`);
  return { rows, words: [...words, "Every archive that should stay did, and held what was stored; no other did."] };
}
