/** `npm run archives`: what is in a deployment's repository, seen from the operator's computer. */
import { serverNames } from "../components/names";
import { plain, plainJson } from "../toolchain/plain";
import { type Entry, type Listing, missing, readSeen, seenNow, writeSeen } from "./ledger";
import { command, exitCodes, optionsOf, Refused, remark } from "./main";
import { parseDestination, type Remote, Remotes } from "./remote";
import { bucketOf, throughBucket, throughCht, throughTemporaryKey, type Way } from "./repository";
import { sourceOf } from "./restore";
import { located, readWithoutServer, withServer } from "./stack";
import { megabytes } from "./words";

const help = `Usage: npm run archives -- --stack STACK [OPTIONS]

Lists the archives of a deployment, the newest first: when each was begun, files, size, documents by database.

  --stack STACK          the stack
  --from server|bucket   which copy of the repository (default server). From the bucket it is fetched to DESTINATION
                         first, whole, and stays there in /var/lib/cht-restore for a restore --from bucket
  --copy-as-of TIME      from the bucket: what the newest copy held that was finished by this time. Default: the newest
  --via DESTINATION      ask from this machine ([user@]host[:port], or a name in host:machines) instead of the CHT
                         machine; it gets borg and, for this time, a key. For the day when the CHT machine is gone
  --last N               how many archives to look into (default 10; 0 is all): a second each, more for large files
  --accept-missing       after you removed archives on purpose: take what is there now for right
  --identity-file FILE   the private key to log in to DESTINATION with
  --ssh-config FILE      the ssh configuration to use for DESTINATION
  --json                 print JSON
  --help                 this text

What this computer has seen before (in ~/.local/state/cht-backup) and the server's own ledger of ids are compared with the
list: an archive that has gone is named.

Exit codes: 0 listed; 1 listed, but archives are missing; 2 wrong option, or the repository can't be read (the reason is said); 130 after Ctrl-C.
`;

/** An archive as \`restore list\` describes it. */
export interface Archive {
  name: string;
  /** When it was begun, UTC. */
  time: string | null;
  /** False for what an interrupted backup left: it may lack anything. */
  finished: boolean;
  /** Made by hand, before the repository was adopted: without a manifest, so nothing proves that it is complete. */
  byHand?: boolean;
  /** Why it can't be read, when what the repository holds of it isn't what was stored. */
  damaged?: string;
  /** Why this program won't read it: another program's, a hostile one, or one with a manifest that isn't in order. */
  unreadable?: string;
  files?: number;
  /** Bytes. */
  size?: number;
  /** Documents by database. */
  documents?: Record<string, number>;
  /** What the backup itself reported as missing. */
  problems?: string[];
  /** CHT's version. */
  version?: string | null;
}

export interface Archives {
  archives: Archive[];
  /** How many older ones were not looked into. */
  more: number;
}

/** The list for people. Pure. */
export function table({ archives, more }: Archives): string {
  if (archives.length === 0) return "The repository holds no archive.\n";
  const lines = archives.flatMap((archive) => {
    const { name, finished, byHand, damaged, unreadable, files, size = 0, documents = {}, problems = [] } = archive;
    if (unreadable !== undefined) return `${name}  UNREADABLE: ${unreadable}`;
    if (damaged !== undefined) return `${name}  DAMAGED: ${damaged}`;
    if (!finished) return `${name}  UNFINISHED: the backup was interrupted, it can't be restored`;
    if (byHand) {
      const held = `${files} files, ${megabytes(size)}`;
      return `${name}  BY HAND: ${held}; without a manifest, so nothing proves that it is complete (docs/adopting.md)`;
    }
    const counts = Object.entries(documents);
    const total = counts.reduce((sum, [, count]) => sum + count, 0);
    return [
      `${name}  ${files} files, ${megabytes(size)}, ${total} documents`,
      `    ${counts.map(([database, count]) => `${database} ${count}`).join(", ")}`,
      ...problems.map((problem) => `    INCOMPLETE: ${problem}`),
    ];
  });
  if (more > 0) lines.push(`and ${more} older (--last 0 shows all)`);
  // Whoever made an archive chose its name and every word in its manifest.
  return `${lines.map(plain).join("\n")}\n`;
}

