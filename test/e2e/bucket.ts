/** The copy to the lab's bucket, looked at from the server and from the bucket's owner. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { bucketNames, serverNames } from "../../components/names";
import { containerOf, exec, output, waitFor } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { repository } from "./backup";

export const {
  settings: bucketSettingsFolder,
  programs: bucketPrograms,
  state: bucketState,
  copyService,
  copyPath,
  copyTimer,
  checkService,
  checkTimer,
  failedService: bucketFailedService,
} = bucketNames("lab");
export const { package: serverPackage, programs: serverPrograms } = serverNames("lab", "");

/** `last-copy.json`. */
export interface CopyReport {
  ok: boolean;
  outcome: "copied" | "unchanged" | "busy" | "waiting" | "extended" | "failed";
  exitCode: number;
  startedAt: number;
  finishedAt: number;
  copy: { key: string; version: string; number: number; transaction: number } | null;
  files: number | null;
  uploadedFiles: number;
  uploadedBytes: number;
  requests: number;
  problems: string[];
}

/** What the last copy said of itself; undefined before the first. */
export async function lastCopy(): Promise<CopyReport | undefined> {
  const text = await output("server", `cat ${bucketState}/last-copy.json 2>/dev/null || true`);
  return text === "" ? undefined : JSON.parse(text);
}

/** Waits until no copy runs. */
export async function copiesEnded(): Promise<void> {
  const ended = async () =>
    !(await output("server", `systemctl show -p ActiveState --value ${copyService}`)).endsWith("activating");
  assert.ok(await waitFor(ended, 360_000), "a copy has run for six minutes");
}

/** Has a copy think that no client has used the repository for a while, so that it doesn't wait for one to finish. */
export const settle = () => output("server", `touch --date '1 minute ago' ${repository}`);

/** Starts a copy when no client works on the repository, and waits for its end. @returns its report */
export async function copyNow(): Promise<CopyReport> {
  await settle();
  await copiesEnded();
  await exec("server", `systemctl start ${copyService}`);
  const report = await lastCopy();
  assert.ok(report);
  return report;
}

/** Keeps backups from being copied for a while, for a test that puts its hands into the repository itself. */
export async function withoutCopies<T>(work: () => Promise<T>): Promise<T> {
  await output("server", `systemctl stop ${copyPath}`);
  try {
    await copiesEnded();
    return await work();
  } finally {
    await output("server", `systemctl start ${copyPath}`);
  }
}

/** What is below a prefix of the bucket: locks by object and version, `[mode, end in seconds since 1970]`. */
export async function bucketContent(
  prefix: string,
): Promise<{ locks: Record<string, [string, number]>; hidden: string[] }> {
  const listed = await asServer("bucket_versions.py", `${bucketSettingsFolder}/bucket.json`, prefix);
  assert.equal(listed.code, 0, listed.stderr);
  return JSON.parse(listed.stdout);
}

/** Runs a Python file of `test/e2e/machine` as root on the server, with the copy's own programs and credentials. */
export function asServer(file: string, ...args: string[]): Promise<Result> {
  const environment = ["-e", `PYTHONPATH=${serverPrograms}`];
  const command = ["exec", "-i", ...environment, containerOf("server"), `${bucketPrograms}/venv/bin/python`];
  const stdin = readFileSync(join(__dirname, "machine", file));
  return run("docker", [...command, "-B", "-", ...args], { stdin, timeoutMs: 480_000 });
}
