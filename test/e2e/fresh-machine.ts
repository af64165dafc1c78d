/** An empty machine beside the lab's own, as an operator rents one on the worst day. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { authorize, create, identityFile } from "../../lab/boot";
import { deployedImages, load } from "../../lab/cht";
import { addressOf, containerOf, dockerVolume, type ExtraMachine, start } from "../../lab/machines";
import { Logged, type Result, run } from "../../toolchain/command";
import { labFolder, project } from "../../toolchain/paths";
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
  /** Removes the machine with all that is on it. */
  remove(): Promise<void>;
}

const volumeOf = (machine: ExtraMachine) => `${dockerVolume}-${machine}`;

async function remove(machine: ExtraMachine): Promise<void> {
  await run("docker", ["rm", "--force", "--volumes", containerOf(machine)]);
  await run("docker", ["volume", "rm", volumeOf(machine)]);
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
  const folder = mkdtempSync(join(tmpdir(), `cht-backup-${machine}-`));
  const image = await run("docker", ["inspect", "--format", "{{.Config.Image}}", containerOf("cht")]);
  await create(machine, image.stdout.trim(), volumeOf(machine), logged());
  await start(machine);
  await authorize(machine);
  await loadImages(machine);
  // The machine is new, and so is its host key: an operator confirms it at the first login.
  const sshConfig = join(folder, "ssh_config");
  writeFileSync(sshConfig, `Host *\n  UserKnownHostsFile ${join(folder, "known_hosts")}\n`);
  const destination = `ubuntu@${await addressOf(machine)}`;
  const login = ["--identity-file", identityFile, "--ssh-config", sshConfig];
  const restore = (from: string, options: string[]) => {
    const words = ["--stack", "lab", "--from", from, "--to", destination, ...login, ...options];
    return run("npm", ["run", "-s", "restore", "--", ...words], { cwd: project, timeoutMs: 100_000 });
  };
  return {
    destination,
    login,
    restore: (...options) => restore("server", options),
    fromBucket: (...options) => restore("bucket", options),
    async remove() {
      rmSync(folder, { recursive: true });
      await remove(machine);
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
