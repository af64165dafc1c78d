/** Rounds as a line, and as a table. Pure. */
import { median } from "../bench/figures";
import type { Load } from "./load";
import type { Round } from "./round";

/** Whether a round is as it must be. A fault that hit nothing is no round. */
export const isWell = ({ problems }: Round) => problems.length === 0;

export function line(round: Round): string {
  const { round: number, fault, victim, at, hit, healed, problems } = round;
  const where = `${String(number).padStart(4)}  ${fault}: ${victim} after ${(at / 1000).toFixed(1)} s`;
  const hits = { right: "came out right", told: "told", untold: "nobody told", missed: "missed, it had ended" };
  const after = hit === "told" || hit === "untold" ? `, healed after ${healed?.toFixed(0) ?? "?"} s` : "";
  return problems.length === 0
    ? `${where}: ${hits[hit]}${after}`
    : `${where}: FAILED\n      ${problems.join("\n      ")}`;
}

export interface Row {
  kind: string;
  tried: number;
  lost: number;
  /** The run that was hit came out right by itself. */
  right: number;
  /** It didn't, somebody was told. */
  told: number;
  /** It didn't, nobody was told. */
  untold: number;
  /** The next run came out right, of those that didn't at once. */
  healed: number;
  /** Median seconds until then. */
  median: number | null;
  failed: number;
}

/** A row a kind, in order of the alphabet, and one for all. Missed ones don't count. */
export function rows(rounds: readonly Round[]): Row[] {
  const tried = rounds.filter(({ hit }) => hit !== "missed");
  const kinds = [...new Set(tried.map(({ kind }) => kind))].sort();
  const row = (kind: string, of: readonly Round[]): Row => {
    const wrong = of.filter(({ hit }) => hit !== "right");
    const times = wrong.flatMap(({ healed }) => (healed === null ? [] : [healed]));
    return {
      kind,
      tried: of.length,
      lost: of.filter(({ problems }) => problems.some((text) => text.startsWith("LOST"))).length,
      right: of.length - wrong.length,
      told: of.filter(({ hit }) => hit === "told").length,
      untold: of.filter(({ hit }) => hit === "untold").length,
      healed: times.length,
      median: times.length === 0 ? null : median(times),
      failed: of.filter((each) => !isWell(each)).length,
    };
  };
  return [
    ...kinds.map((kind) =>
      row(
        kind,
        tried.filter((each) => each.kind === kind),
      ),
    ),
    row("all", tried),
  ];
}

const head = [
  "kind",
  "tried",
  "lost",
  "came out right",
  "told",
  "not told",
  "healed by the next run",
  "median s",
  "failed",
];

export function table(rounds: readonly Round[]): string[][] {
  const cells = ({ kind, tried, lost, right, told, untold, healed, median: middle, failed }: Row) =>
    [kind, tried, lost, right, told, untold, healed, middle === null ? "" : middle.toFixed(0), failed].map(String);
  return [head, ...rows(rounds).map(cells)];
}

/** How the CHT answered under load, a row a kind of question. */
export function answersTable({ answers }: Load): string[][] {
  const ms = (number: number) => number.toFixed(1);
  const lines = Object.entries(answers).map(([kind, of]) => [
    ...[kind, ms(of.quiet), ms(of.busy), of.ratio.toFixed(2), ms(of.slow[0]), ms(of.slow[1])],
    ...[String(of.asked), String(of.failed)],
  ]);
  const head = [
    "question",
    "median ms without",
    "with backups",
    "ratio",
    "95th of 100 without",
    "with",
    "asked",
    "no answer",
  ];
  return [head, ...lines];
}

/** What each program took under load: runs, seconds, and the most memory that one process of it had. */
export function programsTable({ took, memory }: Load): string[][] {
  const runs = Object.entries(took).map(([name, seconds]) => [
    ...["run", name, String(seconds.length), median(seconds).toFixed(0), String(Math.max(...seconds)), ""],
  ]);
  const most = Object.entries(memory).flatMap(([machine, of]) =>
    Object.entries(of)
      .sort(([one], [other]) => one.localeCompare(other))
      .map(([program, bytes]) => [machine, program, "", "", "", (bytes / 1e6).toFixed(0)]),
  );
  return [["where", "program", "runs", "median s", "longest s", "MB at most"], ...runs, ...most];
}
