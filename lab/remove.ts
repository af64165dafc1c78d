/** Removes what the lab made in the Docker engine. */
import { existsSync } from "node:fs";
import { run } from "../toolchain/command";
import { Problem, type Progress } from "../toolchain/progress";
import { identityFile } from "./boot";
import { imagePrefix, label, labelName, secondLabel } from "./machines";

const of = (wanted: string) => ["--filter", `label=${wanted}`];

/** Names or ids that `docker` lists, one a line. */
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

/** Removes machines, bucket, volumes and network with a label. */
async function removeMachines(wanted: string): Promise<void> {
  const ours = of(wanted);
  await remove("containers", await list("ps", "--all", "--quiet", ...ours), "rm", "--force", "--volumes");
  await remove("volumes", await list("volume", "ls", "--quiet", ...ours), "volume", "rm");
  await remove("the network", await list("network", "ls", "--quiet", ...ours), "network", "rm");
}

/**
 * Removes the lab and the second one that tests make. Where no other lab is left, then also the images from which all are
 * made, and what an interrupted build left. Says whether there is another.
 */
export async function removeLabs(): Promise<boolean> {
  await removeMachines(label);
  await removeMachines(secondLabel);
  if ((await list("ps", "--all", "--quiet", ...of(labelName))).length > 0) return true;
  const images = ["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", `reference=${imagePrefix}*`];
  await remove("images", await list(...images), "rmi", "--force");
  const unnamed = await list("images", "--quiet", "--filter", "dangling=true", ...of(labelName));
  await remove("images", unnamed, "rmi", "--force");
  return false;
}

/**
 * Removes the machines of a lab whose folder .lab is gone: its keys and its stack were in there, so nobody can use them
 * any more. Machines that run may be those of another checkout, which is working on them: they are refused.
 */
export async function removeForsaken(progress: Progress, identity = identityFile): Promise<void> {
  if (existsSync(identity)) return;
  if ((await list("ps", "--quiet", ...of(label))).length > 0) {
    throw new Problem(
      "a lab runs here that isn't this checkout's. Remove it with `npm run lab:down`, or name this one otherwise in the environment (CHT_BACKUP_LAB=cht-backup-lab-mine).",
    );
  }
  if ((await list("ps", "--all", "--quiet", ...of(label))).length === 0) return;
  await progress.step("removing the machines of a lab whose folder .lab is gone", () => removeMachines(label));
}
