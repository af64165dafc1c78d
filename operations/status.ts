/** `npm run status`: how a deployment's backups stand, as its machines say. */
import { writeFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { hostFile } from "../components/host-files";
import { run } from "../toolchain/command";
import { conditions } from "../toolchain/conditions";
import { plain, plainJson } from "../toolchain/plain";
import { readLooked } from "../toolchain/state-files";
import { command, optionsOf, Refused, say } from "./main";
import { readKitDigest, readWhereabouts } from "./stack";
import { type Answers, ask, questions } from "./status/ask";
import { conditionsOf, verdictOf, verdicts } from "./status/overview";
import { found as foundHere, reported } from "./status/own";
import type { Reported } from "./status/report";
import { fitting, lines, type Overview } from "./status/text";

const help = `Usage: npm run status -- --stack STACK [OPTIONS]

Asks all machines of a deployment at once how its backups stand, and says the worst first: what is wrong and what to do; the
last backup, copy, drill and others; space, and the day on which it ends; what runs next.

  --stack STACK       the stack. Its passphrase is needed only where the stack makes the server
  --json              print JSON: the verdict, what is wrong, and all that the machines reported
  --html FILE         also write it as a page, which needs no script and holds no secret
  --watch             show it anew every 10 seconds, until Ctrl-C
  --patience SECONDS  how long a machine may take to answer the connection (default 2; more on a slow link)
  --help              this text

Exit codes, for scripts: 0 all is well; 1 there are warnings; 2 somebody has to look; 3 not everything is known: a machine
couldn't be asked, or nothing could, and the reason is said; 130 after Ctrl-C. What needs somebody counts before what isn't known.
`;

/** Seconds between two looks of `--watch`. */
const PAUSE = 10;
/** Seconds that a machine may take after it has answered: on a slow link the login alone takes some. */
const REST = 8;

/**
 * What the machines said, put together. Pure.
 * @param own what this computer adds to it
 */
export function overview(
  deployment: string,
  { reports, unreached }: Omit<Answers, "raw">,
  at: number,
  own: Reported[] = [],
): Overview {
  const conditions = conditionsOf([...reports, { role: "operator", conditions: own }]);
  const verdict = verdictOf(conditions, reports.length > 0 && unreached.length === 0);
  return { deployment, verdict, conditions, reports, unreached, at };
}

/** For programs: what was found, and what the machines reported, as they did. Pure. */
export function json({ deployment, verdict, conditions, unreached, at }: Overview, raw: readonly object[]) {
  return { deployment, at, verdict, exitCode: verdicts[verdict], conditions, unreached, reports: raw };
}

/** Writes the page, which a program of the machines makes of the same reports. */
async function writePage(file: string, { unreached, at }: Overview, raw: readonly object[]): Promise<void> {
  const stdin = JSON.stringify({ reports: raw, unreached, at });
  const made = await run("python3", ["-I", "-B", hostFile("chtbackup"), "page"], { stdin, timeoutMs: 30_000 });
  if (made.code === 127) throw new Refused("--html needs `python3` on this computer");
  if (made.code !== 0) throw new Refused(`the page can't be made: ${made.stderr.trim()}`);
  try {
    writeFileSync(file, made.stdout);
  } catch (error) {
    throw new Refused(`--html ${file}: can't be written (${(error as NodeJS.ErrnoException).code})`);
  }
}

/** Shows lines in place of those before. */
function redraw(shown: readonly string[]): void {
  process.stdout.write("\u001b[H");
  for (const line of shown) process.stdout.write(`${plain(line)}\u001b[K\n`);
  process.stdout.write("\u001b[J");
}

function checked(options: { watch?: boolean; json?: boolean; html?: string; patience?: string }): number {
  if (options.watch && (options.json || options.html !== undefined)) {
    throw new Refused("--watch goes with neither --json nor --html: a scheduler can run those again and again");
  }
  if (options.watch && !process.stdout.isTTY) {
    throw new Refused(
      "--watch is for a terminal, and the output goes elsewhere: leave it out, and run it again instead",
    );
  }
  const patience = Number(options.patience ?? 2);
  if (!/^[0-9]{1,3}$/.test(options.patience ?? "2") || patience < 1) {
    throw new Refused(`--patience ${options.patience}: it must be a whole number of seconds from 1 to 999`);
  }
  return patience;
}

async function status(signal: AbortSignal): Promise<number> {
  const options = optionsOf(help, {
    json: { type: "boolean" },
    html: { type: "string" },
    watch: { type: "boolean" },
    patience: { type: "string" },
  });
  if (options === undefined) return verdicts.well;
  const patience = checked(options);
  // Beside all else, as nothing waits for it but the end.
  const digest = readKitDigest(options.stack).catch(() => undefined);
  const whereabouts = await readWhereabouts(options.stack);
  const { deployment } = whereabouts;
  const whom = questions(whereabouts);
  const limits = { connect: patience, whole: patience + REST };
  for (;;) {
    const { raw, ...answers } = await ask(whom, deployment, limits, signal);
    const now = Date.now() / 1000;
    const lookedAt = readLooked(options.stack)?.at;
    const known = { kit: whereabouts.recoveryKit, digest: await digest, lookedAt, now };
    const here = foundHere(known);
    // The list is asked for only where something of it is needed: that takes a moment.
    const found = overview(deployment, answers, now, here.length === 0 ? [] : reported(here, conditions()));
    if (signal.aborted) return verdicts.unknown;
    if (options.watch) {
      const { rows = 24, columns = 80 } = process.stdout;
      redraw([...fitting(lines(found), { rows: rows - 3, columns }), "", `Again every ${PAUSE} s, until Ctrl-C.`]);
      await setTimeout(PAUSE * 1000, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return verdicts[found.verdict];
      continue;
    }
    if (options.html !== undefined) await writePage(options.html, found, raw);
    if (options.json) process.stdout.write(plainJson(json(found, raw)));
    else for (const line of lines(found)) say(line);
    return verdicts[found.verdict];
  }
}

if (require.main === module || process.argv[1] === __filename) void command("status", status, verdicts.unknown);
