import { z } from "zod";
import { warn } from "./engine";
import { Refused } from "./refused";
import { absolutePath, type Inputs, type Kind, type Machines, machineName, oneLine } from "./resource";
import { decode, encode } from "./shell";

interface BorgRepositoryInputs extends Inputs {
  location: string;
  server: string;
  path: string;
  rsh: string;
  baseDirectory: string;
  passphrase: string;
  encryption: string;
  appendOnly: boolean;
  additionalFreeSpace: string;
  identity: string;
  key: string;
}

const AS_INITIALISED = "as initialised";
const AS_EXPORTED = "as exported";

interface BorgRepositoryOutputs extends Record<string, unknown> {
  repositoryId: string;
  exportedKey: string;
  /** Keys of repositories that were here before, by their ids: what is left of them opens with these. */
  formerKeys: Record<string, string>;
  /** Digest of the key as it is stored. */
  storedKey: string;
  /** Where the disk that holds the repository is mounted. */
  mountPoint: string;
}

/** Borg's kinds of key by the number in its security directory (`class KeyType` in borg 1.x's `crypto/key.py`). */
const KEY_TYPES: Record<string, string> = {
  "0": "keyfile",
  "1": "passphrase",
  "2": "none",
  "3": "repokey",
  "4": "keyfile-blake2",
  "5": "repokey-blake2",
  "6": "authenticated-blake2",
  "7": "authenticated",
};

/**
 * What both machines know of the repository, as the inputs that would have made it.
 * @param stored output of `borg_repository_stored`
 * @param known output of `borg_repository_known`
 * @param before what the state knows
 */
export function observeRepository(
  stored: string,
  known: string,
  before: Partial<BorgRepositoryOutputs>,
  wanted: BorgRepositoryInputs,
) {
  const facts = new Map(stored.split("\n").map((line) => line.split(" ") as [string, string]));
  const id = facts.get("id");
  if (id === undefined) return { ...wanted, identity: "missing" };
  const type = new Map(known.split("\n").map((line) => line.split(" ") as [string, string])).get(id);
  return {
    ...wanted,
    identity:
      before.repositoryId === undefined || id === before.repositoryId
        ? AS_INITIALISED
        : `another repository (${id.slice(0, 16)}…)`,
    encryption:
      type === undefined ? (facts.has("key") ? wanted.encryption : "none") : (KEY_TYPES[type] ?? `type ${type}`),
    key: before.storedKey === undefined || facts.get("key") === before.storedKey ? AS_EXPORTED : "exchanged",
    appendOnly: facts.get("append_only") === "1",
    additionalFreeSpace: facts.get("additional_free_space") ?? "0",
  };
}

/**
 * Refuses to begin a new repository where the disk of the one before isn't mounted: backups would go into the wrong place,
 * and fill the wrong disk, unnoticed.
 */
async function refuseOtherDisk(
  machines: Machines,
  { server, path }: BorgRepositoryInputs,
  known: BorgRepositoryOutputs | undefined,
): Promise<void> {
  if (known?.mountPoint === undefined) return;
  const look = (name: string) => machines(server).read({ library: "borg_repository", name, arguments: [path] });
  const [stored, mount] = await Promise.all([look("borg_repository_stored"), look("borg_repository_mount")]);
  if (stored.output.trim() !== "" || mount.output.trim() === known.mountPoint) return;
  throw new Refused(
    `${server}: ${path} was on the disk mounted at ${known.mountPoint}, which isn't mounted there now. Mount it; nothing was changed`,
  );
}

/** A borg repository: see `BorgRepository` in `index.ts`. */
export const borgRepository: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    location: oneLine,
    server: machineName,
    path: absolutePath,
    rsh: oneLine,
    baseDirectory: absolutePath,
    passphrase: z.string().min(1),
    encryption: z.enum(["repokey-blake2", "repokey"]).default("repokey-blake2"),
    // Borg refuses to write where less is free: deleting and compacting need room (`additional_free_space`, borg's docs/quickstart).
    additionalFreeSpace: z
      .string()
      .regex(/^(0|[0-9]+[KMGT])$/, "must be a size as borg writes it, such as 500M")
      .default("500M"),
    // Observed, not chosen: the second lock beside the forced command.
    appendOnly: z.literal(true).default(true),
    identity: z.literal(AS_INITIALISED).default(AS_INITIALISED),
    key: z.literal(AS_EXPORTED).default(AS_EXPORTED),
  }),
  identity: ["server", "path", "encryption"],
  secret: ["passphrase", "exportedKey", "formerKeys"],
  async read(machines, inputs, outputs) {
    const wanted = inputs as BorgRepositoryInputs;
    const look = (machine: string, name: string, path: string) =>
      machines(machine).read({ library: "borg_repository", name, arguments: [path] });
    const [stored, known] = await Promise.all([
      look(wanted.server, "borg_repository_stored", wanted.path),
      look(wanted.machine, "borg_repository_known", wanted.baseDirectory),
    ]);
    if (stored.exitCode !== 0) throw new Refused(`${wanted.server}: ${wanted.path}: ${stored.output.trim()}`);
    const observed = observeRepository(stored.output, known.output, outputs, wanted);
    return { inputs: observed, outputs };
  },
  async apply(machines, inputs, before) {
    const wanted = inputs as BorgRepositoryInputs;
    const { machine, baseDirectory, rsh, location, encryption, passphrase, server, path } = wanted;
    const known = before?.outputs as BorgRepositoryOutputs | undefined;
    const former = (before?.inputs as BorgRepositoryInputs | undefined)?.passphrase ?? "";
    await refuseOtherDisk(machines, wanted, known);
    const printed = await machines(machine).act({
      library: "borg_repository",
      name: "borg_repository_apply",
      arguments: [
        baseDirectory,
        rsh,
        location,
        encryption,
        encode(passphrase),
        encode(former),
        encode(known?.exportedKey ?? ""),
      ],
    });
    const [repositoryId = "", exportedKey = ""] = printed.split("\n");
    if (!/^[0-9a-f]{64}$/.test(repositoryId)) throw new Refused(`${machine}: borg told no id of ${location}`);
    const settled = await machines(server).act({
      library: "borg_repository",
      name: "borg_repository_settle",
      arguments: [path, wanted.additionalFreeSpace],
    });
    const [storedKey = "", mountPoint = ""] = settled.split("\n");
    const formerKeys = { ...known?.formerKeys };
    delete formerKeys[repositoryId];
    if (known !== undefined && known.repositoryId !== repositoryId) {
      formerKeys[known.repositoryId] = known.exportedKey;
      await warn(
        `${server}: ${path} is another repository than before (${repositoryId.slice(0, 16)}… instead of ` +
          `${known.repositoryId.slice(0, 16)}…). Archives of the earlier one are where it is now, and in its ` +
          "copies in a bucket (docs/restore.md, 8); its key is kept in the stack",
      );
    }
    return { repositoryId, exportedKey: decode(exportedKey), formerKeys, storedKey, mountPoint };
  },
  async remove() {
    // Archives are never removed from here; `retainOnDelete` keeps the engine from asking.
  },
  id: ({ server, path }) => `${server}:${path}`,
};
