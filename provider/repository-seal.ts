import { z } from "zod";
import { absolutePath, type Inputs, type Kind, machineName } from "./resource";
import type { Answer } from "./shell";

interface RepositorySealInputs extends Inputs {
  path: string;
  program: string;
  settings: string;
  recover: string;
  unsealed: string;
}

/**
 * What `seal look` said, as the inputs that would describe it.
 * @returns undefined where the program isn't there, so that nothing is sealed
 */
export function observeSeal(answer: Answer, wanted: RepositorySealInputs): RepositorySealInputs | undefined {
  const words = answer.output.trim();
  if (words === "missing") return undefined;
  const line = words.split("\n").findLast((each) => each.startsWith("{"));
  if (answer.exitCode !== 0 || line === undefined) {
    return { ...wanted, unsealed: words.split("\n").at(-1) || `exit code ${answer.exitCode}` };
  }
  // A package from before there was a program for a recovery says nothing of it.
  const { unsealed, recover = [] } = JSON.parse(line) as { unsealed: string; recover?: string[] };
  return { ...wanted, unsealed, recover: recover.includes(wanted.recover) ? wanted.recover : "" };
}

/** File systems, as `stat -f` names them, that keep no owners and modes, or not against whoever mounts them elsewhere. */
const WITHOUT_OWNERS = ["msdos", "exfat", "fuseblk", "fuse", "smb", "smb2", "cifs", "v9fs", "vboxsf"];

/** Why seals can't hold on a file system of a type; undefined where nothing is known against it. Pure. */
export function unsuitable(type: string): string | undefined {
  if (!WITHOUT_OWNERS.includes(type)) return undefined;
  return (
    `is on a file system (${type}) that doesn't keep owners and modes, so that root can't keep archives from whoever takes ` +
    "over the account there; use a disk with ext4, XFS, Btrfs or ZFS"
  );
}

/** The seals of a repository: see `RepositorySeal` in `index.ts`. */
export const repositorySeal: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    path: absolutePath,
    program: absolutePath,
    settings: absolutePath,
    // Of the program for a recovery that is beside the repository: SHA-256. Empty: none is asked for.
    recover: z.string().default(""),
    // Observed, not chosen: what should be root's and isn't.
    unsealed: z.literal("").default(""),
  }),
  identity: ["machine", "path"],
  async survey(machines, inputs) {
    const { machine, path } = inputs as RepositorySealInputs;
    const answer = await machines(machine).read({
      library: "repository_seal",
      name: "repository_seal_survey",
      arguments: [path],
    });
    const reason = answer.exitCode === 0 ? unsuitable(answer.output.trim()) : undefined;
    return reason === undefined ? [] : [{ property: "path", reason: `${machine}: ${path} ${reason}` }];
  },
  async read(machines, inputs, outputs) {
    const wanted = inputs as RepositorySealInputs;
    const answer = await machines(wanted.machine).read({
      library: "repository_seal",
      name: "repository_seal_read",
      arguments: [wanted.program, wanted.settings],
    });
    const observed = observeSeal(answer, wanted);
    return observed && { inputs: observed, outputs };
  },
  async apply(machines, inputs) {
    const { machine, program, settings } = inputs as RepositorySealInputs;
    await machines(machine).act({
      library: "repository_seal",
      name: "repository_seal_apply",
      arguments: [program, settings],
    });
    return {};
  },
  async remove() {
    // Nothing unseals what is stored; `retainOnDelete` keeps the engine from asking.
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
