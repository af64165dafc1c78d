/** Repeated measurements and what is made of them. Pure but for `inTurns`. */

/** The middle of some numbers; the mean of the two in the middle where their count is even. */
export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  const [low, high] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[half]];
  if (low === undefined || high === undefined) throw new Error("no numbers");
  return (low + high) / 2;
}

/** One by the other, measured one right after the other, for every round: what slows both cancels out. */
export function ratios(of: readonly number[], by: readonly number[]): number[] {
  return of.map((value, index) => value / (by[index] ?? Number.NaN));
}

/** Measures every contestant once a round, in the same order: A B C A B C. */
export async function inTurns<Name extends string>(
  rounds: number,
  contestants: Record<Name, () => Promise<number>>,
  say: (text: string) => void,
): Promise<Record<Name, number[]>> {
  const names = Object.keys(contestants) as Name[];
  const results = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
  for (let round = 1; round <= rounds; round++) {
    for (const name of names) results[name].push(await contestants[name]());
    say(
      `round ${round} of ${rounds}: ${names.map((name) => `${name} ${results[name].at(-1)?.toFixed(2)}`).join(", ")}`,
    );
  }
  return results;
}

/** How long something takes, in seconds. */
export async function seconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** Text columns, the first one to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))),
    )
    .map((row) => row.join("  ").trimEnd())
    .join("\n");
}

/** The rows of a comparison: medians in seconds, and the first contestant's ratio to each, the median over the pairs. */
export function comparison(title: string, results: Record<string, number[]>): string[][] {
  const [first, ...others] = Object.keys(results);
  const own = results[first ?? ""] ?? [];
  return [
    [title, "median s", "lowest s", `${first} by it`],
    ...[first ?? "", ...others].map((name) => {
      const of = results[name] ?? [];
      return [`  ${name}`, median(of).toFixed(2), Math.min(...of).toFixed(2), median(ratios(own, of)).toFixed(2)];
    }),
  ];
}
