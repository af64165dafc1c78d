/** docs/reliability.md, from what campaigns have found: `results.jsonl`, a line a round or a hostile act. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { project } from "../toolchain/paths";
import { elsewhere } from "./elsewhere";
import type { Act } from "./hostile";
import type { Load } from "./load";
import type { Round } from "./round";
import { answersTable, isWell, programsTable, table } from "./summary";

export const pageFile = join(project, "docs", "reliability.md");
export const resultsFile = join(__dirname, "results.jsonl");

/** `only` is the word that a round was drawn with. */
type Played = Round & { when: string; only?: string };
/** Faults that make the table worth something. */
const AIM = 200;
type Line = Played | ((Act | Load) & { when: string });
const isAct = (line: Line): line is Act & { when: string } => "means" in line;
const isLoad = (line: Line): line is Load & { when: string } => "load" in line;

/** What can't be tried on the lab, and why. */
const untried: [what: string, why: string][] = [
  [
    "packets in another order, delayed, or doubled",
    "the kernel here has no `netem`; lost, reset and slow ones are tried",
  ],
  ["clocks that jump or are wrong", "the lab's machines are containers, which have their host's clock"],
  ["the page cache lost, and torn last blocks", "killing a container leaves what was written with the host's kernel"],
  [
    "a slow disk",
    "the containers have no control of their own over input and output; a process that stands still is tried",
  ],
  [
    "too little memory by the control group",
    "the lab's containers have no memory controller; the address space is bounded instead",
  ],
  ["an upgrade of Docker or of the distribution", "no newer packages; the same ones are installed again in the middle"],
  [
    "compaction by a real CouchDB",
    "its image needs a registry: the lab's stand-in serves real files, which are swapped as a compaction does",
  ],
];

const others = `## How others test theirs

- **pgBackRest** has unit tests of which each source file's must cover every line and branch, or the run fails; integration
  tests in containers of several distributions against real PostgreSQL versions; stand-ins for PostgreSQL's library and
  child processes for what is hard to bring about ([CONTRIBUTING](https://github.com/pgbackrest/pgbackrest/blob/main/CONTRIBUTING.md),
  [coverage](https://access.crunchydata.com/documentation/backrest/2.15.1/metric/)).
- **borg** runs its archiver's tests locally and against \`borg serve\`; \`corruption_test.py\` damages caches and
  \`check_cmd_test.py\` repositories. A test for full disks with random sizes is there (\`disk_full_test.py\`), which asks for a
  disk of its own, is skipped without one, and removes locks by hand
  ([testsuite](https://github.com/borgbackup/borg/tree/master/src/borg/testsuite/archiver)).
- **restic** runs one suite of tests against each kind of storage
  ([internal/backend/test](https://github.com/restic/restic/tree/master/internal/backend/test)), and feeds its checker
  damaged and lying repositories, which it has to find
  ([checker_test.go](https://github.com/restic/restic/blob/master/internal/checker/checker_test.go)).
- **CouchDB** has unit tests in Erlang, some by random properties (\`couch_btree_prop_tests\`), compactions that are ended
  at each of their steps (\`couch_bt_engine_compactor_ev_tests\`), and suites over HTTP in Elixir and Python
  ([README-DEV](https://github.com/apache/couchdb/blob/main/README-DEV.rst)).

None of them publishes a campaign against the whole way, from a live database to a restored one; this is ours.
`;

const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;

function markdown([head = [], ...lines]: readonly (readonly string[])[]): string {
  return [row(head), row(head.map(() => "---")), ...lines.map(row)].join("\n");
}

/** What went wrong, so that it can be played again. */
function failures(rounds: readonly Round[]): string {
  const wrong = rounds.filter((round) => !isWell(round));
  if (wrong.length === 0) return "No round went wrong.";
  const lines = wrong.map(
    ({ seed, round, fault, victim, problems }) =>
      `- seed ${seed}, round ${round} (${fault}; ${victim}): ${problems[0]}`,
  );
  return `What went wrong:\n\n${lines.join("\n")}`;
}

function untold(rounds: readonly Round[]): string {
  const silent = rounds.filter(({ hit }) => hit === "untold");
  const names = [...new Set(silent.map(({ fault, victim }) => `${fault} (${victim})`))].sort();
  if (names.length === 0) return "";
  return `\nNobody was told at once of: ${names.join("; ")}. The next run made up for it. A machine that lost its power can't tell; another one
does when it stays silent ([runbook](runbook.md#cht-silent)).\n`;
}

