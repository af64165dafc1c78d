/**
 * The Pulumi CLI: the one on PATH; else the one that npm's official package `pulumi` downloads. Where neither can be had,
 * as on a closed network, `offline/build-cli.ts` builds one. What was got once is kept in the user's cache.
 */
import { accessSync, constants, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { Logged, run } from "./command";
import { buildCli, builtCliFolder } from "./offline/build-cli";
import { cacheFolder, labFolder } from "./paths";
import { Problem, type Progress } from "./progress";
import { isAtLeast } from "./versions";

/** `--expect-no-changes` exits 7 on drift since this version. */
export const minimumVersion = "3.227.0";
/** Of npm's package, which names the CLI's release that it downloads. */
const npmVersion = "3.265.0";

const languageHost = "pulumi-language-nodejs";

/** A CLI that can run this project's program. */
export interface Cli {
  /** Absolute path of the program `pulumi`. */
  command: string;
  /** The folder whose programs it has to find: its language host. */
  folder: string;
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

/**
 * Asking a CLI for its version takes as long as a short preview, so the answer is kept as long as the file is the same;
 * none is asked for again. "0" where there is none.
 */
async function versionOf(command: string): Promise<string> {
  const record = join(cacheFolder(), "pulumi-on-path.json");
  const { size, mtimeMs } = statSync(command);
  const identity = `${command} ${size} ${mtimeMs}`;
  try {
    const known = JSON.parse(readFileSync(record, "utf8")) as { identity: string; version: string };
    // Earlier versions kept "0", too.
    if (known.identity === identity && known.version !== "0") return known.version;
  } catch {
    // Not asked yet, or the record is damaged: it is written anew.
  }
  const answer = await run(command, ["version"], {
    env: { ...process.env, PULUMI_SKIP_UPDATE_CHECK: "true" },
    timeoutMs: 120_000,
  });
  if (answer.code !== 0) return "0";
  const version = answer.stdout.trim();
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

/** The CLI that is there already, or undefined. It asks no network. */
export async function findCli(): Promise<Cli | undefined> {
  const command = onPath("pulumi");
  const host = onPath(languageHost);
  if (command !== undefined) {
    const folder = executable(join(dirname(command), languageHost)) ? dirname(command) : host && dirname(host);
    if (folder && isAtLeast(await versionOf(command), minimumVersion)) return { command, folder };
  }
  return complete(npmFolder()) ?? complete(builtCliFolder());
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
  const folder = await buildCli(progress, logged);
  const built = complete(folder);
  if (built === undefined) throw new Problem(`the Pulumi CLI was built, but ${folder} doesn't hold it.`);
  return built;
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
