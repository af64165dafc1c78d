/** What ten days of a CouchDB store, an archive a day, by chunker and by tool. Runs on this computer alone. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { settingsSchema } from "../config";
import { Logged, run } from "../toolchain/command";
import { aptInstall } from "../toolchain/engine";
import { Problem, type Progress } from "../toolchain/progress";
import { median } from "./figures";
import { benchFolder } from "./stack";

const defaults = settingsSchema.shape;
export const chunker = defaults["cht-backup:chunker"].parse(undefined);
export const compression = defaults["cht-backup:compression"].parse(undefined);

/** Everything that is compared: borg's `create` options, or restic's. */
const contestants: Record<string, { borg: string[] } | { restic: string[] }> = {
  [`cht-backup (${chunker}, ${compression})`]: { borg: ["--chunker-params", chunker, "--compression", compression] },
  "borg's defaults": { borg: [] },
  [`borg's chunker, ${compression}`]: { borg: ["--compression", compression] },
  "fixed,1048576, zstd,3": { borg: ["--chunker-params", "fixed,1048576", "--compression", "zstd,3"] },
  restic: { restic: [] },
};

/** Bytes of all files in a folder. */
function size(folder: string): number {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

/**
 * Installs what is missing.
 * @param part which needs them
 * @param programs the package of each program
 */
export async function ensureTools(part: string, programs: Record<string, string>, progress: Progress): Promise<void> {
  const missing: string[] = [];
  for (const [program, name] of Object.entries(programs)) {
    if ((await run(program, ["--version"])).code === 127) missing.push(name);
  }
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get")) {
    throw new Problem(`${part} needs ${missing.join(" and ")}: install that.`);
  }
  await progress.step(`installing ${missing.join(" and ")} (apt-get install)`, () =>
    aptInstall(new Logged(join(benchFolder, "log")), missing),
  );
}

/** Unpacks an archive of days; returns their folders in order. */
export async function unpack(archive: string, folder: string, only?: string): Promise<string[]> {
  if ((await run("zstd", ["--version"])).code === 127) throw new Problem("zstd is needed to unpack: install it.");
  mkdirSync(folder, { recursive: true });
  const args = ["--extract", "--zstd", "--file", archive, "--directory", folder, ...(only === undefined ? [] : [only])];
  const result = await run("tar", args);
  if (result.code !== 0) throw new Problem(`${archive} can't be unpacked: ${result.stderr.trim().split("\n")[0]}`);
  const days = readdirSync(folder).filter((name) => /^day\d+$/.test(name));
  if (days.length === 0) throw new Problem(`${archive} holds no day00, day01, …`);
  return days.sort().map((day) => join(folder, day));
}

/** Stores every day; returns the repository's size after each, in bytes. */
async function store(tool: { borg: string[] } | { restic: string[] }, days: string[], scratch: string) {
  const repository = join(scratch, "repository");
  rmSync(repository, { recursive: true, force: true });
  const env = {
    ...process.env,
    BORG_BASE_DIR: join(scratch, "borg"),
    BORG_PASSPHRASE: "bench",
    RESTIC_PASSWORD: "bench",
    RESTIC_REPOSITORY: repository,
    RESTIC_CACHE_DIR: join(scratch, "restic"),
  };
  const must = async (program: string, args: string[], cwd?: string) => {
    const result = await run(program, args, { env, cwd });
    if (result.code !== 0)
      throw new Problem(`${program} ${args[0]}: exit code ${result.code}: ${result.stderr.trim()}`);
    return result.stdout;
  };
  const isBorg = "borg" in tool;
  await (isBorg ? must("borg", ["init", "--encryption", "repokey-blake2", repository]) : must("restic", ["init"]));
  const sizes: number[] = [];
  for (const [index, day] of days.entries()) {
    // From inside, so that a day's files have the names of the day before.
    await (isBorg
      ? must("borg", ["create", ...tool.borg, `${repository}::day${index}`, "."], day)
      : must("restic", ["backup", "--quiet", ...tool.restic, "."], day));
    sizes.push(size(repository));
  }
  const listed = isBorg
    ? (JSON.parse(await must("borg", ["list", "--json", repository])).archives as unknown[]).length
    : (JSON.parse(await must("restic", ["snapshots", "--json"])) as unknown[]).length;
  if (listed !== days.length) throw new Problem(`${listed} of ${days.length} archives are in the repository`);
  return sizes;
}

/** Measures; returns a table and figures, or a sentence why it didn't. */
export async function benchGrowth(data: string | undefined, progress: Progress) {
  if (data === undefined) return "left out: it needs ten days of a CouchDB's files (--data FILE).";
  if (!existsSync(data)) throw new Problem(`--data ${data}: there is no such file.`);
  const programs = { borg: "borgbackup", restic: "restic", zstd: "zstd", tar: "tar" };
  await ensureTools("growth", programs, progress);
  const scratch = mkdtempSync(join(tmpdir(), "cht-backup-bench-"));
  try {
    const days = await progress.step("unpacking", () => unpack(data, join(scratch, "data")));
    const sizes: Record<string, number[]> = {};
    for (const [name, tool] of Object.entries(contestants)) {
      sizes[name] = await progress.step(`growth: ${name}`, () => store(tool, days, scratch));
    }
    return report(sizes);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** What each day added; days on which CouchDB compacted add several times as much as the others. */
export function report(sizes: Record<string, number[]>) {
  const [own = ""] = Object.keys(sizes);
  const figures = Object.fromEntries(
    Object.entries(sizes).map(([name, after]) => {
      const added = after.slice(1).map((value, index) => value - (after[index] ?? 0));
      return [name, { total: after.at(-1) ?? 0, first: after[0] ?? 0, added }];
    }),
  );
  // The chunker at fixed offsets tells them apart best.
  const base = figures[own]?.added ?? [];
  const compacted = base.map((value) => value > 2 * median(base));
  const rows = [["stored, MB", "all days", "plain day", "compaction day", "all, by ours", "plain, by ours"]];
  const plain = (added: number[]) => median(added.filter((_, index) => !compacted[index]));
  const compaction = (added: number[]) => {
    const days = added.filter((_, index) => compacted[index]);
    return days.length === 0 ? Number.NaN : median(days);
  };
  for (const [name, { total, added }] of Object.entries(figures)) {
    const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
    rows.push([
      `  ${name}`,
      megabytes(total),
      megabytes(plain(added)),
      megabytes(compaction(added)),
      (total / (figures[own]?.total ?? Number.NaN)).toFixed(2),
      (plain(added) / plain(base)).toFixed(2),
    ]);
  }
  return {
    rows,
    words: [
      `${base.length + 1} days, an archive each; ${compacted.filter(Boolean).length} of them after a compaction.`,
    ],
    figures,
  };
}
