/** What a fault is, and what it is told of the program that it hits. */
import type { Drawable } from "./draw";

/** The programs that are hit. */
export const victimNames = [
  "backup",
  "copy",
  "drill",
  "retention",
  "restore",
  "restore from the bucket",
  "up",
] as const;
export type VictimName = (typeof victimNames)[number];

/** The run that a fault hits. */
export interface Hit {
  victim: VictimName;
  /** The number of the process on this computer, for what an operator starts. */
  pid: number | undefined;
  /** Whether the program runs still. */
  running(): boolean;
  /** What the faults of a round choose by. */
  number(): number;
}

export interface Fault extends Drawable<VictimName> {
  /**
   * What has to come of the run: `told` when it may fail, and somebody hears of it (an alarm, or an exit code with a
   * reason); `healed` where nobody can tell at once and the next run makes up for it. A run that comes out right is
   * always well.
   */
  expect: "told" | "healed";
  /** Seconds that it lasts, at least and at most. Default: a moment. */
  lasts?: readonly [least: number, most: number];
  /** Before the program starts, not in the middle of it. */
  early?: boolean;
  /** Makes ready for it, before the program starts. */
  before?(): Promise<unknown>;
  /** Lets it happen. Returns false where there was nothing to hit, as the program had ended or not begun. */
  inject(hit: Hit): Promise<boolean>;
  /** Takes the fault itself away, and mends nothing that it did. */
  undo?(): Promise<unknown>;
  /** Puts back what `before` made ready, when the program has ended. */
  after?(): Promise<unknown>;
}
