/** What a copy into a bucket sends and asks, beside `rclone sync` of the live folder. Runs on this computer alone. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lastLines, run } from "../toolchain/command";
import { project } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import { pythonEnvironment } from "../toolchain/python";
import { median } from "./figures";
import { chunker, compression, ensureTools, unpack } from "./growth";

/** Everything that is compared: rclone's options, or null for the project's own copy, which comes first. */
const contestants: Record<string, string[] | null> = {
  "cht-backup": null,
  "rclone sync": [],
  "rclone sync --fast-list --checksum": ["--fast-list", "--checksum"],
};

/** MB of new data on each day, where there is none of a CouchDB's. */
const randomDays = [40, 3, 3, 3, 3];

/** Bytes and requests between a program and the storage. */
interface Step {
  sent: number;
  received: number;
  /** How many requests of each kind: LIST, or the method. */
  kinds: Record<string, number>;
}

/** A step of the project's own copy, with what its report says. */
interface OwnStep extends Step {
  requests: number;
  uploadedFiles: number;
  extended: number;
}

/** What traffic.py prints. */
export interface Traffic<Of extends Step = Step> {
  copies: Of[];
  nothing: Of;
  /** Files in the repository at the end. */
  files: number;
  /** Bytes in the repository at the end. */
  size: number;
  /** Every lock lengthened, which is due once in lockDays - keepDays days; of the project's own copy alone. */
  locks?: Of;
}

function makeDays(folder: string): string[] {
  return randomDays.map((megabytes, index) => {
    const day = join(folder, `day${index}`);
    mkdirSync(day, { recursive: true });
    writeFileSync(join(day, `file${index}`), randomBytes(megabytes * 1e6));
    return day;
  });
}

/** Measures; returns a table and figures. */
export async function benchBucket(data: string | undefined, progress: Progress) {
  if (data !== undefined && !existsSync(data)) throw new Problem(`--data ${data}: there is no such file.`);
  await ensureTools("bucket", { borg: "borgbackup", rclone: "rclone" }, progress);
  const environment = await pythonEnvironment("bucket-tests", "test/bucket/requirements.txt");
  const scratch = mkdtempSync(join(tmpdir(), "cht-backup-bench-"));
  try {
    const days = data === undefined ? makeDays(scratch) : await progress.step("unpacking", () => unpack(data, scratch));
    const measured: Record<string, Traffic> = {};
    for (const [name, sync] of Object.entries(contestants)) {
      const create = ["--chunker-params", chunker, "--compression", compression];
      const asked = JSON.stringify({ days, create, sync });
      // Its folders are removed with this one, even when it is stopped while it makes them.
      const env = { ...process.env, TMPDIR: scratch, PYTHONPATH: join(project, "test/bucket") };
      measured[name] = await progress.step(`bucket: ${name}`, async () => {
        const program = ["-B", join(project, "bench/traffic.py"), asked];
        const { code, stdout, stderr } = await run(join(environment, "bin", "python"), program, { env });
        if (code !== 0) throw new Problem(`bucket: ${name}: exit code ${code}:\n${lastLines(stderr)}`);
        return JSON.parse(stdout) as Traffic;
      });
    }
    return report(measured);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const sum = (kinds: Record<string, number>) => Object.values(kinds).reduce((all, count) => all + count, 0);

/** Throws where the project's own count of requests isn't the one of the proxy. */
function mustAgree(own: Traffic<OwnStep>): void {
  for (const { requests, kinds } of [...own.copies, own.nothing]) {
    if (requests !== sum(kinds)) {
      throw new Problem(`the report counts ${requests} requests, the proxy ${JSON.stringify(kinds)}`);
    }
  }
}

/** A table of the first copy, the median of the days after it, and a run with nothing new. */
export function report(measured: Record<string, Traffic>) {
  const [own] = Object.values(measured) as Traffic<OwnStep>[];
  if (own?.locks === undefined) throw new Problem("the project's own copy wasn't measured");
  mustAgree(own);
  const steps: Record<string, (of: Traffic) => Step[]> = {
    "first copy": (of) => of.copies.slice(0, 1),
    "a day's growth": (of) => of.copies.slice(1),
    "nothing new": (of) => [of.nothing],
  };
  const rows = [
    ["sent and asked", "sent MB", "requests", "PUT", "LIST", "got KB", "sent, by ours", "requests, by ours"],
  ];
  for (const [step, choose] of Object.entries(steps)) {
    rows.push([step, ...(rows[0] ?? []).slice(1).map(() => "")]);
    const middle = (of: Traffic, figure: (step: Step) => number) => median(choose(of).map(figure));
    for (const [name, of] of Object.entries(measured)) {
      const byOurs = (figure: (step: Step) => number) =>
        middle(own, figure) === 0 ? "-" : (middle(of, figure) / middle(own, figure)).toFixed(2);
      rows.push([
        `  ${name}`,
        (middle(of, ({ sent }) => sent) / 1e6).toFixed(2),
        String(middle(of, ({ kinds }) => sum(kinds))),
        String(middle(of, ({ kinds }) => kinds.PUT ?? 0)),
        String(middle(of, ({ kinds }) => kinds.LIST ?? 0)),
        (middle(of, ({ received }) => received) / 1e3).toFixed(1),
        byOurs(({ sent }) => sent),
        byOurs(({ kinds }) => sum(kinds)),
      ]);
    }
  }
  const { copies, files, size, locks } = own;
  return {
    rows,
    words: [
      `${copies.length} days, a copy each, then one with nothing new; ${(size / 1e6).toFixed(1)} MB in ${files} files at the end.`,
      `All ${locks.extended} locks lengthened, once in lockDays - keepDays days: ${sum(locks.kinds)} requests, no data.`,
    ],
    figures: measured,
  };
}
