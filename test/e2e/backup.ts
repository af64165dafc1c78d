/** The lab's nightly backup, started by hand and looked at from all sides. */
import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { chtNames, serverNames } from "../../components/names";
import { type AnyMachine, containerOf, exec, type Machine, output } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { stateFile } from "../../toolchain/state-files";
import { mustSucceed } from "./stack";

export const { settings, programs, state, service, timer, failedService: alertService } = chtNames("lab");
export const { user, home, repository } = serverNames("lab", "/srv/cht-backup");
/** The repository as borg on the CHT machine names it. */
export const location = `ssh://offsite${repository}`;
/** CouchDB's directory of the lab's CHT. */
export const data = "/home/ubuntu/cht/couchdb";

/** `last-backup.json`. */
export interface Report {
  ok: boolean;
  archive: string | null;
  archiveId: string | null;
  borgExitCode: number | null;
  exitCode: number;
  problems: string[];
  notes: string[];
  files: number | null;
  lastSuccessAt: number | null;
}

/** One run of the service, when it has ended. */
export interface Run {
  /** What systemd says how it ended: `success`, `exit-code`, `signal`… */
  result: string;
  /** `inactive` after a success, else `failed`. */
  activeState: string;
  exitCode: number;
  /** What the unit wrote to the journal, systemd's words about it included. */
  journal: string;
  /** What this run reported; undefined when it came to no report. */
  report: Report | undefined;
}

export interface Running {
  /** Waits for the end. */
  finished(): Promise<Run>;
}

const reportFile = `${state}/last-backup.json`;

/** After the program itself the unit calls whoever watches from outside, and is `deactivating`. */
const untilEnded = `while systemctl show -p ActiveState --value ${service} | grep -q activating ||
  systemctl list-jobs --no-legend | grep -q ' ${service} '; do sleep 0.1; done`;

/** Starts the service and doesn't wait for its end. One that the timer has just started may end first. */
export async function startBackup(): Promise<Running> {
  await output("cht", untilEnded);
  const [cursor, before] = await Promise.all([
    output("cht", "journalctl --show-cursor --lines=0 | sed -n 's/^-- cursor: //p'"),
    output("cht", `cat ${reportFile} 2>/dev/null || true`),
  ]);
  await output("cht", `systemctl reset-failed ${service} ${alertService}; systemctl start --no-block ${service}`);
  return {
    async finished() {
      const script = `
${untilEnded}
systemctl show -p Result -p ActiveState -p ExecMainStatus ${service}
journalctl --sync
echo ---
journalctl --no-pager --output=cat --after-cursor='${cursor}' --unit=${service}
echo ---
cat ${reportFile} 2>/dev/null || true`;
      const [facts = "", journal = "", report = ""] = (await output("cht", script)).split(/^---\n?/m);
      const fact = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(facts)?.[1] ?? "";
      return {
        result: fact("Result"),
        activeState: fact("ActiveState"),
        exitCode: Number(fact("ExecMainStatus")),
        journal,
        report: report.trim() === before.trim() || report === "" ? undefined : JSON.parse(report),
      };
    },
  };
}

/** Makes a backup. */
export async function backUp(): Promise<Run> {
  return (await startBackup()).finished();
}

/** Asserts that a run made an archive in which nothing is missing. @returns its report */
export function assertComplete(run: Run): Report {
  assert.equal(run.activeState, "inactive", run.journal);
  assert.equal(run.exitCode, 0, run.journal);
  assert.ok(run.report, run.journal);
  assert.deepEqual(run.report.problems, []);
  assert.equal(run.report.ok, true);
  assert.match(run.journal, /is complete/);
  return run.report;
}

/** Asserts that a run failed loudly and that the line which says why is in the journal and in the report. */
export function assertFailed(run: Run, exitCode: 1 | 2, reason: RegExp): Report {
  assert.equal(run.activeState, "failed", run.journal);
  assert.equal(run.exitCode, exitCode, run.journal);
  assert.match(run.journal, reason);
  assert.ok(run.report, run.journal);
  assert.equal(run.report.ok, false);
  assert.equal(run.report.exitCode, exitCode);
  assert.ok(
    run.report.problems.some((line) => reason.test(line)),
    run.report.problems.join("\n"),
  );
  assert.equal(run.report.archive === null, exitCode === 2);
  return run.report;
}

