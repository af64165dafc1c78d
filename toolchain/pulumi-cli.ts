/**
 * The Pulumi CLI: the one on PATH; else the one that npm's official package `pulumi` downloads; else one built
 * from Go modules, which needs nothing but the module proxy. What was got once is kept in the user's cache.
 */
import {
  accessSync,
  constants,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { Logged, run } from "./command";
import { aptInstall, distribution } from "./engine";
import { cacheFolder, labFolder, project } from "./paths";
import { Problem, type Progress } from "./progress";

/** `--expect-no-changes` exits 7 on drift since this version. */
export const minimumVersion = "3.227.0";
/** Of npm's package, which names the CLI's release that it downloads. */
const npmVersion = "3.265.0";
/** Of the CLI built from Go modules; `toolchain/go` pins it and all it is made of. */
const goVersion = "3.230.0";
/** Older ones of Go can't fetch the newer one that the modules ask for. */
const minimumGo = "1.21";

const languageHost = "pulumi-language-nodejs";

/** A CLI that can run this project's program. */
export interface Cli {
  /** Absolute path of the program `pulumi`. */
  command: string;
  /** The folder whose programs it has to find: its language host. */
  folder: string;
}

/** Whether dotted version `a` is `b` or newer. Only the numbers count; a leading `v` or `go` doesn't. */
export function isAtLeast(a: string, b: string): boolean {
  const numbers = (text: string) => (text.match(/\d+(\.\d+)*/)?.[0] ?? "0").split(".").map(Number);
  const [left, right] = [numbers(a), numbers(b)];
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}

function executable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

function onPath(program: string): string | undefined {
  const folders = (process.env.PATH ?? "").split(delimiter).filter((folder) => folder.startsWith("/"));
  return folders.map((folder) => join(folder, program)).find(executable);
}

/** Asking a CLI for its version takes as long as a short preview, so the answer is kept as long as the file is the same. */
async function versionOf(command: string): Promise<string> {
  const record = join(cacheFolder(), "pulumi-on-path.json");
  const { size, mtimeMs } = statSync(command);
  const identity = `${command} ${size} ${mtimeMs}`;
  try {
    const known = JSON.parse(readFileSync(record, "utf8")) as { identity: string; version: string };
    if (known.identity === identity) return known.version;
  } catch {
    // Not asked yet, or the record is damaged: it is written anew.
  }
  const answer = await run(command, ["version"], {
    env: { ...process.env, PULUMI_SKIP_UPDATE_CHECK: "true" },
    timeoutMs: 30_000,
  });
  const version = answer.code === 0 ? answer.stdout.trim() : "0";
  mkdirSync(cacheFolder(), { recursive: true });
  writeFileSync(`${record}.${process.pid}`, JSON.stringify({ identity, version }));
  renameSync(`${record}.${process.pid}`, record);
  return version;
}

function complete(folder: string): Cli | undefined {
  const command = join(folder, "pulumi");
  return executable(command) && executable(join(folder, languageHost)) ? { command, folder } : undefined;
}

/** Where npm's package puts the CLI. */
function npmFolder(): string {
  return join(process.env.PULUMI_HOME || join(homedir(), ".pulumi"), "versions", npmVersion, "bin");
}

function goFolder(): string {
  return join(cacheFolder(), `pulumi-${goVersion}`, "bin");
}

/** The CLI that is there already, or undefined. It asks no network. */
export async function findCli(): Promise<Cli | undefined> {
  const command = onPath("pulumi");
  const host = onPath(languageHost);
  if (command !== undefined) {
    const folder = executable(join(dirname(command), languageHost)) ? dirname(command) : host && dirname(host);
    if (folder && isAtLeast(await versionOf(command), minimumVersion)) return { command, folder };
  }
  const downloaded = complete(npmFolder());
  if (downloaded !== undefined) return downloaded;
  const built = complete(goFolder());
  if (built !== undefined) wrapLanguageHost(built.folder);
  return built;
}

/** Puts the script before the built language host that gives it its options: see there. Done once. */
function wrapLanguageHost(folder: string): void {
  const host = join(folder, languageHost);
  if (existsSync(`${host}-built`)) return;
  // In this order and by renaming: another process may be starting it now.
  const script = `${host}.${process.pid}`;
  copyFileSync(join(project, "toolchain", "go", languageHost), script);
  linkSync(host, `${host}-built`);
  renameSync(script, host);
}

/** The CLI, got in the first way that works. */
export async function ensureCli(progress: Progress): Promise<Cli> {
  const found = await findCli();
  if (found !== undefined) return found;
  mkdirSync(labFolder, { recursive: true, mode: 0o700 });
  const logged = new Logged(join(labFolder, "log"));
  const downloaded = await progress.step("getting the Pulumi CLI by npm's package", () => fromNpm(logged));
  if (downloaded !== undefined) return downloaded;
  progress.note("its download can't be reached: the CLI is built from Go modules, once (some minutes)");
  return fromGo(progress, logged);
}

async function fromNpm(logged: Logged): Promise<Cli | undefined> {
  const folder = join(cacheFolder(), `npm-pulumi-${npmVersion}`);
  mkdirSync(folder, { recursive: true });
  const log = join(logged.folder, "pulumi-cli.log");
  const installed = await run(
    "npm",
    ["install", "--ignore-scripts", "--no-fund", "--no-audit", "--prefix", folder, `pulumi@${npmVersion}`],
    { cwd: folder, timeoutMs: 60_000, log },
  );
  if (installed.code !== 0) return undefined;
  // A download of some 150 MB where it works; where it can't, it fails at once or hangs.
  const wrapper = join(folder, "node_modules", "pulumi", "run.js");
  const env = { ...process.env, PULUMI_VERSION: npmVersion, PULUMI_SKIP_UPDATE_CHECK: "true" };
  const version = await run(process.execPath, [wrapper, "version"], { env, timeoutMs: 300_000, log });
  return version.code === 0 ? complete(npmFolder()) : undefined;
}

/** How Go is got, decided from what is there. */
export function goPlan(now: {
  /** What `go env GOVERSION` says, or undefined. */
  installed: string | undefined;
  root: boolean;
  debian: boolean;
  /** The version of the package golang-go that apt offers, or undefined. */
  offered: string | undefined;
}): "use" | "install" | { refuse: string } {
  if (now.installed !== undefined && isAtLeast(now.installed, minimumGo)) return "use";
  const offered = now.offered?.replace(/^\d+:/, "");
  if (now.root && now.debian && offered !== undefined && isAtLeast(offered, minimumGo)) return "install";
  const old = now.installed === undefined ? "" : ` (${now.installed} is too old)`;
  return {
    refuse:
      `the Pulumi CLI can neither be downloaded nor built. Install it (https://www.pulumi.com/docs/install/), ` +
      `or Go ${minimumGo} or newer to build it${old}.`,
  };
}

async function ensureGo(progress: Progress, logged: Logged): Promise<void> {
  const version = await run("go", ["env", "GOVERSION"], { env: { ...process.env, GOTOOLCHAIN: "local" } });
  const ids = existsSync("/etc/os-release") ? distribution(readFileSync("/etc/os-release", "utf8")) : [];
  const debian = ids.includes("debian") || ids.includes("ubuntu");
  const policy = debian
    ? await run("apt-cache", ["policy", "golang-go"], { env: { ...process.env, LC_ALL: "C" } })
    : undefined;
  const decision = goPlan({
    installed: version.code === 0 ? version.stdout.trim() : undefined,
    root: process.getuid?.() === 0,
    debian,
    offered: policy?.stdout.match(/Candidate: (\d\S*)/)?.[1],
  });
  if (decision === "use") return;
  if (decision !== "install") throw new Problem(decision.refuse);
  await progress.step("installing Go (apt-get install golang-go)", () =>
    aptInstall(logged, ["golang-go", "ca-certificates"]),
  );
}

async function fromGo(progress: Progress, logged: Logged): Promise<Cli> {
  await ensureGo(progress, logged);
  const folder = goFolder();
  const made = `${folder}.new`;
  rmSync(made, { recursive: true, force: true });
  mkdirSync(made, { recursive: true });
  // `auto` fetches a newer Go as a module where the modules ask for one.
  const env = { ...process.env, GOTOOLCHAIN: "auto", GOFLAGS: "-buildvcs=false", GOWORK: "off", CGO_ENABLED: "0" };
  const build = (modules: string, module: string, program: string, flags: string) =>
    logged.run(
      "pulumi-cli",
      "go",
      ["build", "-trimpath", "-mod=readonly", "-ldflags", `-s -w ${flags}`, "-o", join(made, program), module],
      { cwd: join(project, "toolchain", "go", modules), env },
    );
  await progress.step(`building the Pulumi CLI ${goVersion} from Go modules`, async () => {
    const version = `-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v${goVersion}`;
    await build("cli", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi", "pulumi", version);
    await build("language-host", `github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/${languageHost}`, languageHost, version);
  });
  rmSync(folder, { recursive: true, force: true });
  renameSync(made, folder);
  const cli = complete(folder);
  if (cli === undefined) throw new Problem(`the Pulumi CLI was built, but ${folder} doesn't hold it.`);
  wrapLanguageHost(folder);
  return cli;
}
