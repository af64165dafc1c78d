/** `npm test`: every check of the project, one after the other, with one count at the end. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { Logged } from "../toolchain/command";
import { aptInstall } from "../toolchain/engine";
import { cacheFolder, labFolder, project } from "../toolchain/paths";
import { Problem } from "../toolchain/progress";
import { pythonEnvironment } from "../toolchain/python";

const help = `Usage: npm test [-- OPTIONS]

Runs all checks and tests: format and lint, types, linters of the scripts for machines, unit tests, and the end-to-end
tests on the lab's two machines, which it sets up where they aren't there (\`npm run lab:down\` removes them again).

  --unit           only what needs no lab and no other programs
  --only PATTERN   only checks and tests with PATTERN in their name
  --help           this text

Each check and each test counts as one. The last line is "N passed, N failed"; the exit code is 1 when anything
failed or nothing ran, 2 for a wrong option, 130 after Ctrl-C.
`;

interface Counts {
  passed: number;
  failed: number;
}

const passed: Counts = { passed: 1, failed: 0 };
const failed: Counts = { passed: 0, failed: 1 };

let child: ChildProcess | undefined;
let stopped: NodeJS.Signals | undefined;

interface Finished {
  code: number;
  /** Both outputs, unless they were shown. */
  output: string;
}

/** Runs a program and waits. What it prints is shown at once where `show` is set. */
function start(program: string, args: string[], options: { show?: boolean; env?: NodeJS.ProcessEnv } = {}) {
  return new Promise<Finished>((done) => {
    if (stopped !== undefined) return done({ code: 1, output: "stopped" });
    const running = spawn(program, args, {
      cwd: project,
      env: { ...process.env, ...options.env },
      stdio: options.show ? "inherit" : ["ignore", "pipe", "pipe"],
    });
    child = running;
    const chunks: Buffer[] = [];
    running.stdout?.on("data", (chunk: Buffer) => chunks.push(chunk));
    running.stderr?.on("data", (chunk: Buffer) => chunks.push(chunk));
    const finish = (code: number, words = "") => {
      child = undefined;
      done({ code, output: Buffer.concat(chunks).toString() + words });
    };
    running.on("error", (error) => finish(127, `${program} can't be run: ${error.message}\n`));
    running.on("close", (code) => finish(code ?? 1));
  });
}

/** Runs a program that is a check: its output is shown when it fails. */
async function check(program: string, args: string[]): Promise<Counts> {
  const { code, output } = await start(program, args);
  if (code === 0) return passed;
  process.stdout.write(output);
  return failed;
}

const tool = (name: string) => join(project, "node_modules", ".bin", name);

/** The project's files, without those of other projects and those that are made. */
function projectFiles(folder = project): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      const left = entry.name === "node_modules" || (entry.name.startsWith(".") && entry.name !== ".ci");
      return left ? [] : projectFiles(path);
    }
    return entry.isFile() ? [relative(project, path)] : [];
  });
}

/** Shell scripts by their ending, by their first line, or by what they say to shellcheck. */
export function isShell(name: string, text: string): boolean {
  const [first = ""] = text.split("\n", 1);
  return name.endsWith(".sh") || /^#!.*\b(?:ba|da)?sh\b/.test(first) || first.startsWith("# shellcheck shell=");
}

const shellScripts = () => projectFiles().filter((name) => isShell(name, readFileSync(join(project, name), "utf8")));

let environment: Promise<string> | undefined;

/** The Python environment with the linters, made once and kept in the user's cache. */
function lintEnvironment(): Promise<string> {
  environment ??= pythonEnvironment("lint", "toolchain/lint-requirements.txt");
  return environment;
}

/** Runs the tests of the bucket copy or its policies: with borg, rclone, and servers from PyPI (SeaweedFS, moto). */
async function bucketTests(folder: string, pattern: string | undefined): Promise<Counts> {
  const needed: [name: string, program: string, version: string][] = [
    ["borgbackup", "borg", "--version"],
    ["iproute2", "ip", "-V"],
    ["openssl", "openssl", "version"],
    ["rclone", "rclone", "--version"],
  ];
  const missing: string[] = [];
  for (const [name, program, version] of needed) {
    if ((await start(program, [version])).code !== 0) missing.push(name);
  }
  if (missing.length > 0) await aptInstall(new Logged(join(cacheFolder(), "log")), missing);
  const environment = await pythonEnvironment("bucket-tests", "test/bucket/requirements.txt");
  return unittest(join(environment, "bin", "python"), folder, pattern);
}

