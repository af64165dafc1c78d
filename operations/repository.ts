/** A machine's way to the repository for as long as an operation takes: scripts and, where it has none, a key. */
import { borgPackage, searchPath } from "../components/borg";
import { hostFile, readHostFile, renderHostFile } from "../components/host-files";
import { chtNames, serverNames } from "../components/names";
import { serveCommand } from "../components/repository-guard";
import type { AccessKey, Bucket, Settings } from "../config";
import { idOf } from "../provider/known-keys";
import { packagesCall } from "../provider/packages";
import { actionScript } from "../provider/shell";
import { askForHostKeys, chooseHostKey } from "../provider/ssh-host-key";
import { packed } from "../provider/tree";
import { Problem } from "../toolchain/progress";
import { Refused } from "./main";
import type { Remote } from "./remote";
import type { Deployment, Recovery } from "./stack";

/** After this the temporary key lets nobody in, even where it could not be removed. It is looked at when a connection
 * begins, so an extraction may take longer. */
const KEY_HOURS = 24;

/** What `restore` has to be told besides what is wanted of it. */
export interface Way {
  /** Where the package of programs is, `chtbackup/`. */
  programs: string;
  /** Where it keeps its notes. */
  notes: string;
  /** How Python is started there: words of a command. */
  python: string[];
  request: { repository: string; passphrase: string; baseDirectory: string } & (
    | { sshConfig: string; server: string }
    | { bucket: object }
  );
}

/** The operation's output and end. */
interface Course {
  installDocker: boolean;
  /** Nothing is to change on any machine. */
  dryRun: boolean;
  say: (text: string) => void;
  signal: AbortSignal;
}

/**
 * A shell script that writes files below a directory, and the package of programs; nobody else can read them.
 *
 * @param files texts by name
 */
export function writeFiles(directory: string, files: Record<string, string> = {}): string {
  const decoded = (base64: string) => `printf %s ${base64} | base64 -d`;
  const lines = Object.entries(files).map(
    ([name, text]) => `${decoded(Buffer.from(text).toString("base64"))} > '${directory}/${name}'`,
  );
  return [
    "set -eu; umask 077",
    `mkdir '${directory}/chtbackup'`,
    `${decoded(packed(hostFile("chtbackup")))} | tar -xzf - -C '${directory}/chtbackup' --no-same-owner --no-same-permissions`,
    ...lines,
    "",
  ].join("\n");
}

function request({ settings, passphrase }: Deployment, baseDirectory: string, sshConfig: string): Way["request"] {
  const { repository } = serverNames(settings.deployment, settings.server.dataDirectory);
  const server = `${settings.server.address}, port ${settings.server.port}`;
  return { repository: `ssh://offsite${repository}`, passphrase, baseDirectory, sshConfig, server };
}

/** Where a machine keeps the notes of restores, so that what was interrupted can go on. */
export const notesOf = (deployment: string) => `/var/lib/cht-restore/${deployment}`;

/** Whether a machine has what `throughCht` needs: what `pulumi up` puts on the CHT machine. */
export async function hasOwnWay(cht: Remote, { settings }: Deployment, signal: AbortSignal): Promise<boolean> {
  const names = chtNames(settings.deployment);
  const files = [`${names.programs}/venv/bin/python`, `${names.settings}/ssh_config`, `${names.settings}/ssh_key`];
  const test = 'for file in "$@"; do test -e "$file" || { echo no; exit; }; done; echo yes';
  return (await cht.script(test, files, { signal })).trim() === "yes";
}

/** The CHT machine has a way to the repository already. What is put there for the work is removed again. */
export async function throughCht<T>(
  cht: Remote,
  deployment: Deployment,
  signal: AbortSignal,
  work: (way: Way) => Promise<T>,
): Promise<T> {
  const names = chtNames(deployment.settings.deployment);
  const directory = (await cht.script("mktemp -d /run/cht-archives.XXXXXXXX", [], { signal })).trim();
  try {
    await cht.script(writeFiles(directory), [], { signal });
    return await work({
      programs: directory,
      notes: directory,
      python: ["env", `PATH=${searchPath(names.programs)}`, `${names.programs}/venv/bin/python`],
      request: request(deployment, `${names.state}/borg`, `${names.settings}/ssh_config`),
    });
  } finally {
    await cht.script('rm -rf "$1"', [directory]);
  }
}

