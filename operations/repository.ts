/** A machine's way to the repository for as long as an operation takes: scripts and, where it has none, a key. */
import { readHostFile, renderHostFile } from "../components/host-files";
import { chtNames, serveCommand, serverNames } from "../components/names";
import { Problem } from "../toolchain/progress";
import type { Remote } from "./remote";
import type { Deployment } from "./stack";

const scripts = [
  "cht/backup.py",
  "cht/couch_files.py",
  "cht/manifest.py",
  "cht/plan.py",
  "restore/part.py",
  "restore/restore.py",
  "restore/verify.py",
];
/** After this the temporary key lets nobody in, even where it could not be removed. It is looked at when a connection
 * begins, so an extraction may take longer. */
const KEY_HOURS = 24;

/** What `restore.py` has to be told besides what is wanted of it. */
export interface Way {
  /** Where its scripts are, in `bin/`. */
  programs: string;
  /** Where it keeps its notes. */
  notes: string;
  python: string;
  request: { repository: string; passphrase: string; baseDirectory: string; sshConfig: string; server: string };
}

/** A shell script that writes files, each 0600, below a directory. */
export function writeFiles(directory: string, files: Record<string, string>): string {
  const lines = Object.entries(files).map(
    ([name, text]) => `printf %s ${Buffer.from(text).toString("base64")} | base64 -d > '${directory}/${name}'`,
  );
  return ["set -eu; umask 077", `mkdir -p '${directory}/bin'`, ...lines, ""].join("\n");
}

function programs(): Record<string, string> {
  return Object.fromEntries(scripts.map((name) => [`bin/${name.split("/")[1]}`, readHostFile(name)]));
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
    await cht.script(writeFiles(directory, programs()), [], { signal });
    return await work({
      programs: directory,
      notes: directory,
      python: `${names.programs}/venv/bin/python`,
      request: request(deployment, `${names.state}/borg`, `${names.settings}/ssh_config`),
    });
  } finally {
    await cht.script('rm -rf "$1"', [directory]);
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
  options: { installDocker: boolean; say: (text: string) => void; signal: AbortSignal },
  work: (way: Way) => Promise<T>,
): Promise<T> {
  const { settings } = deployment;
  const { signal, say } = options;
  const notes = notesOf(settings.deployment);
  const { user, repository } = serverNames(settings.deployment, settings.server.dataDirectory);
  const access = readHostFile("restore/access.sh");
  let key: string | undefined;
  let directory = "";
  try {
    // Of this run only: another run, which will be refused, must not touch it.
    const make = 'umask 077; mkdir -p "$1"; mktemp -d "$1/run.XXXXXXXX"';
    directory = (await remote.script(make, [notes], { signal })).trim();
    const prepared = await remote.script(
      readHostFile("restore/prepare.sh"),
      [directory, options.installDocker ? "yes" : "no"],
      { signal, onError: say },
    );
    key = /^ssh-ed25519 \S+/m.exec(prepared)?.[0];
    if (key === undefined) throw new Problem(`${remote.name}: no SSH key could be made there`);
    const hostKey =
      settings.machines.server.hostKey ??
      /^\S+ \S+/.exec(await server.script("cat /etc/ssh/ssh_host_ed25519_key.pub", [], { signal }))?.[0];
    const config = renderHostFile("cht/ssh_config", {
      DEPLOYMENT: settings.deployment,
      SERVER_ADDRESS: settings.server.address,
      SERVER_PORT: settings.server.port,
      SERVER_USER: user,
    });
    const files = {
      ...programs(),
      // The same rules as on the CHT machine, with this machine's key.
      ssh_config: config
        .replaceAll(`${chtNames(settings.deployment).settings}/`, `${directory}/`)
        .replace(/^#.*\n/gm, ""),
      known_hosts: `offsite ${hostKey}\n`,
    };
    await remote.script(writeFiles(directory, files), [], { signal });
    // Not to be interrupted: letting in must not come after shutting out.
    await server.script(access, ["allow", user, String(KEY_HOURS), serveCommand(repository), key]);
    return await work({
      programs: directory,
      notes,
      python: "python3",
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