const ruff = async (...args: string[]) => check(join(await lintEnvironment(), "bin", "ruff"), [...args, "."]);

/** Counts in what Python's unittest prints last: `Ran 12 tests in 0.1s`, `FAILED (failures=1, errors=2, skipped=3)`. */
export function countUnittest(output: string, code: number): Counts {
  const ran = Number(/^Ran (\d+) tests?/m.exec(output)?.[1] ?? 0);
  const [, summary = ""] = /^(?:OK|FAILED) \((.*)\)\s*$/m.exec(output) ?? [];
  const count = (name: string) => Number(new RegExp(`\\b${name}=(\\d+)`).exec(summary)?.[1] ?? 0);
  const wrong = count("failures") + count("errors") + count("unexpected successes");
  // A run that broke off, or found no test, is a failure that has no number.
  const failed = wrong === 0 && (code !== 0 || ran === 0) ? 1 : wrong;
  return { passed: Math.max(0, ran - wrong - count("skipped")), failed };
}

async function pythonTests(pattern: string | undefined): Promise<Counts> {
  return unittest(join(await lintEnvironment(), "bin", "python"), "test/hosts", pattern);
}

/** Runs the tests in a folder with Python's unittest. */
async function unittest(python: string, folder: string, pattern: string | undefined): Promise<Counts> {
  const only = pattern === undefined ? [] : ["-k", pattern];
  const env = { PYTHONDONTWRITEBYTECODE: "1" };
  const { code, output } = await start(python, ["-m", "unittest", "discover", "-s", folder, "-v", ...only], { env });
  // From Python 3.12 on, a run without a test has an exit code of its own.
  if (/^Ran 0 tests/m.test(output) && pattern !== undefined) return { passed: 0, failed: 0 };
  process.stdout.write(output);
  return countUnittest(output, code);
}

