/** `npm run restore`: puts a CHT back on an empty machine, from the operator's computer; or gets a part of it out. */
import { normalize } from "node:path/posix";
import { duration } from "../toolchain/progress";
import { afterRestore } from "./left-behind";
import { command, exitCodes, optionsOf, Refused, remark, say } from "./main";
import { parseDestination, Remotes } from "./remote";
import { bucketOf, hasOwnWay, notesOf, throughBucket, throughCht, throughTemporaryKey, type Way } from "./repository";
import { located, readWithoutServer, withServer } from "./stack";

const help = `Usage: npm run restore -- --stack STACK --from server|bucket --to DESTINATION [OPTIONS]

Puts a CHT back on an empty Ubuntu or Debian machine: CouchDB's directory, compose files, .env, Docker volumes with
credentials and certificate. Everything is extracted beside its place and compared with the archive's manifest before
it is put there. What was interrupted goes on when the command is run again.

With --database or --path it gets only that out of the archive, into an empty directory, and touches nothing else: also
on the machine of a CHT that runs (\`--to cht\`).

  --stack STACK          the stack
  --from server|bucket   which copy of the repository. From the bucket it is fetched whole first, and every file is
                         compared with its checksum; the server isn't asked, it may be gone
  --to DESTINATION       the machine: [user@]host[:port], or a name in host:machines; root or sudo without a password.
                         It must reach the server's SSH at cht-backup:server.address, or the bucket
  --archive NAME         this archive (\`npm run archives\` lists them). Default: the newest finished one
  --as-of TIME           the newest one begun by this time: 2026-11-21 (all of that day, UTC), 2026-11-21T14:00Z,
                         or 2026-11-21T14:00 (your time zone)
  --copy-as-of TIME      from the bucket: the newest copy that was finished by this time, for a repository that was
                         harmed later. Default: the newest copy, which holds all archives
  --fetch-into DIRECTORY from the bucket: where on DESTINATION the repository goes until the restore has succeeded: a
                         directory that is empty or not there yet. Default: /var/lib/cht-restore/DEPLOYMENT/repository
  --repository-only      from the bucket: fetch the repository and leave it there, for a new server that is to go on with
                         it; the passphrase isn't sent
  --start                start the containers (docker compose up --detach) and ask CouchDB and nginx. A CHT that sends
                         SMS by itself does so from there, and replications that run for ever (in _replicator) go on at
                         once, in both directions: not for a trial
  --install-docker       install the distribution's Docker engine and Compose where they are missing
  --dry-run              say what would be done, how much room it takes and how long; change nothing. What it takes is
                         fetched into a directory of its own there, and goes again
  --replace              move aside what is there already, instead of refusing
  --despite-problems     put it in place although checks failed, when there is no better archive
  --database NAME        only this database, proven; may be given several times
  --path PATH            only this file or directory, by its absolute path in the archive; several times, too
  --into DIRECTORY       where on DESTINATION to put it: a directory that is empty or not there yet.
                         Default: /var/lib/cht-restore/DEPLOYMENT/out/ARCHIVE
  --identity-file FILE   the private key to log in to DESTINATION with
  --ssh-config FILE      the ssh configuration to use for DESTINATION
  --help                 this text

Exit codes: 0 restored, and every check is right; 1 a check failed, it is named, and nothing was put in place unless
that is said; 2 refused or not possible, the reason is said; 130 after Ctrl-C: run it again, it goes on from there.
`;

/**
 * A time of the operator as the archives' names have it, in UTC. A date alone is its last second.
 * @param option that it was given by
 * @throws Refused
 */
export function asOf(text: string, option = "--as-of"): string {
  const date = /^\d{4}-\d\d-\d\d$/.test(text);
  const time = new Date(date ? `${text}T23:59:59Z` : text.replace(" ", "T"));
  if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(time.getTime())) {
    throw new Refused(`${option} ${text}: it must be a time such as 2026-11-21 or 2026-11-21T14:00Z`);
  }
  return time.toISOString().replace(/\.\d+Z$/, "Z");
}

/** What of an archive is wanted. */
interface Part {
  databases: string[];
  paths: string[];
  into: string | undefined;
}

/**
 * The part of an archive that the options ask for, or undefined for a whole restore. Pure.
 * @throws Refused
 */
export function partOf(options: {
  database?: string[];
  path?: string[];
  into?: string;
  start?: boolean;
  replace?: boolean;
  "install-docker"?: boolean;
  archive?: string;
  "as-of"?: string;
  "despite-problems"?: boolean;
  "repository-only"?: boolean;
}): Part | undefined {
  const { database: databases = [], path: paths = [], into } = options;
  if (options["repository-only"]) {
    const archives = ["archive", "as-of", "database", "path", "into", "start", "replace", "install-docker"] as const;
    const wrong = [...archives, "despite-problems" as const].find((name) => options[name] !== undefined);
    if (wrong === undefined) return undefined;
    throw new Refused(`--${wrong} is for what is in an archive: it can't go with --repository-only`);
  }
  if (databases.length === 0 && paths.length === 0) {
    if (into === undefined) return undefined;
    throw new Refused("--into goes with --database or --path only: a whole CHT is put where it was");
  }
  const wrong = (["start", "replace", "install-docker"] as const).find((name) => options[name]);
  if (wrong !== undefined) throw new Refused(`--${wrong} is for a whole CHT: it can't go with --database or --path`);
  if (databases.includes(""))
    throw new Refused("--database is empty: it must be the name of a database, such as medic");
  for (const [option, given] of [
    ["--path", paths],
    ["--into", into === undefined ? [] : [into]],
  ] as const) {
    const relative = given.find((path) => !path.startsWith("/") || path.includes("\n"));
    if (relative !== undefined) throw new Refused(`${option} ${relative}: it must be an absolute path`);
  }
  if (paths.some((path) => normalize(path) === "/")) throw new Refused("--path /: leave it out, that is the whole CHT");
  return { databases, paths, into };
}