/** A directory of this run only: another run, which will be refused, must not touch it. A dry run leaves no trace. */
async function runDirectory(remote: Remote, notes: string, { signal, dryRun }: Course): Promise<string> {
  const make = dryRun
    ? "umask 077; mktemp -d /var/tmp/cht-restore.XXXXXXXX"
    : 'umask 077; mkdir -p "$1"; mktemp -d "$1/run.XXXXXXXX"';
  return (await remote.script(make, [notes], { signal })).trim();
}

/** Sees to it that a restore can run. @returns how Python is started for it, and what was printed */
async function prepare(
  remote: Remote,
  directory: string,
  notes: string,
  from: "server" | "bucket",
  { installDocker, dryRun, signal, say }: Course,
): Promise<{ python: string[]; printed: string }> {
  const borg = borgPackage(notes);
  if (!dryRun) {
    say("borg: looking after it (where it has to be built there, that takes some minutes)");
    // One that an earlier run has built, in a directory of root's alone, is as good: on a small machine it takes long.
    const { path, check } = borg.build;
    const asked = actionScript({ library: "packages", name: "packages_built", arguments: [path, check] });
    const digest = /^built ([0-9a-f]{64}) /.exec(await remote.script(asked, [], { signal }))?.[1];
    await remote.script(actionScript(packagesCall(borg, digest)), [], { signal });
  }
  const words = [directory, installDocker ? "yes" : "no", from, dryRun ? "yes" : "no", borg.minimum.borgbackup];
  const printed = await remote.script(readHostFile("restore/prepare.sh"), words, {
    signal,
    // What it refuses is the error's text, and isn't said before that, too.
    onError: (line) => /^(installing|fetching) /.test(line) && say(line),
  });
  // The system's by its path: what was built has one, too, which knows of no packages.
  const python = dryRun ? [`${directory}/python3`] : ["env", `PATH=${searchPath(notes)}`, "/usr/bin/python3"];
  return { python, printed };
}

/** A bucket that can be read. */
export type ReadableBucket = Bucket & { reader: AccessKey };

/** The bucket of a stack. @throws Refused where there is none, or none yet */
export function bucketOf({ bucket }: Settings, stack: string): ReadableBucket {
  if (bucket?.reader !== undefined) return { ...bucket, reader: bucket.reader };
  if (bucket !== undefined) {
    throw new Refused(
      `the stack ${stack} hasn't made its bucket yet: run \`npm run pulumi -- up --stack ${stack}\` first`,
    );
  }
  throw new Refused(`the stack ${stack} has no copy in a bucket (cht-backup:bucket): restore with --from server`);
}

/**
 * The line that `fetch` reads: the place and the key for reading, which copy, and the ids that the repository
 * may have (another one's copy would be forged, or of another deployment). Pure.
 * @param copyAsOf the newest copy finished by this time, UTC; undefined: the newest
 */
export function bucketRequest(
  bucket: ReadableBucket,
  { key, formerKeys = {} }: Recovery,
  copyAsOf: string | undefined,
) {
  const { name, region, endpoint, pathStyle, prefix, reader } = bucket;
  const repositories = [...new Set([repositoryId(key), ...Object.keys(formerKeys).map(idOf)])];
  return { bucket: name, region, endpoint, pathStyle, prefix, ...reader, asOf: copyAsOf, repositories };
}

/** The id of the repository that an exported key belongs to. @throws Problem */
export function repositoryId(key: string): string {
  const id = /^BORG_KEY ([0-9a-f]{64})\n/.exec(key)?.[1];
  if (id === undefined) throw new Problem("the stack's output `recovery` holds no key as borg exports it");
  return id;
}