/** Runs mocha's tests in a folder. With `--dry-run` no test and no hook runs, and the counts say how many there are. */
async function mocha(folder: string, pattern: string | undefined, dryRun = false): Promise<Counts> {
  if (!projectFiles().some((name) => name.startsWith(`${folder}/`) && name.endsWith(".test.ts"))) {
    throw new Problem(`there is no test in ${folder}.`);
  }
  const scratch = mkdtempSync(join(tmpdir(), "cht-backup-test-"));
  try {
    const counts = join(scratch, "counts.json");
    const args = ["--require", "tsx/cjs", "--reporter", join(__dirname, "reporter.ts"), "--forbid-only", "--recursive"];
    if (pattern !== undefined) args.push("--fgrep", pattern);
    if (dryRun) args.push("--dry-run");
    args.push("--extension", "test.ts", folder);
    const { code, output } = await start(tool("mocha"), args, { show: !dryRun, env: { TEST_COUNTS: counts } });
    if (!existsSync(counts)) {
      process.stdout.write(output);
      return failed;
    }
    const result: Counts = JSON.parse(readFileSync(counts, "utf8"));
    return code !== 0 && result.failed === 0 ? { ...result, failed: 1 } : result;
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

interface Check {
  name: string;
  /** Holds tests with names of their own, from which `--only` chooses. */
  holdsTests?: boolean;
  needsLab?: boolean;
  run(pattern: string | undefined): Promise<Counts>;
}

const checks: Check[] = [
  { name: "format and lint", run: () => check(tool("biome"), ["ci", "--error-on-warnings"]) },
  { name: "types", run: () => check(tool("tsc"), ["--project", "."]) },
  { name: "Python lint", run: () => ruff("check", "--no-cache") },
  { name: "Python format", run: () => ruff("format", "--no-cache", "--check") },
  {
    name: "shell lint",
    run: async () => check(join(await lintEnvironment(), "bin", "shellcheck"), shellScripts()),
  },
  { name: "Python unit tests", holdsTests: true, run: pythonTests },
  { name: "unit tests", holdsTests: true, run: (pattern) => mocha("test/unit", pattern) },
  { name: "bucket copy", holdsTests: true, needsLab: true, run: (pattern) => bucketTests("test/bucket", pattern) },
  {
    name: "policies at AWS",
    holdsTests: true,
    needsLab: true,
    run: (pattern) => bucketTests("test/policies", pattern),
  },
  { name: "end-to-end tests", holdsTests: true, needsLab: true, run: endToEnd },
];

/**
 * The tests in test/e2e find the lab as `npm run lab` leaves it. That this works, that a second run finds everything, and
 * that `npm run lab:down` leaves nothing are promises too, and count as one test each. A lab that was there stays.
 */
async function endToEnd(pattern: string | undefined): Promise<Counts> {
  if (pattern !== undefined && (await mocha("test/e2e", pattern, true)).passed === 0) return { passed: 0, failed: 0 };
  const wasThere = existsSync(labFolder);
  const lab = await start(process.execPath, ["toolchain/run.mjs", "lab/up.ts"], { show: true });
  if (lab.code !== 0) throw new Problem("the lab can't be set up; its words are above.");
  const counts = [passed, await secondLab(), await mocha("test/e2e", pattern)];
  if (!wasThere) counts.push(await labDown());
  return counts.reduce((sum, one) => ({ passed: sum.passed + one.passed, failed: sum.failed + one.failed }));
}

async function secondLab(): Promise<Counts> {
  const { code, output } = await start(process.execPath, ["toolchain/run.mjs", "lab/up.ts"]);
  if (code === 0 && /^ +0 resources changed$/m.test(output) && !/making the first backup|image/.test(output))
    return passed;
  process.stdout.write(`a second run of the lab made something anew:\n${output}`);
  return failed;
}

async function labDown(): Promise<Counts> {
  const { code } = await start(process.execPath, ["toolchain/run.mjs", "lab/down.ts"], { show: true });
  // An engine that was started for the lab is stopped with it; then there is nothing to ask.
  const lists = [
    ["ps", "--all", "--quiet", "--filter", "name=cht-backup-lab"],
    ["volume", "ls", "--quiet", "--filter", "name=cht-backup-lab"],
    ["images", "--quiet", "--filter", "reference=cht-backup-lab*"],
  ];
  const left = await Promise.all(lists.map(async (list) => start("docker", list)));
  const found = left.filter((list) => list.code === 0 && list.output.trim() !== "").map((list) => list.output);
  if (code === 0 && found.length === 0 && !existsSync(labFolder)) return passed;
  process.stdout.write(`lab:down left something:\n${found.join("")}`);
  return failed;
}

async function runChecks(chosen: Check[], pattern: string | undefined): Promise<Counts> {
  const total: Counts = { passed: 0, failed: 0 };
  for (const { name, holdsTests, run } of chosen) {
    if (stopped !== undefined) break;
    const inName = pattern !== undefined && name.includes(pattern);
    if (pattern !== undefined && !inName && !holdsTests) continue;
    process.stdout.write(`== ${name}\n`);
    const begin = Date.now();
    const counts = await run(inName ? undefined : pattern).catch((error: Error) => {
      process.stdout.write(`${error instanceof Problem ? error.message : error.stack}\n`);
      return failed;
    });
    total.passed += counts.passed;
    total.failed += counts.failed;
    const seconds = ((Date.now() - begin) / 1000).toFixed(1);
    process.stdout.write(`   ${counts.failed === 0 ? "" : "FAILED, "}${counts.passed} passed, ${seconds} s\n`);
  }
  return total;
}

/** Passes a signal on to what runs. A terminal sends Ctrl-C to all of its programs itself. */
function passOn(signal: NodeJS.Signals): void {
  stopped = signal;
  if (signal !== "SIGINT" || !process.stdin.isTTY) child?.kill(signal);
}

function options() {
  try {
    return parseArgs({
      options: { unit: { type: "boolean" }, only: { type: "string" }, help: { type: "boolean", short: "h" } },
    }).values;
  } catch (error) {
    process.stderr.write(`test: ${(error as Error).message.split("\n")[0]}\n\n${help}`);
    return undefined;
  }
}

async function main(): Promise<number> {
  const chosen = options();
  if (chosen === undefined) return 2;
  if (chosen.help) {
    process.stdout.write(help);
    return 0;
  }
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => passOn(signal));
  const total = await runChecks(
    checks.filter(({ needsLab }) => !(chosen.unit && needsLab)),
    chosen.only,
  );
  process.stdout.write(`\n${total.passed} passed, ${total.failed} failed\n`);
  if (stopped !== undefined) return 130;
  return total.failed > 0 || total.passed === 0 ? 1 : 0;
}

if (require.main === module || process.argv[1] === __filename) {
  main().then((code) => {
    process.exitCode = code;
  });
}