/**
 * Which copy of the repository the options ask for. Pure.
 * @throws Refused
 */
export function sourceOf(options: {
  from?: string;
  "copy-as-of"?: string;
  "fetch-into"?: string;
  "repository-only"?: boolean;
}) {
  const { from, "copy-as-of": copyAsOf, "fetch-into": into } = options;
  if (from !== "server" && from !== "bucket") {
    throw new Refused(
      `--from ${from === undefined ? "is missing" : from}: it must be \`server\`, the offsite server, or \`bucket\`, its copy in the bucket`,
    );
  }
  for (const [name, value] of [
    ["--copy-as-of", copyAsOf],
    ["--fetch-into", into],
    ["--repository-only", options["repository-only"]],
  ]) {
    if (from === "server" && value !== undefined) throw new Refused(`${name} goes with --from bucket only`);
  }
  if (into !== undefined && (!into.startsWith("/") || into.includes("\n") || normalize(into) === "/")) {
    throw new Refused(`--fetch-into ${into}: it must be an absolute path`);
  }
  return { from, copyAsOf: copyAsOf === undefined ? undefined : asOf(copyAsOf, "--copy-as-of"), into };
}

async function restore(signal: AbortSignal): Promise<number> {
  const options = optionsOf(help, {
    from: { type: "string" },
    to: { type: "string" },
    archive: { type: "string" },
    "as-of": { type: "string" },
    "copy-as-of": { type: "string" },
    "fetch-into": { type: "string" },
    start: { type: "boolean" },
    "install-docker": { type: "boolean" },
    "dry-run": { type: "boolean" },
    replace: { type: "boolean" },
    "despite-problems": { type: "boolean" },
    database: { type: "string", multiple: true },
    path: { type: "string", multiple: true },
    into: { type: "string" },
    "repository-only": { type: "boolean" },
    "identity-file": { type: "string" },
    "ssh-config": { type: "string" },
  });
  if (options === undefined) return exitCodes.right;
  const { stack } = options;
  const { to, "identity-file": identityFile, "ssh-config": configFile } = options;
  const source = sourceOf(options);
  if (to === undefined)
    throw new Refused("--to is missing: the machine to restore to, for instance root@new.example.org");
  if (options.archive !== undefined && options["as-of"] !== undefined) {
    throw new Refused("--archive and --as-of exclude each other");
  }
  const part = partOf(options);
  const wanted = {
    ...part,
    archive: options.archive,
    asOf: options["as-of"] === undefined ? undefined : asOf(options["as-of"]),
    start: options.start,
    dryRun: options["dry-run"],
    installDocker: options["install-docker"],
    replace: options.replace,
    despiteProblems: options["despite-problems"],
    repositoryOnly: options["repository-only"],
    // Whoever holds a server has no need of it.
    ...(options["repository-only"] ? { passphrase: "" } : {}),
  };
  const begin = Date.now();
  const deployment = await readWithoutServer(stack);
  const bucket = source.from === "bucket" ? bucketOf(deployment.settings, stack) : undefined;
  const known = deployment.settings.machines[to];
  const machine = known ? located(to, known) : parseDestination(to, { identityFile, configFile });
  const remotes = new Remotes();
  const destination = remotes.connect(to, machine, known ? undefined : "--to");
  try {
    const work = async ({ programs, python, request }: Way) => {
      const words = [`${programs}/chtbackup`, ...(part === undefined ? ["restore", "restore"] : ["part"])];
      const finished = await destination.run([...python, "-B", ...words, notesOf(deployment.settings.deployment)], {
        stdin: `${JSON.stringify({ ...request, ...wanted })}\n`,
        keepOpen: true,
        signal,
        onLine: say,
        onError: remark,
      });
      return finished.code;
    };
    const installDocker = options["install-docker"] ?? false;
    const course = { installDocker, dryRun: options["dry-run"] ?? false, say, signal };
    const fromServer = async () => {
      const complete = withServer(deployment);
      // For a part nothing need be installed on the CHT machine: it has all that its backups need.
      const own = part !== undefined && to === "cht" && (await hasOwnWay(destination, complete, signal));
      return own
        ? await throughCht(destination, complete, signal, work)
        : await throughTemporaryKey(
            destination,
            remotes.connect("server", complete.settings.machines.server),
            complete,
            course,
            work,
          );
    };
    const code = bucket
      ? await throughBucket(destination, bucket, deployment, { ...course, ...source }, work)
      : await fromServer();
    if (signal.aborted) remark("Stopped. The same command goes on from here.");
    else say(`${code === 0 ? "done" : "ended"} after ${duration(Date.now() - begin)}`);
    const whole = part === undefined && !options["dry-run"] && !options["repository-only"];
    if (code === 0 && whole && !signal.aborted) {
      for (const line of afterRestore(stack, deployment.settings, machine)) say(line);
    }
    return code === 0 || code === 1 ? code : exitCodes.refused;
  } finally {
    remotes.close();
  }
}

if (require.main === module || process.argv[1] === __filename) void command("restore", restore);
