import { posix } from "node:path";
import { z } from "zod";
import { type BorgConfig, readBorgConfig } from "./borg-config";
import { exportOf, openKey } from "./borg-key";
import { warn } from "./engine";
import { isStrong, passphraseRule } from "./passphrase";
import { absolutePath, accountName, type Inputs, type Kind, type Machines, machineName, oneLine } from "./resource";
import { decode, type ShellCall } from "./shell";

export interface BackupsSoFarInputs extends Inputs {
  deployment: string;
  path: string;
  account: string;
  note: string;
  client: string;
  clientSettings: string;
  baseDirectory: string;
  home: string;
  chunker: string;
  bucket: string;
  bucketFile: string;
  passphrase?: string;
}

/** A repository on the server. */
export interface Stored {
  path: string;
  config: BorgConfig | undefined;
  /** Who owns its configuration. */
  owner: string;
  /** The kind of its key, as borg numbers them; undefined: none can be told. */
  type: string | undefined;
  /** Number of its newest segment. */
  newest: number;
  locked: boolean;
}

/** What both machines have of the deployment, or of others. */
export interface SoFar {
  /** Home of the account on the server. */
  accountHome: string | undefined;
  /** What is where the repository shall be. */
  here: Stored | undefined;
  /** The deployment's repository where it was before. */
  before: Stored | undefined;
  /** Ids of the repositories that the client has opened for this deployment. */
  known: string[];
  /** Passphrase in the client's file. */
  passphraseInFile: string | undefined;
  /** Chunker of the backups so far. */
  chunker: string | undefined;
  /** Where copies have gone so far, as `bucketPlace` writes it. */
  bucket: string | undefined;
  /** Other deployments that back up from the client: name, the CHT's home, repository. */
  others: { name: string; home: string; repository: string }[];
}

/** What is to be said of a deployment before anything is touched. */
export interface Judgement {
  mistakes: { property: string; reason: string }[];
  announcements: string[];
}

/** Where copies go, in one line. */
export const bucketPlace = (bucket: { endpoint?: string | null | undefined; name: string; prefix: string }) =>
  `${bucket.name}/${bucket.prefix} at ${bucket.endpoint || "AWS"}`;

const ENCRYPTED = ["3", "5"];
const UNSUITABLE: Record<string, string> = {
  "0": "its key is in a file on the machine that made it (keyfile), and borg 1.x can't put it into the repository",
  "2": "it isn't encrypted (none): whoever has the server could read all patients' data",
  "4": "its key is in a file on the machine that made it (keyfile-blake2), and borg 1.x can't put it into the repository",
  "6": "it is signed and not encrypted (authenticated-blake2): whoever has the server could read all patients' data",
  "7": "it is signed and not encrypted (authenticated): whoever has the server could read all patients' data",
};
const DOCUMENT = "docs/adopting.md";
const shorten = (id: string | undefined) => (id === undefined ? "without a readable id" : `${id.slice(0, 16)}…`);

/** Whether a repository was made by others: by hand, with another program, on another machine. Pure. */
export function byOthers(here: Stored, { account }: BackupsSoFarInputs, soFar: SoFar): boolean {
  const id = here.config?.id;
  if (id !== undefined && soFar.known.includes(id)) return false;
  return here.owner !== account && (here.owner !== "root" || soFar.accountHome === undefined);
}