/** What the newest load test has found. */
function underLoad(load: Load & { when: string }): string {
  const runs = load.problems.length === 0 ? "Every run came out right." : load.problems.join("; ");
  return `
## Under load

\`npm run campaign -- --load\`, on ${load.when.slice(0, 10)}: a real CouchDB of ${(load.bytes / 1e9).toFixed(0)} GB with ${load.documents.toLocaleString("en")} documents, into which
eleven documents and half a photograph were written each second; for ${load.minutes} minutes a backup every ${load.every}, copies to the bucket, a drill
and a retention run beside them, all on one computer with two processors, the server and the bucket, too. ${runs}

How long the CHT took to answer its users while any of them ran, and in ${2 * load.quiet} minutes without them, before and after:

${markdown(answersTable(load))}
${load.remark === undefined ? "" : `\n${load.remark}\n`}
What the programs took; the memory is the most that one process of a program had resident:

${markdown(programsTable(load))}
`;
}

/** The page. Pure. */
export function page(text: string): string {
  const lines = text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
  const acts = lines.filter(isAct);
  const load = lines.filter(isLoad).at(-1);
  const rounds = lines.filter((line): line is Played => !isAct(line) && !isLoad(line));
  const days = [...new Set(lines.map(({ when }) => when.slice(0, 10)))].sort();
  const tried = rounds.filter(({ hit }) => hit !== "missed");
  const seeds = [...new Set(rounds.map(({ seed }) => seed))];
  const byName = new Map(acts.map((act) => [`${act.means}: ${act.name}`, act]));
  const means = [...new Set([...byName.values()].map((act) => act.means))];
  const counted = means.map((each) => {
    const of = [...byName.values()].filter((act) => act.means === each);
    return [each, String(of.length), String(of.filter(({ refused }) => !refused).length)];
  });
  const named = means.map((each) => {
    const names = [...byName.values()].filter((act) => act.means === each).map(({ name }) => name);
    return `- with ${each}: ${names.join("; ")}`;
  });
  return `<!-- Made by \`npm run campaign -- --write-docs\` from campaign/results.jsonl. -->
# Reliability

\`npm run campaign\` draws faults from a seed, lets each hit a program of the [lab](developing.md#first-hour) in the middle of
its work, heals nothing by hand (only the fault itself goes away), and then looks whether all is as it must be:

- every finished archive of before is listed; the new ones and one of the older ones, at the end all, are extracted, equal
  their manifests, and hold byte for byte what they held when they were first seen;
- every finished copy in the bucket is there, each of its objects locked;
- the program that was hit comes out right when it is run again;
- somebody was told: an alarm came, or the operator's command ended with an exit code and a reason;
- seals are there, the audit finds nothing odd; no secret is in a journal, in a file that others may read, in a report, in a
  process's arguments; a preview says that nothing differs (these two every ten rounds, and at the end).

## Faults

${tried.length} faults of ${seeds.length} seeds (${seeds.join(", ")}), on ${days.join(", ")}, on one computer with two
processors that had other work, too; ${rounds.length - tried.length} more came when the program had ended, and don't count.
Each can be played again: \`npm run campaign -- --seed SEED --round ROUND\`, with \`--only WORD\`
where its line in \`campaign/results.jsonl\` has one.

${markdown(table(rounds))}

“Came out right”: the run that was hit, by itself. The median is the time in seconds from the fault's end until a run had come
out right, of the others.
${tried.length < AIM ? `\nThe aim is ${AIM}: so far ${tried.length} were played, so most of what \`--list\` names hasn't been yet.\n` : ""}${untold(rounds)}
${failures(rounds)}

## Hostile acts

${byName.size} acts were played on the lab, by name; after them all archives were there and the same, the audit had told, and
the next backup came out right:

${markdown([["with", "tried", "granted"], ...counted])}

${named.join("\n")}

The writer may write over a segment's name: that is granted to it, and harms no finished copy. ${elsewhere.length} more have tests of
their own, which every run of the tests plays:

${markdown([["with", "act", "test"], ...elsewhere.map(({ means: by, name, file }) => [by, name, `\`${file}\``])])}

and random sessions with the guard, drawn from a seed (\`test/guard/test_random.py\`).
${load === undefined ? "" : underLoad(load)}
## What can't be tried here

${markdown([["what", "why"], ...untried])}

${others}`;
}

/** The page as it has to be. */
export const reliability = () => page(readFileSync(resultsFile, "utf8"));