export interface Recovery {
  passphrase: string;
  /** The repository's exported key, wrapped by the passphrase. */
  key: string;
}

/** The stack's secret output that opens the archives. */
export async function recovery(): Promise<Recovery> {
  return JSON.parse(await mustSucceed("stack", "output", "recovery", "--show-secrets", "--json"));
}

/** A script that has the passphrase in the environment of borg's process, read from the script's standard input. */
export function withPassphrase(script: string): string {
  return `set -e; IFS= read -r BORG_PASSPHRASE; export BORG_PASSPHRASE; export BORG_RSH='ssh -F ${settings}/ssh_config'
# A copy to the bucket may have the repository's lock for a moment.
borg() { command borg --lock-wait 60 "$@"; }
${script}`;
}

/** Names of the archives in the repository, as someone sees them who has never been there before. */
export async function archives(passphrase: string): Promise<string[]> {
  const script = withPassphrase(`
BORG_BASE_DIR=$(mktemp -d); export BORG_BASE_DIR
trap 'rm -rf "$BORG_BASE_DIR"' EXIT
borg list --short '${location}'`);
  return (await output("cht", script, { stdin: `${passphrase}\n` })).split("\n").filter((name) => name !== "");
}

/** Runs a Python file of `test/e2e/machine` on a machine, with its arguments and what it reads. */
export function python(
  machine: AnyMachine,
  file: string,
  args: string[] = [],
  stdin = "",
  interpreter = "/usr/bin/python3",
): Promise<Result> {
  const source = readFileSync(join(__dirname, "machine", file), "utf8");
  const words = ["exec", "-i", containerOf(machine), interpreter, "-c", source, ...args];
  // Some watch for as long as a test's work takes.
  return run("docker", words, { stdin, timeoutMs: 600_000 });
}

/** Waits until borg has extracted that many files below a directory, and stops it (SIGSTOP) before the next one. borg
 * makes files of its own at the top, too, so it is a directory of the archive. */
export async function stopExtraction(machine: AnyMachine, directory: string, files: number): Promise<void> {
  const { code, stderr } = await python(machine, "when_opened.py", [directory, "stop", String(files)]);
  assert.equal(code, 0, stderr);
  const extracted = `find ${directory} -type f ! -newermt 2026-11-21T12:00Z | wc -l`; // the lab's files are of that day
  assert.equal(await output(machine, extracted), String(files));
}

/** The Python that runs borg on a machine, and so has its modules. */
export const borgsPython = (machine: AnyMachine) => output(machine, `sed -n '1s/^#!//p' "$(command -v borg)"`);

/** Ids of the CHT's containers by service. */
export async function container(name: string): Promise<string> {
  const filters = ["project=cht", `service=${name}`].map((label) => `--filter label=com.docker.compose.${label}`);
  return output("cht", `docker ps --all --quiet ${filters.join(" ")}`);
}

const guarded = serverNames("lab", "/srv/cht-backup");

/** Takes what is in the repository for right, as its administrator: the audit begins anew from there. */
export async function approve(because: string): Promise<void> {
  const audit = `${guarded.package} audit approve --because '${because}' ${guarded.settings}/repository.json`;
  await output("server", `systemctl start ${guarded.sealService} && python3 -B ${audit}`);
  // The other witnesses, as their words say.
  await output("cht", `rm -f ${state}/drills/ledger.json`);
  rmSync(stateFile("archives", "lab"), { force: true });
}

/** Runs a script as root on the server, with the seals broken for it, as an administrator does maintenance. */
export async function maintain(because: string, script: string): Promise<void> {
  const seal = (action: string) =>
    output("server", `python3 -B ${guarded.package} seal ${action} ${guarded.settings}/repository.json`);
  await seal("open");
  try {
    await output("server", script);
  } finally {
    await seal("close");
    await approve(because);
  }
}

/** Does something to a machine and undoes it in the end, whatever happens between. */
export async function during<T>(machine: Machine, make: string, undo: string, work: () => Promise<T>): Promise<T> {
  try {
    await output(machine, `set -e\n${make}`);
    return await work();
  } finally {
    const undone = await exec(machine, `set -e\n${undo}`);
    assert.equal(undone.code, 0, undone.stderr);
  }
}
