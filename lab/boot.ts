/** Makes and starts the lab's machines. */
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Logged, run } from "../toolchain/command";
import { labFolder } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import type { Images } from "./images";
import {
  type AnyMachine,
  addressOf,
  containerOf,
  dockerVolume,
  label,
  type Machine,
  machines,
  nameOf,
  network,
  output,
  stateOf,
  waitFor,
  waitUntilUp,
} from "./machines";

/** The private key with which the operator of the lab logs in; the public one is beside it. */
export const identityFile = join(labFolder, "id_ed25519");

/** How a machine is reached over SSH. */
export interface Reached {
  address: string;
  user: string;
  /** The machine's Ed25519 host key, `ssh-ed25519 AAAA…`. */
  hostKey: string;
}

/** Who logs in there. */
const userOf = (machine: AnyMachine) => (machine === "server" ? "root" : "ubuntu");

/** Whether all machines are there, running or not. */
export async function machinesExist(): Promise<boolean> {
  const states = await Promise.all(machines.map(stateOf));
  return states.every((state) => state !== undefined);
}

/** Makes the lab's own SSH key where it is missing. */
export async function ensureIdentity(logged: Logged): Promise<void> {
  if (existsSync(identityFile) && existsSync(`${identityFile}.pub`)) return;
  if ((await run("ssh", ["-V"])).code !== 0) {
    throw new Problem("OpenSSH's client is needed: install openssh-client (the programs ssh and ssh-keygen).");
  }
  mkdirSync(labFolder, { recursive: true, mode: 0o700 });
  chmodSync(labFolder, 0o700);
  const made = `${identityFile}.new`;
  for (const file of [made, `${made}.pub`]) rmSync(file, { force: true });
  await logged.run("ssh-key", "ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "operator@lab", "-f", made]);
  renameSync(`${made}.pub`, `${identityFile}.pub`);
  renameSync(made, identityFile);
}

async function ensureNetwork(logged: Logged): Promise<void> {
  if ((await run("docker", ["network", "inspect", network])).code === 0) return;
  await logged.run("machines", "docker", ["network", "create", "--label", label, network]);
}

/**
 * Makes a machine from an image. `volume` is where its Docker engine keeps its data, if it has one; `more` are further
 * options of `docker create`.
 */
export async function create(
  machine: AnyMachine,
  image: string,
  volume: string | undefined,
  logged: Logged,
  more: readonly string[] = [],
): Promise<void> {
  if (volume !== undefined) {
    // A machine that went away without it: its CHT's passwords are in there, and not those of a new one.
    await run("docker", ["volume", "rm", volume]);
    await logged.run("machines", "docker", ["volume", "create", "--label", label, volume]);
  }
  await logged.run("machines", "docker", [
    "create",
    "--name",
    containerOf(machine),
    "--hostname",
    machine,
    "--label",
    label,
    "--network",
    network,
    "--network-alias",
    nameOf(machine),
    // What systemd and a Docker engine inside need; --privileged would need more than some hosts can give.
    "--cap-add=SYS_ADMIN",
    "--cap-add=NET_ADMIN",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--tmpfs=/tmp",
    // A part of the control group tree of its own; the machine's first process makes it fit for systemd.
    "--cgroupns=private",
    ...(volume === undefined ? [] : ["--volume", `${volume}:/var/lib/docker`]),
    ...more,
    image,
  ]);
}

/** Lets the operator's key in, for the machine's user. */
export async function authorize(machine: AnyMachine): Promise<void> {
  const user = userOf(machine);
  const key = readFileSync(`${identityFile}.pub`, "utf8");
  const script = `
set -eu
home=$(getent passwd ${user} | cut -d: -f6)
install -d -o ${user} -g ${user} -m 0700 "$home/.ssh"
cat > "$home/.ssh/authorized_keys.new"
if ! cmp -s "$home/.ssh/authorized_keys.new" "$home/.ssh/authorized_keys"; then
  chown ${user}: "$home/.ssh/authorized_keys.new"
  chmod 0600 "$home/.ssh/authorized_keys.new"
  mv "$home/.ssh/authorized_keys.new" "$home/.ssh/authorized_keys"
fi
rm -f "$home/.ssh/authorized_keys.new"
`;
  await output(machine, script, { stdin: key });
}

/** Logs in once, as the program will. */
async function reach(machine: Machine): Promise<Reached> {
  const [address, hostKey] = await Promise.all([
    addressOf(machine),
    output(machine, "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub"),
  ]);
  const user = userOf(machine);
  let words = "";
  const arrived = await waitFor(async () => {
    const result = await run(
      "ssh",
      [
        ...["-F", "none", "-i", identityFile, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"],
        // The key was just read from the machine itself; the program pins it.
        ...["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5"],
        `${user}@${address}`,
        "true",
      ],
      { timeoutMs: 10_000 },
    );
    words = result.stderr.trim().split("\n").at(-1) ?? "";
    return result.code === 0;
  }, 120_000);
  if (!arrived) {
    throw new Problem(
      `the machine ${machine} runs but can't be reached over SSH at ${address}: ${words}\n` +
        "  The lab needs a Docker engine on this computer itself, not in a virtual machine or elsewhere.",
    );
  }
  return { address, user, hostKey };
}

/** Makes the machines that are missing, starts those that are stopped, and waits until one can log in. */
export async function ensureMachines(
  images: Pick<Images, "machine" | "cht"> | undefined,
  progress: Progress,
  logged: Logged,
): Promise<Record<Machine, Reached>> {
  await ensureIdentity(logged);
  const states = await Promise.all(machines.map(stateOf));
  const running = states.every((state) => state === "running");
  const work = async () => {
    await ensureNetwork(logged);
    const reached = await Promise.all(
      machines.map(async (machine, index) => {
        if (states[index] === undefined) {
          if (images === undefined) throw new Problem(`there is no image for the machine ${machine}`);
          const isCht = machine === "cht";
          await create(machine, isCht ? images.cht : images.machine, isCht ? dockerVolume : undefined, logged);
        }
        if (states[index] === "paused") await logged.run("machines", "docker", ["unpause", containerOf(machine)]);
        await logged.run("machines", "docker", ["start", containerOf(machine)]);
        await waitUntilUp(machine);
        await authorize(machine);
        return [machine, await reach(machine)] as const;
      }),
    );
    return Object.fromEntries(reached) as Record<Machine, Reached>;
  };
  return progress.step(running ? "looking at the two machines" : "starting the two machines", work);
}
