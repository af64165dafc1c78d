import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { type BorgConfig, readBorgConfig } from "./borg-config";
import { counterWarning } from "./borg-counter";
import { keyBlob, openKey, sameKey } from "./borg-key";
import { warn } from "./engine";
import { chooseKey, formerKeysAfter, type KnownKeys, type ProvenKey } from "./known-keys";
import { isStrong, passphraseRule } from "./passphrase";
import { Refused } from "./refused";
import { absolutePath, type Inputs, type Kind, type Machines, machineName, oneLine } from "./resource";
import { decode, encode, type ShellCall } from "./shell";

interface BorgRepositoryInputs extends Inputs {
  location: string;
  server: string;
  path: string;
  rsh: string;
  baseDirectory: string;
  passphrase: string;
  encryption: string;
  borg?: string;
  appendOnly: boolean;
  additionalFreeSpace: string;
  identity: string;
  key: string;
}

const AS_INITIALISED = "as initialised";
const AS_EXPORTED = "as exported";

interface BorgRepositoryOutputs extends KnownKeys, Record<string, unknown> {
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

const shorten = (id: string) => `${id.slice(0, 16)}…`;

/** The configuration in the output of `borg_repository_stored`. Undefined: there is no repository. */
function storedConfig(output: string): BorgConfig | undefined {
  const text = /^config (\S*)$/m.exec(output)?.[1];
  return text === undefined ? undefined : readBorgConfig(decode(text));
}

/** What a client knows of a repository, in the output of `borg_repository_known`. */
function knownOf(known: string, id: string | undefined): { type?: string | undefined; counter?: string | undefined } {
  const lines = known.split("\n").map((line) => line.split(" "));
  const [, type, counter] = lines.find(([of]) => of === id) ?? [];
  return { type, counter };
}

/**
 * What both machines know of the repository, as the inputs that would have made it.
 * @param stored the repository's configuration; undefined where there is no repository
 * @param known output of `borg_repository_known`
 * @param before what the state knows
 */
export function observeRepository(
  stored: BorgConfig | undefined,
  known: string,
  before: Partial<BorgRepositoryOutputs>,
  wanted: BorgRepositoryInputs,
) {
  if (stored === undefined) return { ...wanted, identity: "missing" };
  const id = stored.id ?? before.repositoryId ?? "";
  const { type, counter } = knownOf(known, id);
  const observed = { ...wanted, identity: AS_INITIALISED, key: AS_EXPORTED };
  if (before.repositoryId !== undefined) {
    // Before a client that was made anew writes there, `up` has to tell it from where to count.
    if (id !== before.repositoryId) observed.identity = `another repository (${shorten(id)})`;
    else if (counter === undefined || counter === "-") observed.identity = `new to ${wanted.machine}`;
  }
  // One that was made by hand may have the other of the two modes that encrypt alike; it can't be changed.
  const adoptable = KEY_TYPES[type ?? ""]?.startsWith("repokey");
  if (type !== undefined && !adoptable) observed.encryption = KEY_TYPES[type] ?? `type ${type}`;
  else if (stored.storedKey === undefined && before.storedKey === undefined) observed.encryption = "none";
  if (stored.damaged) return { ...observed, key: "damaged" };
  if (before.storedKey !== undefined && stored.storedKey !== before.storedKey) observed.key = "exchanged";
  const { appendOnly, additionalFreeSpace } = stored;
  return { ...observed, appendOnly, additionalFreeSpace };
}

/** What the server has at the repository's place. */
interface AtServer {
  config: BorgConfig | undefined;
  counter: string | undefined;
  mountPoint: string;
}

async function lookAtServer(machines: Machines, { server, path }: BorgRepositoryInputs): Promise<AtServer> {
  const look = (name: string) => machines(server).read({ library: "borg_repository", name, arguments: [path] });
  const [stored, mount] = await Promise.all([look("borg_repository_stored"), look("borg_repository_mount")]);
  if (stored.exitCode !== 0) throw new Refused(`${server}: ${path}: ${stored.output.trim()}`);
  const counter = /^counter (.*)$/m.exec(stored.output)?.[1];
  return { config: storedConfig(stored.output), counter, mountPoint: mount.output.trim() };
}

/** Lets the server's root give the repository its key and its flags. */
async function configure(
  machines: Machines,
  { server, path, additionalFreeSpace }: BorgRepositoryInputs,
  { exported, contents }: ProvenKey,
): Promise<{ storedKey: string; mountPoint: string }> {
  const program = readFileSync(join(__dirname, "scripts", "borg_repository_config.py"), "utf8");
  const call: ShellCall = {
    library: "borg_repository",
    name: "borg_repository_configure",
    arguments: [path, contents.repositoryId, additionalFreeSpace, encode(keyBlob(exported) ?? ""), encode(program)],
  };
  const printed = await machines(server).act(call);
  const config = storedConfig(printed);
  if (config?.storedKey === undefined || config.key !== keyBlob(exported)) {
    throw new Refused(`${server}: ${path} hasn't taken the key that it was given`);
  }
  return { storedKey: config.storedKey, mountPoint: printed.trimEnd().split("\n").at(-1) ?? "" };
}

/** Lets the client initialise a repository (`id` is empty) or open it. @returns what it says of it */
async function askClient(
  machines: Machines,
  { machine, baseDirectory, rsh, location, encryption, passphrase, borg = "" }: BorgRepositoryInputs,
  id: string,
): Promise<{ id: string; exported: string }> {
  const printed = await machines(machine).act({
    library: "borg_repository",
    name: "borg_repository_apply",
    arguments: [baseDirectory, rsh, location, encryption, encode(passphrase), id, borg],
  });
  const [told = "", exported = ""] = printed.split("\n");
  if (!/^[0-9a-f]{64}$/.test(told)) throw new Refused(`${machine}: borg told no id of ${location}`);
  return { id: told, exported: decode(exported) };
}

/** Has a repository made, and takes its key where server, client and passphrase agree on it. */
async function begin(machines: Machines, wanted: BorgRepositoryInputs): Promise<ProvenKey> {
  const { machine, server, path, location, passphrase } = wanted;
  if (!isStrong(passphrase)) throw new Refused(`cht-backup:passphrase ${passphraseRule}, for a new repository`);
  const told = await askClient(machines, wanted, "");
  const { config } = await lookAtServer(machines, wanted);
  if (config?.id !== told.id) {
    throw new Refused(
      `${machine} made the repository ${shorten(told.id)} at ${location}, but ${server} has ` +
        `${config?.id === undefined ? "none" : shorten(config.id)} at ${path}`,
    );
  }
  const opened = await openKey(told.exported, passphrase);
  if ("reason" in opened) throw new Refused(`${machine}: the key that it printed of ${location} ${opened.reason}`);
  if (opened.contents.repositoryId !== told.id || config.key !== keyBlob(told.exported)) {
    throw new Refused(
      `${machine} printed another key of ${location} than the one that ${server} stores, so it was not taken: ` +
        `${machine} may be in other hands`,
    );
  }
  return { exported: told.exported, contents: opened.contents, known: false };
}

/** The key of a repository that is there. @throws Refused where none can be proven */
async function findKey(
  { server, path, location, passphrase }: BorgRepositoryInputs,
  config: BorgConfig,
  keys: KnownKeys | undefined,
  former: string,
): Promise<ProvenKey> {
  const id = config.id ?? keys?.repositoryId;
  if (id === undefined) {
    throw new Refused(`${server}: ${path}/config is damaged, and the stack doesn't know which repository it was`);
  }
  const key = await chooseKey(id, keys, config.key, passphrase, former);
  if (key !== undefined) return key;
  if (config.key === undefined) {
    throw new Refused(
      `${server}: the repository ${path} has no key, or a damaged one, and the stack knows none that opens it. If nothing ` +
        "was ever stored in it, move it away",
    );
  }
  throw new Refused(
    `the repository ${location} exists already and this passphrase doesn't open it; give the one it was made with in ` +
      "cht-backup:passphrase",
  );
}

/** Lets the client open the repository, and looks at what it says of it. */
async function confirm(machines: Machines, wanted: BorgRepositoryInputs, { contents }: ProvenKey): Promise<void> {
  const { machine, location, passphrase } = wanted;
  const id = contents.repositoryId;
  const told = await askClient(machines, wanted, id);
  if (told.id !== id) {
    throw new Refused(`${machine}: ${location} is the repository ${shorten(told.id)} there, and not ${shorten(id)}`);
  }
  const opened = await openKey(told.exported, passphrase);
  if ("reason" in opened || !sameKey(opened.contents, contents)) {
    await warn(
      `${machine} printed another key of ${location} than the one that the repository has: ${machine} may be in other ` +
        "hands. The stack keeps the key that it can prove",
    );
  }
}

async function tellOfChange(
  { server, path }: BorgRepositoryInputs,
  before: KnownKeys | undefined,
  { contents, known }: ProvenKey,
): Promise<void> {
  if (before === undefined) return;
  const { repositoryId } = contents;
  if (before.repositoryId !== repositoryId) {
    await warn(
      `${server}: ${path} is another repository than before (${shorten(repositoryId)} instead of ` +
        `${shorten(before.repositoryId)}). Archives of the earlier one are where it is now, and in its ` +
        "copies in a bucket (docs/restore.md, 8); its key is kept in the stack",
    );
  } else if (!known) {
    await warn(
      `${server}: the passphrase opens the key that ${path} has, and not the one that the stack knew. The stack takes the ` +
        "repository's, and keeps the earlier one. If you didn't change the passphrase by hand, somebody exchanged the key",
    );
  }
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
    borg: absolutePath.optional(),
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
  // Another path is the same repository, moved: its former keys stay known.
  identity: ["server", "encryption"],
  secret: ["passphrase", "exportedKey", "formerKeys"],
  async read(machines, inputs, outputs) {
    const wanted = inputs as BorgRepositoryInputs;
    const [{ config, counter }, known] = await Promise.all([
      lookAtServer(machines, wanted),
      machines(wanted.machine).read({
        library: "borg_repository",
        name: "borg_repository_known",
        arguments: [wanted.baseDirectory],
      }),
    ]);
    const client = knownOf(known.output, config?.id).counter;
    const odd = (stored: string | undefined) => config && counterWarning(stored, client, Math.floor(Date.now() / 1000));
    // A backup may have begun between the two looks.
    const warning = odd(counter) && odd((await lookAtServer(machines, wanted)).counter);
    if (warning !== undefined) await warn(`${wanted.server}: ${wanted.path}: ${warning}`);
    return { inputs: observeRepository(config, known.output, outputs, wanted), outputs };
  },
  async apply(machines, inputs, before) {
    const wanted = inputs as BorgRepositoryInputs;
    const { server, path } = wanted;
    const known = before?.outputs as BorgRepositoryOutputs | undefined;
    const former = (before?.inputs as BorgRepositoryInputs | undefined)?.passphrase ?? "";
    const { config, mountPoint } = await lookAtServer(machines, wanted);
    // Backups would go into the wrong place, and fill the wrong disk, unnoticed.
    if (config === undefined && known?.mountPoint !== undefined && mountPoint !== known.mountPoint) {
      throw new Refused(
        `${server}: ${path} was on the disk mounted at ${known.mountPoint}, which isn't mounted there now. Mount it; nothing was changed`,
      );
    }
    const key = config === undefined ? await begin(machines, wanted) : await findKey(wanted, config, known, former);
    const stored = await configure(machines, wanted, key);
    if (config !== undefined) await confirm(machines, wanted, key);
    await tellOfChange(wanted, known, key);
    const { exported, contents } = key;
    const { repositoryId } = contents;
    return { repositoryId, exportedKey: exported, formerKeys: formerKeysAfter(known, exported), ...stored };
  },
  async remove() {
    // Archives are never removed from here; `retainOnDelete` keeps the engine from asking.
  },
  id: ({ server, path }) => `${server}:${path}`,
};