/** Why a repository that others made can't be taken over, in words for the operator; undefined: it can. */
async function unadoptable(
  here: Stored,
  passphrases: string[],
  wanted: BackupsSoFarInputs,
): Promise<string | undefined> {
  const { machine, path } = wanted;
  const at = `${machine}: ${path} is a repository that this stack didn't make`;
  const nothing = `Nothing of it was changed. ${DOCUMENT} says how one is taken over`;
  const instead =
    `Leave it for the archives that it has, under another name (\`mv ${path} ${path}.by-hand\` on ${machine}); ` +
    "`up` begins a new one";
  const { config, type = "" } = here;
  if (UNSUITABLE[type] !== undefined) return `${at}, and ${UNSUITABLE[type]}. ${instead}. ${nothing}`;
  if (config === undefined || config.damaged || config.id === undefined || config.key === undefined) {
    return `${at}, and its configuration isn't one that borg 1.x writes for repokey or repokey-blake2. ${instead}. ${nothing}`;
  }
  if (!ENCRYPTED.includes(type)) return `${at}, and nothing in it says how it is encrypted. ${instead}. ${nothing}`;
  if (here.locked) {
    return (
      `${at}, and somebody works with it, or was interrupted (${path}/lock.exclusive). End the backups that were made by ` +
      `hand, and then \`borg break-lock ${path}\` on ${machine}, as its owner. ${nothing}`
    );
  }
  for (const passphrase of passphrases) {
    if (!("reason" in (await openKey(exportOf(config.id, config.key), passphrase)))) return undefined;
  }
  return (
    `${at}, and ` +
    (passphrases.length === 0
      ? "no passphrase is given: set the one that it was made with in cht-backup:passphrase"
      : "the passphrase doesn't open it; must be the one that it was made with, in cht-backup:passphrase") +
    `. ${nothing}`
  );
}

/** The mistake of another place or name than before; undefined where nothing would begin anew by it. Pure. */
function misplaced(
  wanted: BackupsSoFarInputs,
  previous: BackupsSoFarInputs | undefined,
  { here, before }: SoFar,
): Judgement["mistakes"][number] | undefined {
  const { machine, path, deployment } = wanted;
  if (before === undefined) return undefined;
  if (previous !== undefined && previous.deployment !== deployment) {
    return {
      property: "deployment",
      reason:
        `${machine}: the backups of this stack are those of the deployment ${previous.deployment}, in ${before.path}; as ` +
        `${deployment} they would begin anew, beside them. Was the stack renamed? Keep the name that is on the machines: ` +
        `cht-backup:deployment: ${previous.deployment}. For another deployment make another stack`,
    };
  }
  if (here === undefined) {
    return {
      property: "path",
      reason:
        `${machine}: the repository of ${deployment} is in ${before.path}, and there is none in ${path}, so backups would ` +
        `begin anew. Set cht-backup:server.dataDirectory back to ${posix.dirname(posix.dirname(before.path))}; or move all ` +
        `of it on ${machine}, as root, while no backup runs: \`mkdir -p ${posix.dirname(posix.dirname(path))} && ` +
        `mv ${posix.dirname(before.path)} ${posix.dirname(path)}\`, and run this again. To begin anew on purpose: ` +
        `\`mv ${before.path} ${before.path}.before\``,
    };
  }
  if (here.config?.id !== before.config?.id) {
    return {
      property: "path",
      reason:
        `${machine}: the repository of ${deployment} is in ${before.path} (${shorten(before.config?.id)}), and another one ` +
        `in ${path} (${shorten(here.config?.id)}). Move the one aside that is not to go on, for instance ` +
        `\`mv ${before.path} ${before.path}.before\``,
    };
  }
  return undefined;
}

/** What must be said of the passphrase: a weak one is for a repository alone that was made with it. */
async function judgePassphrase(
  { passphrase }: BackupsSoFarInputs,
  previous: BackupsSoFarInputs | undefined,
  here: Stored | undefined,
): Promise<Partial<Record<"mistake" | "announcement", string>>> {
  if (passphrase === undefined || isStrong(passphrase)) return {};
  const { id, key } = here?.config ?? {};
  const opened = id !== undefined && key !== undefined && (await openKey(exportOf(id, key), passphrase));
  if (previous?.passphrase !== passphrase && (!opened || "reason" in opened)) {
    return {
      mistake: `cht-backup:passphrase: found a value that isn't shown; ${passphraseRule}. A shorter one is taken only for a repository that was made with it`,
    };
  }
  return {
    announcement:
      "cht-backup:passphrase has less than 16 characters: whoever gets at the server's disk or the bucket may guess it. Give " +
      "another one, and make a new recovery kit. Copies of the repository from before that still open with the short one",
  };
}

/**
 * What is to be said before anything is touched.
 * @param previous the inputs of the last time
 */
