/** What a deployment has so far: whether backups can go on with it, begin, or would begin anew without a word. */
import { posix } from "node:path";
import type { BorgConfig } from "./borg-config";
import { exportOf, openKey } from "./borg-key";
import { isStrong, passphraseRule } from "./passphrase";
import type { Inputs } from "./resource";

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
