/** A machine as a cloud makes it: it boots, is told by its user data what it is, and a disk is attached while it runs. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type FirstBoot, userData, volumeDevices } from "../../components/user-data";
import { create, identityFile } from "../../lab/boot";
import { ensureCloudImage } from "../../lab/images";
import { addressOf, containerOf, exec, label, output, waitFor } from "../../lab/machines";
import { Logged, type Result, run } from "../../toolchain/command";
import { labFolder } from "../../toolchain/paths";
import { Progress } from "../../toolchain/progress";

const machine = "cloud";
const name = containerOf(machine);
/** Its container. */
export const cloudMachine = name;
const diskVolume = `${name}-disk`;
/** Numbers of the disks that the machine has, also at its next boot. */
const attachedDisks = "etc/lab-disks";
const logged = () => new Logged(join(labFolder, "log"));

async function docker(...args: string[]): Promise<string> {
  const result = await run("docker", args, { timeoutMs: 480_000 });
  assert.equal(result.code, 0, `docker ${args[0]}: ${result.stderr}`);
  return result.stdout.trim();
}

let images: Promise<string> | undefined;

/** The machine's image, built where it is missing. */
function image(): Promise<string> {
  const from = () => docker("inspect", "--format", "{{.Config.Image}}", containerOf("server"));
  images ??= from().then((server) => ensureCloudImage(server, new Progress(() => undefined), logged()));
  return images;
}

/** Runs a script beside the engine, where loop devices are made. */
async function besideEngine(script: string, ...more: string[]): Promise<string> {
  const rights = ["--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"];
  const devices = ["--device=/dev/loop-control", "--device-cgroup-rule=b 7:* rwm"];
  return docker("run", "--rm", "--label", label, ...rights, ...devices, ...more, await image(), "sh", "-euc", script);
}

/** The disk's content for such a script. */
const diskFile = `/disk/${diskVolume}`;
const withDisk = ["--volume", `${diskVolume}:/disk`];

/** A disk to attach: a loop device. */
export interface Disk {
  /** Number of the loop device. */
  number: number;
}

/** Detaches the disk, and removes it; also that of a run that was cut off, whose file may be gone. */
async function removeDisk(): Promise<void> {
  await besideEngine(`
for backing in /sys/block/loop*/loop/backing_file; do
  case $(cat "$backing" 2>/dev/null || true) in
    */${diskVolume} | */${diskVolume}\\ *)
      loop=$(basename "$(dirname "$(dirname "$backing")")")
      [ -b "/dev/$loop" ] || mknod "/dev/$loop" b 7 "\${loop#loop}"
      losetup -d "/dev/$loop" ;;
  esac
done`);
  await run("docker", ["volume", "rm", diskVolume]);
}

/** Makes a blank disk. */
export async function blankDisk(mebibytes: number): Promise<Disk> {
  await removeCloud();
  await docker("volume", "create", "--label", label, diskVolume);
  const number = await besideEngine(
    `
truncate -s ${mebibytes}M ${diskFile}
loop=$(losetup -f | cut -d' ' -f1)
[ -b "$loop" ] || mknod "$loop" b 7 "\${loop#/dev/loop}"
losetup "$loop" ${diskFile}
echo "\${loop#/dev/loop}"`,
    ...withDisk,
  );
  return { number: Number(number) };
}

/**
 * Does something to a disk that isn't mounted; in the script it is `$disk`, and its content the file `$content`.
 * @returns the script's output
 */
export function onDisk({ number }: Disk, script: string): Promise<string> {
  const names = `disk=/dev/loop${number}; content=${diskFile}; [ -b "$disk" ] || mknod "$disk" b 7 ${number}`;
  return besideEngine(`${names}\n${script}`, ...withDisk);
}

