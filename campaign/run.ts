/** `npm run campaign`: faults on the lab, drawn from a seed, and what must hold after each of them. */
import { appendFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { table as aligned } from "../bench/figures";
import { machines, stateOf } from "../lab/machines";
import { main, onInterrupt } from "../toolchain/main";
import { plain } from "../toolchain/plain";
import { duration, Problem } from "../toolchain/progress";
import { AlarmReceiver } from "./alarms";
import { attack } from "./attack";
import { faults } from "./faults";
import type { Act } from "./hostile";
import { Archives, Copies, shownSecrets } from "./invariants";
import { untune } from "./lab";
import { underLoad } from "./load";
import { pageFile, reliability } from "./page";
import { play, type Round, type Scene } from "./round";
import { answersTable, isWell, line, programsTable, table } from "./summary";
import { preview } from "./victims";

const help = `Usage: npm run campaign [-- OPTIONS]

Draws faults from a seed, lets each hit a program of the lab in the middle of its work (a backup, a copy, a drill, retention,
a restore, an up), heals nothing by hand, and looks after each: every archive of before is listed, opens and is what it was;
the program's next run comes out right by itself; somebody was told; nothing else has changed. The lab is what \`npm run lab\` makes.

  --rounds N     how many (default 20)
  --seed S       where the drawing begins (default: the time)
  --round K      only this one, as the seed draws it
  --only WORD    only kinds and faults with this word
  --minutes M    begin no further round after so many minutes
  --load         no faults, but all programs at once on a large CouchDB that is being written to, which needs CouchDB's own
                 image: whether each comes out right, its memory, and how much slower the CHT answers meanwhile
  --gigabytes G  with --load: how large CouchDB is (default 10)
  --every E      with --load: minutes from one backup to the next (default 5; --minutes of them, 60 by default)
  --hostile      hostile acts instead of faults: each by name, with the CHT machine's key, its passphrase, the bucket's keys
  --newest N     of the archives at the beginning look into so many (default 20); the others must stay listed
  --json FILE    add each round, or act, to FILE, as a line of JSON
  --write-docs   write docs/reliability.md from campaign/results.jsonl (what --json has added there), and do nothing else
  --list         print kinds and faults, and change nothing
  --help         this text

Exit codes: 0 all is as it must be, 1 something isn't (its seed and round repeat it), 2 wrong option, 130 Ctrl-C.
`;

/** Secrets, copies and the preview take a while: they are looked at every so many rounds, and at the end. */
const SELDOM = 10;
/** How long only the CHT works before the load, and again after it. */
const QUIET_MINUTES = 5;

function wholeNumber(option: string, text: string): number {
  if (!/^[0-9]{1,10}$/.test(text)) throw new Error(`--${option} ${text}: must be a whole number`);
  return Number(text);
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        rounds: { type: "string", default: "20" },
        seed: { type: "string" },
        round: { type: "string" },
        only: { type: "string" },
        minutes: { type: "string" },
        newest: { type: "string", default: "20" },
        json: { type: "string" },
        hostile: { type: "boolean" },
        load: { type: "boolean" },
        gigabytes: { type: "string", default: "10" },
        every: { type: "string", default: "5" },
        "write-docs": { type: "boolean" },
        list: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
    const { only } = values;
    const chosen = faults.filter(({ kind, name }) => only === undefined || `${kind} ${name}`.includes(only));
    if (chosen.length === 0 && !values.hostile)
      throw new Error(`--only ${only}: there is no such fault; --list names them`);
    return {
      ...values,
      chosen,
      rounds: wholeNumber("rounds", values.rounds),
      seed: values.seed === undefined ? Math.floor(Date.now() / 1000) : wholeNumber("seed", values.seed),
      round: values.round === undefined ? undefined : wholeNumber("round", values.round),
      newest: wholeNumber("newest", values.newest),
      gigabytes: wholeNumber("gigabytes", values.gigabytes),
      every: wholeNumber("every", values.every),
      minutes: values.minutes === undefined ? undefined : wholeNumber("minutes", values.minutes),
    };
  } catch (error) {
    process.stderr.write(`campaign: ${(error as Error).message.split("\n")[0]}\n\n${help}`);
    return undefined;
  }
}

const say = (text: string) => process.stdout.write(`${text.split("\n").map(plain).join("\n")}\n`);

/** What takes a while to look at. What can't be looked at is as bad. */
const seldom = (copies: Copies) => look(copies).catch((error: Error) => [`BROKEN: ${error.message}`]);

async function look(copies: Copies): Promise<string[]> {
  await untune();
  const shown = await preview();
  const drift = shown.clean ? [] : [`PREVIEW: something differs from the stack: ${shown.words}`];
  return [...drift, ...(await copies.check()), ...(await shownSecrets())];
}

