/** Python environments for tools that run on this computer, from locked requirements. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lastLines, run } from "./command";
import { cacheFolder, project } from "./paths";
import { Problem } from "./progress";

/**
 * The folder of a virtual environment with what a requirements file of the project locks, made once and kept in the
 * user's cache. Throws a `Problem` where it can't be made.
 * @param requirements path in the project, every requirement with its version and hashes
 */
export async function pythonEnvironment(name: string, requirements: string): Promise<string> {
  const lock = join(project, requirements);
  const python = await run("python3", ["--version"]);
  if (python.code !== 0) throw new Problem("Python 3.10 or newer is needed: install python3 and python3-venv.");
  const hash = createHash("sha256").update(readFileSync(lock)).update(python.stdout).digest("hex").slice(0, 12);
  const folder = join(cacheFolder(), `${name}-${hash}`);
  const complete = join(folder, "complete");
  if (existsSync(complete)) return folder;
  // What an interrupted run left is not to be trusted.
  rmSync(folder, { recursive: true, force: true });
  let made = await run("python3", ["-m", "venv", folder]);
  if (made.code !== 0 && process.getuid?.() === 0 && existsSync("/usr/bin/apt-get")) {
    process.stderr.write("  installing python3-venv (apt-get install), which makes Python environments\n");
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    await run("apt-get", ["update", "-q"], { env });
    await run("apt-get", ["install", "-y", "-q", "python3-venv"], { env });
    rmSync(folder, { recursive: true, force: true });
    made = await run("python3", ["-m", "venv", folder]);
  }
  if (made.code !== 0) {
    throw new Problem(`no Python environment can be made: install python3-venv.\n${lastLines(made.stderr)}`);
  }
  const options = ["--disable-pip-version-check", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:"];
  const installed = await run(join(folder, "bin", "pip"), ["install", ...options, "--requirement", lock]);
  if (installed.code !== 0) throw new Problem(`${requirements} can't be installed:\n${lastLines(installed.stderr)}`);
  writeFileSync(complete, "");
  return folder;
}