/**
 * A machine gets borg, and the programs that fetch the repository from the bucket. The server isn't asked for anything:
 * it may be gone.
 * @param into where the repository goes while it is needed
 */
export async function throughBucket<T>(
  remote: Remote,
  bucket: ReadableBucket,
  deployment: Deployment<Settings>,
  options: Course & { copyAsOf?: string | undefined; into?: string | undefined },
  work: (way: Way) => Promise<T>,
): Promise<T> {
  const notes = notesOf(deployment.settings.deployment);
  let directory = "";
  try {
    directory = await runDirectory(remote, notes, options);
    const { python } = await prepare(remote, directory, notes, "bucket", options);
    await remote.script(writeFiles(directory), [], {
      signal: options.signal,
    });
    return await work({
      programs: directory,
      notes,
      python,
      request: {
        repository: options.into ?? `${notes}/repository`,
        passphrase: deployment.passphrase,
        baseDirectory: `${directory}/borg`,
        bucket: bucketRequest(bucket, deployment, options.copyAsOf),
      },
    });
  } finally {
    if (directory !== "") {
      await remote
        .script('rm -rf "$1"', [directory])
        .catch((error) => options.say(`note: not tidied up: ${(error as Error).message}`));
    }
  }
}

/**
 * Any other machine gets borg, and a key of its own that the server lets in for the time of the work. The private half
 * never leaves the machine; the key can read and append, as the CHT machine's can, and nothing else.
 */
export async function throughTemporaryKey<T>(
  remote: Remote,
  server: Remote,
  deployment: Deployment,
  options: Course,
  work: (way: Way) => Promise<T>,
): Promise<T> {
  const { settings } = deployment;
  const { signal, say } = options;
  const notes = notesOf(settings.deployment);
  const { user } = serverNames(settings.deployment, settings.server.dataDirectory);
  const access = readHostFile("restore/access.sh");
  let key: string | undefined;
  let directory = "";
  try {
    directory = await runDirectory(remote, notes, options);
    const { python, printed } = await prepare(remote, directory, notes, "server", options);
    key = /^ssh-ed25519 \S+/m.exec(printed)?.[0];
    if (key === undefined) throw new Problem(`${remote.name}: no SSH key could be made there`);
    const offered = await server.script(actionScript(askForHostKeys), [], { signal });
    const hostKey = chooseHostKey(offered, deployment.hostKey);
    if (hostKey === undefined) throw new Problem("server: its SSH server offers no host key that ssh takes");
    const config = renderHostFile("cht/ssh_config", {
      DEPLOYMENT: settings.deployment,
      SERVER_ADDRESS: settings.server.address,
      SERVER_PORT: settings.server.port,
      SERVER_USER: user,
      // The same rules as on the CHT machine, with this machine's key.
      KEY: `${directory}/ssh_key`,
      KNOWN_HOSTS: `${directory}/known_hosts`,
    });
    const files = {
      ssh_config: config.replace(/^#.*\n/gm, ""),
      known_hosts: `offsite ${hostKey}\n`,
    };
    await remote.script(writeFiles(directory, files), [], { signal });
    // Not to be interrupted: letting in must not come after shutting out.
    await server.script(access, ["allow", user, String(KEY_HOURS), serveCommand(settings.deployment), key]);
    return await work({
      programs: directory,
      notes,
      python,
      request: request(deployment, `${directory}/borg`, `${directory}/ssh_config`),
    });
  } finally {
    const undone = await Promise.allSettled([
      key === undefined ? undefined : server.script(access, ["revoke", user, key]),
      directory === "" ? undefined : remote.script('rm -rf "$1"', [directory]),
    ]);
    for (const each of undone) {
      if (each.status === "rejected") say(`note: not tidied up: ${(each.reason as Error).message}`);
    }
    if (undone[0].status === "rejected") {
      say(`note: the temporary key stays in the server's ${user}/.ssh/authorized_keys and lets nobody in after a day`);
    }
  }
}