async function load(gigabytes: number, minutes = 60, every: number, keep: (line: object) => void): Promise<number> {
  const begin = Date.now();
  const found = await underLoad({ gigabytes, minutes, every, quiet: QUIET_MINUTES }, say);
  keep(found);
  say(`\n${aligned(answersTable(found))}\n\n${aligned(programsTable(found))}\n`);
  for (const text of found.problems) say(`  ${text}`);
  const ended = found.problems.length === 0 ? "every run came out right" : "NOT all is right";
  say(`${minutes} minutes of load in ${duration(Date.now() - begin)}; ${ended}`);
  say("The lab keeps what was written: `npm run lab:down` removes it.");
  return found.problems.length === 0 ? 0 : 1;
}

async function campaign(): Promise<number> {
  const chosen = options();
  if (chosen === undefined) return 2;
  if (chosen.help) {
    process.stdout.write(help);
    return 0;
  }
  if (chosen["write-docs"]) {
    writeFileSync(pageFile, reliability());
    say(`wrote ${pageFile}`);
    return 0;
  }
  if (chosen.list) {
    for (const { kind, name, victims } of chosen.chosen) say(`${kind}: ${name} (${victims.join(", ")})`);
    return 0;
  }
  for (const machine of machines) {
    if ((await stateOf(machine)) !== "running") throw new Problem("the lab isn't there: `npm run lab` sets it up.");
  }
  onInterrupt(
    "Stopped. The lab is as the last round left it: `npm run lab` makes it what its stack says.",
    () => undefined,
  );
  const keep = (line: object) => {
    const text = `${JSON.stringify({ ...line, when: new Date().toISOString() })}\n`;
    if (chosen.json) appendFileSync(chosen.json, text);
  };
  if (chosen.load) return await load(chosen.gigabytes, chosen.minutes, chosen.every, keep);
  const alarms = new AlarmReceiver();
  const scene: Scene = { alarms, alarmAddress: await alarms.listen(), archives: new Archives() };
  const copies = new Copies();
  const begin = Date.now();
  const rounds: Round[] = [];
  const wrong: string[] = [];
  const found = (where: string, problems: readonly string[]) => {
    for (const text of problems) {
      wrong.push(`${where}: ${text}`);
      say(`  ${where}: ${text}`);
    }
  };
  let acts = 0;
  try {
    found("the beginning", [...(await scene.archives.begin(chosen.newest)), ...(await copies.check())]);
    say(`at the beginning: ${scene.archives.size} archives, ${copies.size} copies`);
    if (chosen.hostile) {
      const tell = (act: Act) => {
        acts += 1;
        keep(act);
        say(`${String(acts).padStart(4)}  ${act.means}: ${act.name}: ${act.refused ? "" : "GRANTED: "}${act.answer}`);
      };
      found("hostile acts", await attack(scene, copies, chosen.only, tell));
    } else {
      say(`seed ${chosen.seed}: ${chosen.chosen.length} faults to draw from`);
      const last = chosen.round ?? chosen.rounds;
      for (let number = chosen.round ?? 1; number <= last; number++) {
        if (chosen.minutes !== undefined && Date.now() - begin > chosen.minutes * 60_000) break;
        const round = await play(chosen.chosen, chosen.seed, number, scene);
        rounds.push(round);
        say(line(round));
        keep({ ...round, ...(chosen.only === undefined ? {} : { only: chosen.only }) });
        if (number % SELDOM === 0 && number !== last) found(`after round ${number}`, await seldom(copies));
      }
    }
    found("the end", [...(await scene.archives.check((names) => names, [])), ...(await seldom(copies))]);
  } finally {
    alarms.close();
    await untune();
  }
  if (rounds.length > 0) say(`\n${aligned(table(rounds))}`);
  const failed = rounds.filter((round) => !isWell(round));
  const drawnFrom = chosen.only === undefined ? "" : ` --only '${chosen.only}'`;
  for (const { seed, round, fault } of failed)
    say(`again: npm run campaign -- --seed ${seed} --round ${round}${drawnFrom}   (${fault})`);
  const all = `${scene.archives.size} archives and ${copies.size} copies are there and right`;
  say(
    `${acts > 0 ? `${acts} hostile acts` : `${rounds.length} rounds`} in ${duration(Date.now() - begin)}; ${wrong.length + failed.length === 0 ? all : "NOT all is right"}`,
  );
  return wrong.length + failed.length === 0 ? 0 : 1;
}

if (require.main === module || process.argv[1] === __filename) void main("campaign", campaign);