export async function judge(
  wanted: BackupsSoFarInputs,
  previous: BackupsSoFarInputs | undefined,
  soFar: SoFar,
): Promise<Judgement> {
  const { machine, path, deployment, client, home, chunker, bucket } = wanted;
  const { here, known, others } = soFar;
  const mistakes: Judgement["mistakes"] = [];
  const announcements: string[] = [];
  const wrong = misplaced(wanted, previous, soFar);
  if (wrong !== undefined) mistakes.push(wrong);
  const passphrase = await judgePassphrase(wanted, previous, here);
  if (passphrase.announcement !== undefined) announcements.push(passphrase.announcement);
  const adopting = wrong === undefined && here !== undefined && byOthers(here, wanted, soFar);
  const passphrases = [wanted.passphrase, soFar.passphraseInFile].filter((one) => one !== undefined && one !== "");
  // Where only the state has the passphrase, the repository is opened before its key is taken.
  if (adopting && (previous === undefined || passphrases.length > 0)) {
    const why = await unadoptable(here, passphrases as string[], wanted);
    if (why !== undefined) mistakes.push({ property: "path", reason: why });
    else {
      announcements.push(
        `${machine}: ${path} is a repository that this stack didn't make (${shorten(here.config?.id)}). It is taken over ` +
          `with all its archives: the account ${wanted.account} and root become its owners, so what wrote there until now ` +
          "can't any more. Archives made by hand have no manifest: they are listed and can be restored, but not proven." +
          (chunker === "default"
            ? ""
            : ` They were cut with borg's default chunker, unless somebody chose another: with cht-backup:chunker ${chunker} ` +
              "the first backup stores everything once more (`default` doesn't)"),
      );
    }
  }
  if (passphrase.mistake !== undefined && mistakes.length === 0) {
    mistakes.push({ property: "passphrase", reason: passphrase.mistake });
  }
  if (mistakes.length > 0) return { mistakes, announcements: [] };
  if (here === undefined && known.length > 0) {
    announcements.push(
      `${machine}: there is no repository in ${path}, though ${client} has backed up as ${deployment} before ` +
        `(${known.map(shorten).join(", ")}): a new one is begun, without the archives so far. If they are on another ` +
        "machine or disk, or in the bucket, put them there first (docs/restore.md, 8)",
    );
  }
  if (here === undefined) {
    for (const other of others.filter((one) => one.home === home)) {
      announcements.push(
        `${client}: ${home} is backed up as ${other.name} already, to ${other.repository}. As ${deployment} its backups ` +
          `begin anew, beside those. Was the stack renamed, or its state lost? Then set cht-backup:deployment: ${other.name}`,
      );
    }
  }
  if (here !== undefined && soFar.chunker !== undefined && soFar.chunker !== chunker) {
    announcements.push(
      `cht-backup:chunker is ${chunker}, and backups were cut with ${soFar.chunker} so far: the next one stores everything ` +
        "once more, on the server and in the bucket. Is there room for that? The old value goes on as before",
    );
  }
  if (soFar.bucket !== undefined && soFar.bucket !== bucket) {
    announcements.push(
      bucket === ""
        ? `copies to ${soFar.bucket} end: those there stay, and nobody lengthens their locks any more`
        : `copies go to ${bucket} from now on, and begin anew there: the next one uploads the whole repository. Those in ` +
            `${soFar.bucket} stay, and nobody lengthens their locks any more. The old settings go on as before`,
    );
  }
  return { mistakes, announcements };
}

/** What {@link Stored} is, in the output of `backups_so_far_repository`. */
function storedIn(path: string, output: string): Stored | undefined {
  const value = (name: string) => new RegExp(`^${name} (.+)$`, "m").exec(output)?.[1];
  if (!/^there$/m.test(output)) return undefined;
  const config = value("config");
  return {
    path,
    config: config === undefined ? undefined : readBorgConfig(decode(config)),
    owner: value("owner") ?? "",
    type: value("type"),
    newest: Number(value("newest") ?? 0),
    locked: /^locked$/m.test(output),
  };
}

/** A JSON file's object; empty where there is none, or another text. */
function objectIn(text: string): Record<string, unknown> {
  try {
    return (JSON.parse(text) ?? {}) as Record<string, unknown>;
  } catch {
    return {};
  }
}