/** The user data of the cloud's machine, with the lab's operator let in. */
export async function firstBoot(more: Partial<FirstBoot> = {}): Promise<FirstBoot> {
  const folder = mkdtempSync(join(tmpdir(), "cht-backup-host-key-"));
  try {
    const file = join(folder, "key");
    const made = await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file]);
    assert.equal(made.code, 0, made.stderr);
    const publicKey = readFileSync(`${file}.pub`, "utf8").trim();
    return {
      adminUser: "cht-admin",
      operatorKeys: [readFileSync(`${identityFile}.pub`, "utf8").trim()],
      hostKey: { privateKey: readFileSync(file, "utf8"), publicKey },
      dataDirectory: "/srv/cht-backup",
      volumeDevices: volumeDevices("vol-0123"),
      waitSeconds: 60,
      ...more,
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

let growing: Promise<boolean> | undefined;

/** Whether a container may be given the right to grow a file system that is mounted: some engines don't have it themselves. */
export function canGrow(): Promise<boolean> {
  const tried = async () => run("docker", ["run", "--rm", "--cap-add=SYS_RESOURCE", await image(), "true"]);
  growing ??= tried().then(({ code }) => code === 0);
  return growing;
}

/**
 * Makes the machine and powers it on. It is not up yet.
 * @param boot what it is told, or its user data
 */
export async function launch(
  boot: FirstBoot | string,
  disk: Disk,
  options: { id: string; attached: boolean },
): Promise<void> {
  await run("docker", ["rm", "--force", "--volumes", name]);
  const more = [
    // For `chattr +i`.
    "--cap-add=LINUX_IMMUTABLE",
    ...((await canGrow()) ? ["--cap-add=SYS_RESOURCE"] : []),
    `--device-cgroup-rule=b 7:${disk.number} rwm`,
  ];
  await create(machine, await image(), undefined, logged(), more);
  const folder = mkdtempSync(join(tmpdir(), "cht-backup-seed-"));
  try {
    const files: Record<string, string> = {
      "var/lib/cloud/seed/nocloud/user-data": typeof boot === "string" ? boot : userData(boot),
      "var/lib/cloud/seed/nocloud/meta-data": `instance-id: ${options.id}\n`,
      // What udev's own rules do for a volume over NVMe.
      "etc/udev/rules.d/90-lab.rules": `KERNEL=="loop${disk.number}", SYMLINK+="disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123"\n`,
      ...(options.attached ? { [attachedDisks]: `${disk.number}\n` } : {}),
    };
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      writeFileSync(join(folder, file), text, { mode: file.endsWith("user-data") ? 0o600 : 0o644 });
    }
    await docker("cp", `${folder}/.`, `${name}:/`);
  } finally {
    rmSync(folder, { recursive: true });
  }
  await docker("start", name);
}

/** Attaches the disk to the running machine. */
export async function attach({ number }: Disk): Promise<void> {
  await output(machine, `echo ${number} >/${attachedDisks} && systemctl restart lab-disks.service`);
}

/** Waits for the end of the first boot. @returns what cloud-init says of it */
export async function bootEnded(): Promise<{ status: string; errors: string[] }> {
  const result = await exec(machine, "cloud-init status --wait --format json", { timeoutMs: 360_000 });
  assert.match(result.stdout, /\{/, result.stderr);
  return JSON.parse(result.stdout.slice(result.stdout.indexOf("{")));
}

/** Shuts the machine down, does something, and powers it on again. */
export async function reboot(meanwhile?: () => Promise<unknown>): Promise<void> {
  await docker("stop", "--time", "60", name);
  await meanwhile?.();
  await docker("start", name);
  const booted = await waitFor(async () => {
    const state = await exec(machine, "systemctl is-system-running", { timeoutMs: 40_000 });
    return /^(running|degraded)/.test(state.stdout);
  }, 270_000);
  assert.ok(booted, "the machine didn't come up again");
}

/** One try to log in and run a command, with the host key of the stack and no other. */
export async function login(
  boot: FirstBoot,
  command: string,
  options: string[] = [],
  user = boot.adminUser,
): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), "cht-backup-login-"));
  try {
    const known = join(folder, "known_hosts");
    writeFileSync(known, `server ${boot.hostKey.publicKey}\n`);
    const pinned = [
      "-o",
      "HostKeyAlias=server",
      "-o",
      `UserKnownHostsFile=${known}`,
      "-o",
      "StrictHostKeyChecking=yes",
    ];
    const self = ["-F", "none", "-i", identityFile, "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=30"];
    const where = `${user}@${await addressOf(machine)}`;
    return await run("ssh", [...self, ...pinned, "-o", "BatchMode=yes", ...options, where, command], {
      timeoutMs: 120_000,
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Tries to log in until it works. @returns what the tries before said, each once */
export async function firstLogin(boot: FirstBoot): Promise<string[]> {
  const words = new Set<string>();
  const arrived = await waitFor(async () => {
    const result = await login(boot, "true");
    if (result.code !== 0) words.add(result.stderr.trim());
    return result.code === 0;
  }, 300_000);
  assert.ok(arrived, `nobody can log in: ${[...words].join("\n")}`);
  return [...words];
}

/** Removes the machine and its disk. */
export async function removeCloud(): Promise<void> {
  await run("docker", ["rm", "--force", "--volumes", name]);
  await removeDisk();
}
