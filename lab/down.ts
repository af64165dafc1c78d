/** `npm run lab:down`: removes everything that `npm run lab` made, and nothing else. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { run } from "../toolchain/command";
import { engineAnswers, ensureEngine, stopEngine } from "../toolchain/engine";
import { main, onInterrupt } from "../toolchain/main";
import { labFolder } from "../toolchain/paths";
import { Problem, Progress } from "../toolchain/progress";
import { takeLock } from "./lock";
import { imagePrefix, label } from "./machines";
import { stackFile } from "./stack";

const help = `Usage: npm run lab:down

Removes the lab: its containers, volumes, network, images, the Docker engine if \`npm run lab\` started it, the folder
.lab and Pulumi.lab.yaml. Installed packages and the Pulumi CLI in the user's cache stay.
Exit codes: 0 nothing of the lab is left, 1 something couldn't be removed.
`;

/** Names or ids that \`docker\` lists, one a line. */
async function list(...args: string[]): Promise<string[]> {
  const result = await run("docker", args);
  if (result.code !== 0) throw new Problem(`docker ${args.join(" ")}: ${result.stderr.trim()}`);
  return [...new Set(result.stdout.split("\n").filter((line) => line !== ""))];
}

async function remove(what: string, names: readonly string[], ...command: string[]): Promise<void> {
  if (names.length === 0) return;
  const result = await run("docker", [...command, ...names]);
  // What another process removed in between is gone, and that is what was wanted.
  const failed = result.stderr.split("\n").filter((line) => /error/i.test(line) && !/no such/i.test(line));
  if (result.code !== 0 && failed.length > 0) throw new Problem(`${what} can't be removed: ${failed.join("; ")}`);
}

async function removeFromEngine(): Promise<void> {
  const ours = ["--filter", `label=${label}`];
  await remove("containers", await list("ps", "--all", "--quiet", ...ours), "rm", "--force", "--volumes");
  await remove("volumes", await list("volume", "ls", "--quiet", ...ours), "volume", "rm");
  await remove("the network", await list("network", "ls", "--quiet", ...ours), "network", "rm");
  const images = ["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", `reference=${imagePrefix}*`];
  await remove("images", await list(...images), "rmi", "--force");
  // What an interrupted build left without a name.
  const unnamed = await list("images", "--quiet", "--filter", "dangling=true", ...ours);
  await remove("images", unnamed, "rmi", "--force");
}

void main("lab:down", async () => {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(help);
    return 0;
  }
  if (args.length > 0) throw new Problem(`${args[0]} is no option of this: it takes none.`);
  const existed = existsSync(labFolder) || existsSync(stackFile);
  const release = takeLock();
  onInterrupt("Stopped. `npm run lab:down` goes on from here.", release);
  try {
    const progress = new Progress();
    const answers = await engineAnswers();
    // Images and machines exist only where they were begun; otherwise no engine has to be started to look.
    if (!answers && existsSync(join(labFolder, "build"))) await ensureEngine(progress);
    if (answers || existsSync(join(labFolder, "build"))) {
      await progress.step("removing machines, volumes, network and images", removeFromEngine);
    }
    if (await stopEngine()) progress.note("the Docker engine that was started for the lab is stopped");
    rmSync(stackFile, { force: true });
    rmSync(labFolder, { recursive: true, force: true });
    process.stdout.write(existed ? "The lab is removed.\n" : "There was no lab.\n");
    return 0;
  } finally {
    release();
  }
});