async function look(
  machines: Machines,
  wanted: BackupsSoFarInputs,
  previous: BackupsSoFarInputs | undefined,
): Promise<SoFar> {
  const { machine, path, account, client, clientSettings, baseDirectory, bucketFile } = wanted;
  const ask = async (on: string, name: string, ...given: string[]) => {
    const call: ShellCall = { library: "backups_so_far", name: `backups_so_far_${name}`, arguments: given };
    return (await machines(on).read(call)).output;
  };
  const stored = async (at: string) => storedIn(at, await ask(machine, "repository", at));
  const [home, bucketText, here, clientText, borgmatic, passphrase] = await Promise.all([
    ask(machine, "account", account),
    ask(machine, "file", bucketFile),
    stored(path),
    ask(client, "client", baseDirectory, clientSettings),
    ask(client, "file", `${clientSettings}/borgmatic.yaml`),
    ask(client, "file", `${clientSettings}/passphrase`),
  ]);
  const accountHome = home.trim() || undefined;
  const earlier = [
    ...(previous === undefined ? [] : [previous.path]),
    ...(accountHome === undefined ? [] : [`${accountHome}/${posix.basename(path)}`]),
  ].filter((each) => each !== path);
  const lines = clientText.split("\n").map((line) => line.split(" "));
  const copied = objectIn(decode(bucketText.trim()));
  const { bucket: name, prefix, endpoint } = copied as Record<string, string>;
  return {
    accountHome,
    here,
    before: (await Promise.all([...new Set(earlier)].map(stored))).find((each) => each !== undefined),
    known: lines.flatMap(([kind, id = ""]) => (kind === "knows" && /^[0-9a-f]{64}$/.test(id) ? [id] : [])),
    passphraseInFile: decode(passphrase.trim()).trimEnd() || undefined,
    chunker: /^chunker_params: "(.*)"$/m.exec(decode(borgmatic.trim()))?.[1],
    bucket: name === undefined || prefix === undefined ? undefined : bucketPlace({ endpoint, name, prefix }),
    others: lines.flatMap(([kind, other = "", settings = ""]) => {
      if (kind !== "deployment") return [];
      const { chtHome, repository } = objectIn(decode(settings));
      return [{ name: other, home: String(chtHome), repository: String(repository) }];
    }),
  };
}

/** Looks, changing nothing, and says what is to be said. */
export async function lookAndJudge(
  machines: Machines,
  wanted: BackupsSoFarInputs,
  previous: BackupsSoFarInputs | undefined,
): Promise<Judgement> {
  return judge(wanted, previous, await look(machines, wanted, previous));
}

/** What a deployment has so far: see `BackupsSoFar` in `index.ts`. */
export const backupsSoFar: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    deployment: oneLine,
    path: absolutePath,
    account: accountName,
    note: absolutePath,
    client: machineName,
    clientSettings: absolutePath,
    baseDirectory: absolutePath,
    home: absolutePath,
    chunker: oneLine,
    bucket: z.string(),
    bucketFile: absolutePath,
    passphrase: oneLine.optional(),
  }),
  identity: [],
  secret: ["passphrase"],
  async survey(machines, inputs, previous) {
    const [wanted, before] = [inputs as BackupsSoFarInputs, previous as BackupsSoFarInputs | undefined];
    const { mistakes, announcements } = await lookAndJudge(machines, wanted, before);
    for (const text of announcements) await warn(text);
    return mistakes;
  },
  async read(_machines, inputs, outputs) {
    return { inputs, outputs };
  },
  async apply(machines, inputs, before) {
    const wanted = inputs as BackupsSoFarInputs;
    const soFar = await look(machines, wanted, before?.inputs as BackupsSoFarInputs | undefined);
    const { here } = soFar;
    if (here?.config?.id !== undefined && byOthers(here, wanted, soFar)) {
      const note = JSON.stringify({ repository: here.config.id, transaction: here.newest });
      await machines(wanted.machine).act({
        library: "backups_so_far",
        name: "backups_so_far_adopt",
        arguments: [wanted.note, note],
      });
    }
    return {};
  },
  async remove() {
    // It has nothing of its own on the machines.
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
