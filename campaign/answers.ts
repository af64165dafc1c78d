/** How long the CHT took to answer, with and without the backups. Pure. */
import { median } from "../bench/figures";

export interface Answer {
  /** Seconds since 1970. */
  at: number;
  kind: string;
  /** Undefined where no answer came. */
  milliseconds: number | undefined;
}

/** By kind of question: medians in milliseconds, one by the other, how many there were, how many had no answer. */
export type Answers = Record<
  string,
  { quiet: number; busy: number; ratio: number; slow: [quiet: number, busy: number]; asked: number; failed: number }
>;

type Span = readonly [from: number, to: number];

/** Lines `SECONDS KIND MILLISECONDS`, with `failed` where no answer came. */
export function readAnswers(text: string): Answer[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [at, kind = "", took] = line.split(" ");
      return {
        at: Number(at),
        kind: kind.replaceAll("_", " "),
        milliseconds: took === "failed" ? undefined : Number(took),
      };
    });
}

/** The number below which 95 of 100 are. */
function slowest(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.95))] ?? Number.NaN;
}

/** Compares answers of the quiet spans with those of the busy ones. */
export function compare(answers: readonly Answer[], quiet: readonly Span[], busy: readonly Span[]): Answers {
  const within = (spans: readonly Span[], kind: string) =>
    answers.filter((each) => each.kind === kind && spans.some(([from, to]) => each.at >= from && each.at < to));
  const took = (of: readonly Answer[]) => of.flatMap(({ milliseconds }) => milliseconds ?? []);
  const kinds = [...new Set(answers.map(({ kind }) => kind))].sort();
  return Object.fromEntries(
    kinds.map((kind) => {
      const [calm, loaded] = [within(quiet, kind), within(busy, kind)];
      const [before, during] = [median(took(calm)), median(took(loaded))];
      const all = [...calm, ...loaded];
      return [
        kind,
        {
          ...{ quiet: before, busy: during, ratio: during / before },
          slow: [slowest(took(calm)), slowest(took(loaded))],
          ...{ asked: all.length, failed: all.filter(({ milliseconds }) => milliseconds === undefined).length },
        },
      ];
    }),
  );
}
