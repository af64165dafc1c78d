/** Backups with the server's guard and seals, beside bare `borg serve`. Runs on this computer alone, as root. */
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { guardEnvironments } from "../test/run";
import { lastLines, run } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import { comparison } from "./figures";
import { chunker, compression } from "./growth";

/** What guard.py prints: seconds, by what was measured and by contestant. */
type Measured = Record<string, Record<string, number[]>>;

/** Measures; returns a table and figures. */
export async function benchGuard(rounds: number, megabytes: number, progress: Progress) {
  const [version = "", environment = ""] = (await guardEnvironments()).at(-1) ?? [];
  const scratch = mkdtempSync(join(tmpdir(), "cht-backup-bench-"));
  // The account that receives the backups must reach what is in it.
  chmodSync(scratch, 0o755);
  try {
    const create = ["--chunker-params", chunker, "--compression", compression];
    const env = {
      ...process.env,
      TMPDIR: scratch,
      PYTHONPATH: join(project, "test/guard"),
      GUARD_ENVIRONMENTS: JSON.stringify({ [version]: environment }),
    };
    const measured = await progress.step("guard: first backups, quiet nights", async () => {
      const asked = JSON.stringify({ megabytes, rounds, create });
      const program = ["-B", join(project, "bench/guard.py"), asked];
      const { code, stdout, stderr } = await run(join(environment, "bin", "python"), program, { env });
      if (code !== 0) throw new Problem(`guard: exit code ${code}:\n${lastLines(stderr)}`);
      return JSON.parse(stdout) as Measured;
    });
    return {
      rows: Object.entries(measured).flatMap(([what, results]) => comparison(what, results)),
      words: [`${megabytes} MB over sshd on this computer; borg ${version}, ${chunker}, ${compression}.`],
      figures: measured,
    };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
