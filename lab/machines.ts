/** The lab's two machines, for the lab itself, for tests and for measurements. */
import { type Result, run } from "../toolchain/command";
import { Problem } from "../toolchain/progress";

/** `cht` holds the CHT deployment, `server` takes its backups. */
export const machines = ["cht", "server"] as const;
export type Machine = (typeof machines)[number];
/** Machines of tests, which make them and remove them in the end. */
export const extraMachines = ["restore", "kit", "drill", "cloud"] as const;
export type ExtraMachine = (typeof extraMachines)[number];
export type AnyMachine = Machine | ExtraMachine;

/**
 * The lab's name in the Docker engine: of its network, and the beginning of those of its containers and volumes. A second
 * checkout whose environment names another one has a lab of its own on the same computer.
 */
const lab = process.env.CHT_BACKUP_LAB || "cht-backup-lab";
/** The name of the lab that `npm test` makes beside this one. */
export const secondLab = `${lab}-second`;

/** The container of a machine. */
export function containerOf(machine: AnyMachine): string {
  return `${lab}-${machine}`;
}

/** A machine's name in the lab's network, which is the same in each lab. */
export function nameOf(machine: AnyMachine | "bucket"): string {
  return `cht-backup-lab-${machine}`;
}

export const network = lab;
export const dockerVolume = `${lab}-docker`;
/** The bucket's container. */
export const bucketContainer = `${lab}-bucket`;
/** Each lab makes its machines from the same images. */
export const imagePrefix = "cht-backup-lab-";
/** Containers, volumes, network and images of any lab carry this label. */
export const labelName = "cht-backup.lab";
const labelOf = (name: string) => `${labelName}=${name === "cht-backup-lab" ? "1" : name}`;
/** The label of this lab's. */
export const label = labelOf(lab);
export const secondLabel = labelOf(secondLab);

export interface ExecOptions {
  /** What the script reads. It is put in front of nothing else: the script itself goes by `sh -c`. */
  stdin?: string | Buffer;
  /** Time limit in milliseconds; a result of 124 when it is over. Default: five minutes. */
  timeoutMs?: number;
}

/** Where a borg of the lab's deployment is on a machine whose distribution has an old one. */
const built = ["/opt/cht-backup/lab", "/opt/cht-backup-server/lab"].map((programs) => `${programs}/borg/bin`);
/** Where programs are looked for on a machine. */
export const searchPath = [
  ...built,
  "/usr/local/sbin",
  "/usr/local/bin",
  "/usr/sbin",
  "/usr/bin",
  "/sbin",
  "/bin",
].join(":");

/** Runs a shell script as root on a machine. Never throws for what the script does: look at the code. */
export function exec(machine: AnyMachine, script: string, options: ExecOptions = {}): Promise<Result> {
  const timeoutMs = options.timeoutMs ?? 300_000;
  const words = ["exec", "-i", "--env", `PATH=${searchPath}`, containerOf(machine), "sh"];
  if (options.stdin === undefined) return run("docker", [...words, "-s"], { stdin: script, timeoutMs });
  return run("docker", [...words, "-c", script], { stdin: options.stdin, timeoutMs });
}

/** Runs a shell script that must succeed and returns what it printed, without the last line's end. */
export async function output(machine: AnyMachine, script: string, options: ExecOptions = {}): Promise<string> {
  const result = await exec(machine, script, options);
  if (result.code !== 0) {
    const words = (result.stderr || result.stdout).trim().split("\n").slice(-5).join("\n  ");
    throw new Problem(`on the machine ${machine}: exit code ${result.code}\n  ${words}`);
  }
  return result.stdout.replace(/\n$/, "");
}

/** Waits until a condition holds, looking every 0.2 s. Says whether it did within the limit (milliseconds). */
export async function waitFor(condition: () => Promise<boolean>, limit: number): Promise<boolean> {
  const end = Date.now() + limit;
  for (;;) {
    if (await condition()) return true;
    if (Date.now() >= end) return false;
    await new Promise((wake) => setTimeout(wake, 200));
  }
}

/** Waits until systemd on a machine has started everything and sshd listens. */
export async function waitUntilUp(machine: AnyMachine, limit = 300_000): Promise<void> {
  const up = await waitFor(async () => {
    const state = await exec(machine, "systemctl is-system-running; systemctl is-active ssh.service", {
      timeoutMs: 10_000,
    });
    return /^(running|degraded)\nactive\n/.test(state.stdout);
  }, limit);
  if (up) return;
  const state = await exec(machine, "systemctl is-system-running; systemctl --failed --plain --no-legend");
  throw new Problem(
    `the machine ${machine} didn't come up within ${limit / 1000} s: ${(state.stdout + state.stderr).trim() || "no answer"}\n` +
      `  See: docker logs ${containerOf(machine)}`,
  );
}

async function docker(...args: string[]): Promise<void> {
  const result = await run("docker", args, { timeoutMs: 120_000 });
  if (result.code !== 0) throw new Problem(`docker ${args.join(" ")}: ${result.stderr.trim()}`);
}

/** Starts a machine and waits until it is up. Its address may have changed: see `addressOf`. */
export async function start(machine: AnyMachine): Promise<void> {
  await docker("start", containerOf(machine));
  await waitUntilUp(machine);
}

/** Shuts a machine down as its administrator would. */
export async function stop(machine: AnyMachine): Promise<void> {
  await docker("stop", "--time", "60", containerOf(machine));
}

/** Takes a machine's power away. */
export async function kill(machine: AnyMachine): Promise<void> {
  await docker("kill", containerOf(machine));
}

/** The machine's address in the lab's network; this computer reaches it too. */
export async function addressOf(machine: AnyMachine): Promise<string> {
  const format = `{{with index .NetworkSettings.Networks "${network}"}}{{.IPAddress}}{{end}}`;
  const result = await run("docker", ["inspect", "--format", format, containerOf(machine)]);
  return result.stdout.trim();
}

/** `running`, `exited`…, or undefined when there is no such container. */
export async function stateOf(machine: AnyMachine): Promise<string | undefined> {
  const result = await run("docker", ["inspect", "--format", "{{.State.Status}}", containerOf(machine)]);
  return result.code === 0 ? result.stdout.trim() : undefined;
}
