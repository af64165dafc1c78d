/** The lab's deployment by Pulumi, and its first backup. */
import { appendFileSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Logged, lastLines } from "../toolchain/command";
import { labFolder } from "../toolchain/paths";
import { withoutColours } from "../toolchain/plain";
import { Problem, type Progress } from "../toolchain/progress";
import { pulumi } from "../toolchain/pulumi";
import { containerOf, exec } from "./machines";
import { writeBucketSettings } from "./stack";

const state = join(labFolder, "state", ".pulumi", "stacks", "cht-backup", "lab.json");
const log = join(labFolder, "log", "pulumi.log");
const unit = "cht-backup-lab.service";

/** What of the CLI's output tells why it failed: its diagnostics, else its last lines. */
export function diagnostics(text: string): string {
  const lines = withoutColours(text).split("\n");
  const begin = lines.findIndex((line) => line.trim() === "Diagnostics:");
  if (begin < 0) return lastLines(text);
  const rest = lines.slice(begin + 1);
  // The section ends where the next one (outputs, resources, duration) begins in the first column.
  const end = rest.findIndex((line) => /^\S/.test(line));
  return rest
    .slice(0, end < 0 ? undefined : end)
    .filter((line) => line.trim() !== "")
    .slice(0, 25)
    .join("\n");
}

async function mustWork(args: readonly string[]): Promise<string> {
  const result = await pulumi(args, { env: { ...process.env, PULUMI_STACK: "lab" }, log });
  if (result.code !== 0) {
    throw new Problem(
      `pulumi ${args[0]} failed (exit code ${result.code}):\n${diagnostics(result.stdout + result.stderr)}\n  The whole log: ${log}`,
    );
  }
  return result.stdout;
}

/** How many resources an `up` changed, by its summary (`+ 31 created`); unchanged ones don't count. */
export function changes(text: string): number {
  const counts = withoutColours(text).matchAll(/^\s+[^\w\s]+\s*(\d+) (?:created|updated|deleted|replaced|imported)$/gm);
  return [...counts].reduce((sum, match) => sum + Number(match[1]), 0);
}

/** Brings the machines to what the program says. */
export async function deploy(progress: Progress): Promise<void> {
  writeFileSync(log, "");
  await progress.step("deploying by Pulumi (pulumi up)", async () => {
    if (!existsSync(state)) await mustWork(["stack", "init", "lab", "--no-select"]);
    await writeBucketSettings();
    const text = await mustWork(["up", "--stack", "lab", "--yes", "--skip-preview", "--color", "never"]);
    appendFileSync(log, "\n");
    const changed = changes(text);
    progress.note(changed === 1 ? "1 resource changed" : `${changed} resources changed`);
  });
}

/** Makes the first backup where there is none. */
export async function firstBackup(progress: Progress, logged: Logged): Promise<void> {
  const made = await exec("cht", "test -s /var/lib/cht-backup/lab/last-backup.json");
  if (made.code === 0) return;
  await progress.step(`making the first backup (systemctl start ${unit})`, async () => {
    try {
      await logged.run("backup", "docker", ["exec", containerOf("cht"), "systemctl", "start", unit]);
    } catch (error) {
      const journal = await exec("cht", `journalctl --no-pager --output=cat --lines=40 --unit=${unit}`);
      appendFileSync(join(logged.folder, "backup.log"), journal.stdout);
      if (journal.stdout.trim() === "") throw error;
      throw new Problem(
        `the first backup failed:\n${lastLines(journal.stdout)}\n  The whole log: ${join(logged.folder, "backup.log")}`,
      );
    }
  });
}
