/** How things stand, as lines for a terminal: the worst first, then the last of each, space, and what runs next. Pure. */
import { plain } from "../../toolchain/plain";
import { age, ago, clock, count, size, UNKNOWN } from "../words";
import type { Condition, Verdict } from "./overview";
import type { Disk, Facts, Report } from "./report";

/** A machine that couldn't be asked. */
export interface Unreached {
  name: string;
  why: string;
}

export interface Overview {
  deployment: string;
  verdict: Verdict;
  conditions: Condition[];
  reports: Report[];
  unreached: Unreached[];
  /** When this was asked, in seconds since 1970. */
  at: number;
}

const words: Record<Verdict, string> = {
  well: "all is well",
  warnings: "there are warnings",
  somebody: "SOMEBODY HAS TO LOOK",
  unknown: "NOT EVERYTHING IS KNOWN",
};

/** Columns of one width each; the last one as it comes. */
function columns(rows: readonly string[][]): string[] {
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(width(column)))
      .join("  ")
      .trimEnd(),
  );
}

/** A heading's column before its rows; nothing without rows. */
const table = (heads: string[], rows: string[][]) => (rows.length === 0 ? [] : ["", ...columns([heads, ...rows])]);

function conditionLines(
  { severity, title, since, toldBy, text, todo, link, explains }: Condition,
  now: number,
): string[] {
  const begun = since === null ? "" : `, since ${clock(since)} UTC (${ago(since, now)})`;
  const lines = [`${severity === "critical" ? "CRITICAL" : "warning "}  ${title} (${toldBy.join(", ")}${begun})`];
  if (text !== "") lines.push(text);
  if (todo !== "") lines.push(`What to do: ${todo}`);
  if (link !== "") lines.push(`More: ${link}`);
  if (explains.length > 0) lines.push(`From it follows: ${explains.join("; ")}`);
  return lines.map((line, index) => `${index === 0 ? "" : " ".repeat(10)}${line}`);
}

type Duty = Exclude<keyof Facts, "disk" | "units" | "lastTransactionAt" | "certificateEnds">;

/** What a run came to, by what ran; nothing where that isn't known. */
const figures: { [D in Duty]: (fact: NonNullable<Facts[D]>) => string[] } = {
  backup: ({ files, originalSize, deduplicatedSize }) =>
    originalSize === null ? [] : [count(files, "file"), size(originalSize), `${size(deduplicatedSize)} new`],
  copy: ({ uploadedBytes }) => (uploadedBytes === null ? [] : [`${size(uploadedBytes)} uploaded`]),
  check: () => [],
  drill: ({ counts, from, seconds }) => {
    const documents = Object.values(counts);
    return [
      ...(documents.length === 0
        ? []
        : [
            count(
              documents.reduce((sum, each) => sum + each),
              "document",
            ),
          ]),
      `from the ${from === "bucket" ? "bucket" : "server"}`,
      ...(seconds === null ? [] : [`took ${age(seconds)}`]),
    ];
  },
  retention: ({ removed, freed }) => [`${count(removed, "archive")} removed`, `${size(freed)} freed`],
  audit: ({ archives }) => [count(archives, "archive")],
};

function runRow<D extends Duty>(duty: D, { role, at, facts }: Report): string[] | undefined {
  const fact = facts[duty];
  if (fact === null) return undefined;
  const now = at ?? 0;
  const { ok, finishedAt, lastSuccessAt, problems } = fact;
  const last = ok ? "" : `FAILED ${ago(finishedAt, now)}`;
  const wrong = problems.length === 0 ? [] : [count(problems.length, "problem")];
  const came = [...figures[duty](fact as NonNullable<Facts[D]>), ...wrong].join(", ");
  return [duty, ago(lastSuccessAt, now), last, role, came];
}

function spaceRow({ role, at }: Report, disk: Disk): string[] {
  const { total, free, growthPerWeek, fullAt, reserve } = disk;
  const held = (["repository", "data", "bucket"] as const).flatMap((name) =>
    disk[name] === null ? [] : [`${name} ${size(disk[name])}`],
  );
  if (reserve === false) held.push("RESERVE GONE");
  return [
    role,
    `${size(free)} of ${size(total)}`,
    growthPerWeek === null ? "not known yet" : size(growthPerWeek),
    fullAt === null ? "not in sight" : `${clock(fullAt).slice(0, 10)} (in ${age(fullAt - (at ?? 0))})`,
    held.join(", "),
  ];
}

/** What runs by itself, the soonest first; before that what never will. */
function nextRows(reports: readonly Report[]): string[][] {
  const units = reports.flatMap(({ role, at, facts }) => facts.units.map((unit) => ({ ...unit, role, now: at ?? 0 })));
  return units
    .filter(({ next, masked }) => masked || next !== null)
    .sort((one, other) => (one.masked ? 0 : (one.next ?? 0)) - (other.masked ? 0 : (other.next ?? 0)))
    .map(({ unit, next, masked, role, now }) => [
      masked ? "never: MASKED" : next === null ? UNKNOWN : `in ${age(next - now)}`,
      role,
      unit,
    ]);
}

/** As many of the first lines as a screen has room for: were there more, it would scroll the worst away. */
export function fitting(all: readonly string[], screen: { rows: number; columns: number }): string[] {
  let room = screen.rows;
  const taken = all.map((line) => {
    room -= Math.max(1, Math.ceil(line.length / screen.columns));
    return room >= 0;
  });
  return all.filter((_, index) => taken[index]);
}

/** All of it. Machines choose many of the words: none of them does anything on a terminal. */
export function lines({ deployment, verdict, conditions, reports, unreached, at }: Overview): string[] {
  const silent = unreached.map(({ why }) => `UNKNOWN   ${why}`);
  const critical = conditions.filter(({ severity }) => severity === "critical");
  const warnings = conditions.filter(({ severity }) => severity === "warning");
  const duties = Object.keys(figures) as Duty[];
  const runs = duties.flatMap((duty) => reports.flatMap((report) => [runRow(duty, report) ?? []]));
  return [
    `${deployment}: ${words[verdict]} (${clock(at)} UTC)`,
    ...(conditions.length + silent.length === 0 ? [] : [""]),
    ...critical.flatMap((each) => conditionLines(each, at)),
    ...silent,
    ...warnings.flatMap((each) => conditionLines(each, at)),
    ...table(
      ["last", "success", "", "machine", "came to"],
      runs.filter((row) => row.length > 0),
    ),
    ...table(
      ["space", "free", "growth a week", "full on", "held"],
      reports.flatMap((report) => (report.facts.disk === null ? [] : [spaceRow(report, report.facts.disk)])),
    ),
    ...table(["next", "machine", "unit"], nextRows(reports)),
    ...(silent.length === 0 ? [] : ["", "A machine behind a slow link may need longer to answer: --patience 10"]),
  ].map(plain);
}