/** What is said on the way isn't the list. */
const aside = (line: string) => remark(`  ${line}`);

async function archives(signal: AbortSignal): Promise<number> {
  const options = optionsOf(help, {
    from: { type: "string" },
    "copy-as-of": { type: "string" },
    via: { type: "string" },
    last: { type: "string" },
    "accept-missing": { type: "boolean" },
    "identity-file": { type: "string" },
    "ssh-config": { type: "string" },
    json: { type: "boolean" },
  });
  if (options === undefined) return exitCodes.right;
  const { stack } = options;
  const last = options.last ?? "10";
  if (!/^[0-9]{1,6}$/.test(last)) throw new Refused(`--last ${last}: it must be a whole number, 0 for all`);
  const { from, copyAsOf } = sourceOf({ ...options, from: options.from ?? "server" });
  if (from === "bucket" && options.via === undefined) {
    throw new Refused("--from bucket needs --via: the machine that the repository is fetched to, and restored on");
  }
  const deployment = await readWithoutServer(stack);
  const bucket = from === "bucket" ? bucketOf(deployment.settings, stack) : undefined;
  const { machines } = deployment.settings;
  const list = async (remote: Remote, { programs, notes, python, request }: Way) => {
    const words = [...python, "-B", `${programs}/chtbackup`, "restore", "list", notes];
    const stdin = `${JSON.stringify({ ...request, last: Number(last) })}\n`;
    // What is fetched from a bucket takes its time, and says so; progress and remarks are for people at once.
    const onError = bucket && aside;
    // The last line is for us.
    const onLine = (line: string) => void (line.startsWith("{") || aside(line));
    const { code, stdout, stderr } = await remote.run(words, { stdin, keepOpen: true, signal, onLine, onError });
    if (code !== 0) throw new Refused(bucket ? "the archives can't be listed, for the reason above" : stderr.trim());
    return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as Archives & Listing;
  };
  /** What is missing beside what this computer and the server have seen. An earlier copy from the bucket lacks much. */
  const compared = async (listing: Listing): Promise<string[]> => {
    const seen = readSeen(stack);
    if (options["accept-missing"]) {
      writeSeen(stack, seenNow(listing, undefined));
      return [];
    }
    writeSeen(stack, seenNow(listing, seen));
    const names = serverNames(deployment.settings.deployment, "");
    const ledger = `exec python3 -B ${names.package} audit ledger ${names.settings}/repository.json`;
    try {
      const entries = JSON.parse(
        await remotes.connect("server", located("server", machines.server)).script(ledger, [], { signal }),
      ) as Entry[];
      return missing(listing, entries, seen);
    } catch (error) {
      remark(`note: the server's ledger can't be compared: ${(error as Error).message}`);
      return missing(listing, undefined, seen);
    }
  };
  const remotes = new Remotes();
  try {
    let found: Archives & Listing;
    if (options.via === undefined || (options.via === "cht" && !bucket)) {
      const cht = remotes.connect("cht", machines.cht);
      found = await throughCht(cht, withServer(deployment), signal, (way) => list(cht, way));
    } else {
      const { "identity-file": identityFile, "ssh-config": configFile } = options;
      const known = machines[options.via];
      const via = known
        ? remotes.connect(options.via, located(options.via, known))
        : remotes.connect(options.via, parseDestination(options.via, { identityFile, configFile }), "--via");
      const course = { installDocker: false, dryRun: false, say: aside, signal, copyAsOf };
      found = bucket
        ? await throughBucket(via, bucket, deployment, course, (way) => list(via, way))
        : await throughTemporaryKey(
            via,
            remotes.connect("server", located("server", machines.server)),
            withServer(deployment),
            course,
            (way) => list(via, way),
          );
    }
    const { repository, ids, ...archives } = found;
    const gone = bucket ? [] : await compared({ repository, ids });
    process.stdout.write(options.json ? plainJson({ ...archives, missing: gone }) : table(archives));
    for (const line of gone) remark(`MISSING: ${line}`);
    if (gone.length > 0) remark("Don't compact: docs/restore.md, 9. If you removed them yourself: --accept-missing");
    return gone.length > 0 ? exitCodes.wrong : exitCodes.right;
  } finally {
    remotes.close();
  }
}

if (require.main === module || process.argv[1] === __filename) void command("archives", archives);
