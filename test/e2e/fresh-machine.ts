/** Empty machines: beside the lab's own, as an operator rents one on the worst day, and in the place of those destroyed. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { authorize, create, ensureMachines, identityFile } from "../../lab/boot";
import { deployedImages, ensureDrillNetwork, load } from "../../lab/cht";
import {
  type AnyMachine,
  addressOf,
  containerOf,
  dockerVolume,
  type ExtraMachine,
  type Machine,
  machines,
  start,
} from "../../lab/machines";
import { writeSettings } from "../../lab/stack";
import { Logged, type Result, run } from "../../toolchain/command";
import { labFolder, project } from "../../toolchain/paths";
import { Progress } from "../../toolchain/progress";
import { python } from "./backup";

export interface FreshMachine {
  /** `user@address`. */
  destination: string;
  /** Options of the operator's commands that log in there. */
  login: string[];
  /** Runs `npm run restore` to there, as an operator does, with these options. */
  restore(...options: string[]): Promise<Result>;
  /** The same from the bucket. */
  fromBucket(...options: string[]): Promise<Result>;
  /** Removes the machine with all that is on it, but the CHT machine, which is the lab's. */
  remove(): Promise<void>;
}

const volumeOf = (machine: ExtraMachine | "cht") => (machine === "cht" ? dockerVolume : `${dockerVolume}-${machine}`);

/** Destroys a machine with its disk, and all that was ever on it. */
async function remove(machine: AnyMachine): Promise<void> {
  await run("docker", ["rm", "--force", "--volumes", containerOf(machine)]);
  if (machine !== "server") await run("docker", ["volume", "rm", volumeOf(machine)]);
}

const logged = () => new Logged(join(labFolder, "log"));

/** Puts the CHT's images into the machine's Docker engine. */
export async function loadImages(machine: ExtraMachine): Promise<void> {
  const images = await deployedImages();
  assert.ok(images);
  await load(machine, [images.nginx, images.couchdb], logged());
}

/** Makes an empty machine with a Docker engine that holds the CHT's images: no registry can be reached from it. */
export async function freshMachine(machine: ExtraMachine): Promise<FreshMachine> {
  await remove(machine);
  await create(machine, await imageOf("cht"), volumeOf(machine), logged());
  await start(machine);
  await authorize(machine);
  await loadImages(machine);
  return reach(machine);
}

const imageOf = async (machine: Machine) =>
  (await run("docker", ["inspect", "--format", "{{.Config.Image}}", containerOf(machine)])).stdout.trim();

/** Machines of the lab that are gone, and what follows for an operator. */
export interface Destroyed {
  /** Another CHT machine, empty, with another host key, of which the stack doesn't know yet. */
  newCht(): Promise<FreshMachine>;
  /** Makes those that are still missing, empty, and tells the stack where all are and of their host keys. */
  tellStack(): Promise<void>;
  /** The lab as it was made first, whatever became of a test: without a backup of its own. */
  anew(): Promise<void>;
}

/** Destroys machines of the lab, as a fire does. */
export async function destroy(...gone: Machine[]): Promise<Destroyed> {
  const images = await deployedImages();
  assert.ok(images);
  const [cht = "", machine = ""] = await Promise.all(machines.map(imageOf));
  await Promise.all(gone.map(remove));
  return {
    async newCht() {
      await create("cht", cht, dockerVolume, logged());
      await start("cht");
      await authorize("cht");
      await load("cht", [images.nginx, images.couchdb], logged());
      return reach("cht");
    },
    async tellStack() {
      writeSettings(await ensureMachines({ machine, cht }, new Progress(() => undefined), logged()));
      await ensureDrillNetwork("cht");
    },
    async anew() {
      await Promise.all(gone.map(remove));
      const lab = await run("npm", ["run", "-s", "lab"], { cwd: project });
      assert.equal(lab.code, 0, lab.stderr);
    },
  };
}

/** How an operator reaches a machine that no stack knows. */
async function reach(machine: ExtraMachine | "cht"): Promise<FreshMachine> {
  const folder = mkdtempSync(join(tmpdir(), `cht-backup-${machine}-`));
  // The machine is new, and so is its host key: an operator confirms it at the first login.
  const sshConfig = join(folder, "ssh_config");
  writeFileSync(sshConfig, `Host *\n  UserKnownHostsFile ${join(folder, "known_hosts")}\n`);
  const destination = `ubuntu@${await addressOf(machine)}`;
  const login = ["--identity-file", identityFile, "--ssh-config", sshConfig];
  const restore = (from: string, options: string[]) => {
    const words = ["--stack", "lab", "--from", from, "--to", destination, ...login, ...options];
    return run("npm", ["run", "-s", "restore", "--", ...words], { cwd: project, timeoutMs: 400_000 });
  };
  return {
    destination,
    login,
    restore: (...options) => restore("server", options),
    fromBucket: (...options) => restore("bucket", options),
    async remove() {
      rmSync(folder, { recursive: true });
      if (machine !== "cht") await remove(machine);
    },
  };
}

const volumes = "/var/lib/docker/volumes";
const roots = ["/home/ubuntu/cht", `${volumes}/cht_cht-credentials/_data`, `${volumes}/cht_cht-ssl/_data`];

/** Everything of a CHT on a machine: content, owners and modes by path. */
export async function tree(machine: "cht" | ExtraMachine): Promise<Record<string, Record<string, unknown>>> {
  const listed = await python(machine, "tree.py", [], JSON.stringify({ roots }));
  assert.equal(listed.code, 0, listed.stderr);
  return JSON.parse(listed.stdout);
}
