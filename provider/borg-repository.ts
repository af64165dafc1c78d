import { z } from "zod";
import { Refused } from "./refused";
import { absolutePath, type Inputs, type Kind, machineName, oneLine } from "./resource";
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
}

const AS_INITIALISED = "as initialised";

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
 * @param formerId the id the state knows
 */
export function observeRepository(
  stored: string,
  known: string,
  formerId: string | undefined,
  wanted: BorgRepositoryInputs,
) {
  const facts = new Map(stored.split("\n").map((line) => line.split(" ") as [string, string]));
  const id = facts.get("id");
  if (id === undefined) return { ...wanted, identity: "missing" };
  const type = new Map(known.split("\n").map((line) => line.split(" ") as [string, string])).get(id);
  return {
    ...wanted,
    identity: formerId === undefined || id === formerId ? AS_INITIALISED : `another repository (${id.slice(0, 16)}…)`,
    encryption:
      type === undefined ? (facts.has("key") ? wanted.encryption : "none") : (KEY_TYPES[type] ?? `type ${type}`),
    appendOnly: facts.get("append_only") === "1",
    additionalFreeSpace: facts.get("additional_free_space") ?? "0",
  };
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
  }),
  identity: ["server", "path", "encryption"],
  secret: ["passphrase", "exportedKey"],
  async read(machines, inputs, outputs) {
    const wanted = inputs as BorgRepositoryInputs;
    const look = (machine: string, name: string, path: string) =>
      machines(machine).read({ library: "borg_repository", name, arguments: [path] });
    const [stored, known] = await Promise.all([
      look(wanted.server, "borg_repository_stored", wanted.path),
      look(wanted.machine, "borg_repository_known", wanted.baseDirectory),
    ]);
    if (stored.exitCode !== 0) throw new Refused(`${wanted.server}: ${wanted.path}: ${stored.output.trim()}`);
    const observed = observeRepository(stored.output, known.output, outputs.repositoryId as string, wanted);
    return { inputs: observed, outputs };
  },
  async apply(machines, inputs, before) {
    const wanted = inputs as BorgRepositoryInputs;
    const { machine, baseDirectory, rsh, location, encryption, passphrase, server, path } = wanted;
    const former = (before?.inputs as BorgRepositoryInputs | undefined)?.passphrase ?? "";
    const printed = await machines(machine).act({
      library: "borg_repository",
      name: "borg_repository_apply",
      arguments: [baseDirectory, rsh, location, encryption, encode(passphrase), encode(former)],
    });
    const [repositoryId = "", exportedKey = ""] = printed.split("\n");
    if (!/^[0-9a-f]{64}$/.test(repositoryId)) throw new Refused(`${machine}: borg told no id of ${location}`);
    await machines(server).act({
      library: "borg_repository",
      name: "borg_repository_settle",
      arguments: [path, wanted.additionalFreeSpace],
    });
    return { repositoryId, exportedKey: decode(exportedKey) };
  },
  async remove() {
    // Archives are never removed from here; `retainOnDelete` keeps the engine from asking.
  },
  id: ({ server, path }) => `${server}:${path}`,
};
