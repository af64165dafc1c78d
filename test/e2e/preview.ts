/** What a preview says, taken from `pulumi preview --json`. */

/** A change that a preview announces. */
export interface Change {
  /** The resource's name in the program. */
  name: string;
  /** `create`, `update`, `replace`, `delete`… */
  operation: string;
  /** The properties that differ, for an update or a replacement. */
  properties: string[];
}

/** The changes in a preview's JSON; steps that only refresh or keep are none. */
export function changesOf(json: string): Change[] {
  const { steps = [] } = JSON.parse(json) as { steps?: { op: string; urn: string; diffReasons?: string[] }[] };
  return steps
    .filter(({ op }) => op !== "same" && op !== "refresh")
    .map(({ op, urn, diffReasons }) => ({
      name: urn.split("::").at(-1) ?? urn,
      operation: op,
      properties: diffReasons ?? [],
    }));
}
