/** `npm run restore`: puts a CHT back on an empty machine, from the operator's computer. */
import { duration } from "../toolchain/progress";
import { command, exitCodes, Refused, readOptions } from "./main";
import { parseDestination, Remote } from "./remote";
import { throughTemporaryKey } from "./repository";
import { readDeployment } from "./stack";

const help = `Usage: npm run restore -- --stack STACK --from server --to DESTINATION [OPTIONS]

Puts a CHT back on an empty Ubuntu or Debian machine: CouchDB's directory, compose files, .env, Docker volumes with
credentials and certificate. Everything is extracted beside its place and compared with the archive's manifest before
it is put there. What was interrupted goes on when the command is run again.

  --stack STACK          the stack
  --from server          which copy: the offsite server is the only one so far
  --to DESTINATION       the machine: [user@]host[:port], or a name in host:machines; root or sudo without a password.
                         It must reach the server's SSH at cht-backup:server.address
  --archive NAME         this archive (\`npm run archives\` lists them). Default: the newest finished one
  --as-of TIME           the newest one begun by this time: 2026-11-21 (all of that day, UTC), 2026-11-21T14:00Z,
                         or 2026-11-21T14:00 (your time zone)
  --start                start the containers (docker compose up --detach) and ask CouchDB and nginx
  --install-docker       install the distribution's Docker engine and Compose where they are missing
  --dry-run              say what would be done, how much room it takes and how long; change nothing but install borg
  --replace              move aside what is there already, instead of refusing
  --despite-problems     put it in place although checks failed, when there is no better archive
  --identity-file FILE   the private key to log in to DESTINATION with
  --ssh-config FILE      the ssh configuration to use for DESTINATION
  --help                 this text

Exit codes: 0 restored, and every check is right; 1 a check failed, it is named, and nothing was put in place unless
that is said; 2 refused or not possible, the reason is said; 130 after Ctrl-C: run it again, it goes on from there.
`;

/**
 * A time of the operator as the archives' names have it, in UTC. A date alone is its last second.
 * @throws Refused
 */
export function asOf(text: string): string {
  const date = /^\d{4}-\d\d-\d\d$/.test(text);
  const time = new Date(date ? `${text}T23:59:59Z` : text.replace(" ", "T"));
  if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(time.getTime())) {
    throw new Refused(`--as-of ${text}: it must be a time such as 2026-11-21 or 2026-11-21T14:00Z`);
  }
  return time.toISOString().replace(/\.\d+Z$/, "Z");
}

async function restore(signal: AbortSignal): Promise<number> {
  const options = readOptions(
    {
      stack: { type: "string" },
      from: { type: "string" },
      to: { type: "string" },
      archive: { type: "string" },
      "as-of": { type: "string" },
      start: { type: "boolean" },
      "install-docker": { type: "boolean" },
      "dry-run": { type: "boolean" },
      replace: { type: "boolean" },
      "despite-problems": { type: "boolean" },
      "identity-file": { type: "string" },
      "ssh-config": { type: "string" },
      help: { type: "boolean", short: "h" },
    },
    process.argv.slice(2),
  );
  if (options.help) {
    process.stdout.write(help);
    return exitCodes.right;
  }
  const { stack, to, "identity-file": identityFile, "ssh-config": configFile } = options;
  if (stack === undefined) throw new Refused("--stack is missing: the name of the stack, for instance prod");
  if (options.from !== "server")
    throw new Refused("--from must be `server`: the offsite server is the only copy so far");
  if (to === undefined)
    throw new Refused("--to is missing: the machine to restore to, for instance root@new.example.org");
  if (options.archive !== undefined && options["as-of"] !== undefined) {
    throw new Refused("--archive and --as-of exclude each other");
  }
  const wanted = {
    archive: options.archive,
    asOf: options["as-of"] === undefined ? undefined : asOf(options["as-of"]),
    start: options.start,
    dryRun: options["dry-run"],
    replace: options.replace,
    despiteProblems: options["despite-problems"],
  };
  const begin = Date.now();
  const say = (text: string) => void process.stdout.write(`${text}\n`);
  const deployment = await readDeployment(stack);
  const { machines } = deployment.settings;
  const destination = new Remote(to, machines[to] ?? parseDestination(to, { identityFile, configFile }));
  const server = new Remote("server", machines.server);
  try {
    const code = await throughTemporaryKey(
      destination,
      server,
      deployment,
      { installDocker: options["install-docker"] ?? false, say, signal },
      async ({ programs, notes, python, request }) => {
        const finished = await destination.run([python, "-B", `${programs}/bin/restore.py`, "restore", notes], {
          stdin: `${JSON.stringify({ ...request, ...wanted })}\n`,
          keepOpen: true,
          signal,
          onLine: say,
          onError: (line) => void process.stderr.write(`${line}\n`),
        });
        return finished.code;
      },
    );
    if (signal.aborted) process.stderr.write("Stopped. The same command goes on from here.\n");
    else say(`${code === 0 ? "done" : "ended"} after ${duration(Date.now() - begin)}`);
    return code === 0 || code === 1 ? code : exitCodes.refused;
  } finally {
    destination.close();
    server.close();
  }
}

if (require.main === module || process.argv[1] === __filename) void command("restore", restore);
