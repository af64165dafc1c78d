/** Python environments for tools that run on this computer, from locked requirements. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lastLines, run } from "./command";
import { cacheFolder, project } from "./paths";
import { Problem } from "./progress";

export interface EnvironmentOptions {
  /** The Python that it is made of. Default: the first one on the path. */
  python?: string;
  /**
   * Another requirements file, locked as well, of what builds those packages that are published as source alone (borg).
   * Default: nothing is built, and a package without a wheel is an error.
   */
  build?: string;
}

/**
 * The folder of a virtual environment with what a requirements file of the project locks, made once and kept in the
 * user's cache. Throws a `Problem` where it can't be made.
 * @param requirements path in the project, every requirement with its version and hashes
 */
export async function pythonEnvironment(
  name: string,
  requirements: string,
  { python = "python3", build }: EnvironmentOptions = {},
): Promise<string> {
  const locks = [requirements, ...(build === undefined ? [] : [build])].map((lock) => join(project, lock));
  const version = await run(python, ["--version"]);
  if (version.code !== 0) throw new Problem("Python 3.10 or newer is needed: install python3 and python3-venv.");
  const hash = createHash("sha256");
  for (const lock of locks) hash.update(readFileSync(lock));
  hash.update(version.stdout);
  const folder = join(cacheFolder(), `${name}-${hash.digest("hex").slice(0, 12)}`);
  const complete = join(folder, "complete");
  if (existsSync(complete)) return folder;
  // What an interrupted run left is not to be trusted.
  rmSync(folder, { recursive: true, force: true });
  let made = await run(python, ["-m", "venv", folder]);
  if (made.code !== 0 && process.getuid?.() === 0 && existsSync("/usr/bin/apt-get")) {
    process.stderr.write("  installing python3-venv (apt-get install), which makes Python environments\n");
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    await run("apt-get", ["update", "-q"], { env });
    await run("apt-get", ["install", "-y", "-q", "python3-venv"], { env });
    rmSync(folder, { recursive: true, force: true });
    made = await run(python, ["-m", "venv", folder]);
  }
  if (made.code !== 0) {
    throw new Problem(`no Python environment can be made: install python3-venv.\n${lastLines(made.stderr)}`);
  }
  const pip = async (lock: string, how: string[]) => {
    const options = ["--disable-pip-version-check", "--quiet", "--require-hashes", "--no-deps", ...how];
    const file = join(project, lock);
    const installed = await run(join(folder, "bin", "pip"), ["install", ...options, "--requirement", file]);
    if (installed.code !== 0) throw new Problem(`${lock} can't be installed:\n${lastLines(installed.stderr)}`);
  };
  const wheels = ["--only-binary", ":all:"];
  if (build !== undefined) await pip(build, wheels);
  // Without isolation, what builds is what is locked, not what is newest today.
  await pip(requirements, build === undefined ? wheels : ["--no-build-isolation"]);
  writeFileSync(complete, "");
  return folder;
}
