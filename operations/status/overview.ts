/**
 * What the machines of a deployment report, put together: what is wrong, the worst first, and the verdict. Pure.
 * `hosts/chtbackup/watch/overview.py` is the same for the page; `test/fixtures/status-states.json` holds both to one table.
 */
import type { Report, Reported } from "./report";

/** The exit codes of `npm run status`. */
export const verdicts = { well: 0, warnings: 1, somebody: 2, unknown: 3 } as const;
export type Verdict = keyof typeof verdicts;

/** Something that isn't as it should be, told in place of all that follows from it. */
export interface Condition extends Pick<Reported, "id" | "title" | "text" | "todo" | "link"> {
  /** As bad as the worst of what follows from it. */
  severity: "critical" | "warning";
  /** The earliest time that anybody knows of. */
  since: number | null;
  /** The machines that tell of it. */
  toldBy: string[];
  /** Titles of what follows from it. */
  explains: string[];
}

const titleOf = ({ title, id }: Reported) => title || id || "something without a name";
const compared = <T extends string | number>(one: T, other: T) => (one < other ? -1 : one > other ? 1 : 0);
const started = (since: number | null) => since ?? Number.POSITIVE_INFINITY;
const byRank = (one: Condition, other: Condition) =>
  compared(one.severity, other.severity) ||
  compared(started(one.since), started(other.since)) ||
  compared(one.id, other.id) ||
  compared(one.text, other.text);

/** What a machine tells, each with what follows from it. */
function told({ role, conditions }: Pick<Report, "role" | "conditions">): Condition[] {
  const given = new Map(conditions.map((each) => [each.id, each]));
  /** What is told in its place; itself, where nothing explains it, or only what it explains itself. */
  const cause = (id: string): string => {
    const seen = [id];
    for (let at = given.get(id)?.hiddenBy ?? ""; given.has(at); at = given.get(at)?.hiddenBy ?? "") {
      if (seen.includes(at)) return id;
      seen.push(at);
    }
    return seen.at(-1) as string;
  };
  const causes = new Map([...given.keys()].map((id) => [id, cause(id)]));
  return [...given.values()]
    .filter(({ id }) => causes.get(id) === id)
    .map((of) => {
      const following = [...given.values()].filter(({ id }) => id !== of.id && causes.get(id) === of.id);
      const { id, text, todo, link, since } = of;
      // Whatever isn't known to be less is for somebody to look at.
      const warns = [of, ...following].every(({ severity }) => severity === "warning");
      const severity = warns ? "warning" : "critical";
      return {
        id,
        severity,
        title: titleOf(of),
        text,
        todo,
        link,
        since,
        toldBy: [role],
        explains: following.map(titleOf),
      };
    });
}

const once = (...all: string[]) => [...new Set(all)];

/** What is to be told, each thing once, the worst first and of those the oldest. */
export function conditionsOf(reports: readonly Pick<Report, "role" | "conditions">[]): Condition[] {
  const merged = new Map<string, Condition>();
  for (const found of reports.flatMap(told)) {
    // Two machines may have the same trouble, each its own: then their texts differ.
    const key = JSON.stringify([found.id, found.title, found.text]);
    const before = merged.get(key);
    if (before === undefined) {
      merged.set(key, found);
      continue;
    }
    const [worse] = [before, found].sort(byRank) as [Condition];
    const since = Math.min(started(before.since), started(found.since));
    merged.set(key, {
      ...worse,
      since: Number.isFinite(since) ? since : null,
      toldBy: once(...before.toldBy, ...found.toldBy),
      explains: once(...before.explains, ...found.explains),
    });
  }
  return [...merged.values()].sort(byRank);
}

/**
 * What it comes to. What needs somebody does, whatever else isn't known; then what isn't known might.
 * @param complete whether every machine has said how things are, and there was one
 */
export function verdictOf(conditions: readonly Condition[], complete: boolean): Verdict {
  if (conditions.some(({ severity }) => severity === "critical")) return "somebody";
  if (!complete) return "unknown";
  return conditions.length > 0 ? "warnings" : "well";
}
