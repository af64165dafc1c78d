/** What a round is made of, from a seed alone: the same seed draws the same faults. Pure. */

/** Numbers that look random and are the same for the same seed. */
export interface Dice {
  /** From 0 up to 1, without 1. */
  number(): number;
  /** One of several. */
  pick<T>(of: readonly T[]): T;
}

/** Small and well spread: a step of the generator that is known as mulberry32. */
export function dice(seed: number): Dice {
  let state = seed >>> 0;
  const number = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { number, pick: (of) => of[Math.floor(number() * of.length)] as never };
}

/** The dice of one round: a round can be played again without those before it. */
export const diceOf = (seed: number, round: number) => dice(Math.imul(seed, 0x9e3779b1) ^ Math.imul(round, 0x85ebca6b));

/** What can be drawn. */
export interface Drawable<Victim extends string> {
  kind: string;
  name: string;
  victims: readonly Victim[];
  /** How often it is drawn beside the others. Default: 1. What takes minutes has less. */
  weight?: number;
}

export interface Drawn<Victim extends string, Fault> {
  fault: Fault;
  victim: Victim;
  /** When it happens, as a share of the time that the program takes. */
  moment: number;
  /** How long it lasts, as a share of what the fault allows. */
  hold: number;
}

/**
 * Draws a round: first the kind, so that a kind with many faults isn't drawn more often, then fault, victim, moment.
 * @param share how often a victim is drawn beside the others: what takes long, less
 * @throws Error where there is nothing to draw from
 */
export function draw<Victim extends string, Fault extends Drawable<Victim>>(
  faults: readonly Fault[],
  seed: number,
  round: number,
  share: (victim: Victim) => number = () => 1,
): Drawn<Victim, Fault> {
  const roll = diceOf(seed, round);
  const kinds = [...new Set(faults.map(({ kind }) => kind))];
  if (kinds.length === 0) throw new Error("there is no fault to draw");
  const kind = roll.pick(kinds);
  const of = faults.filter((each) => each.kind === kind);
  const fault = weighted(of, ({ weight = 1 }) => weight, roll);
  return { fault, victim: weighted(fault.victims, share, roll), moment: roll.number(), hold: roll.number() };
}

function weighted<T>(of: readonly T[], weight: (each: T) => number, roll: Dice): T {
  let left = roll.number() * of.reduce((sum, each) => sum + weight(each), 0);
  const found = of.find((each) => {
    left -= weight(each);
    return left < 0;
  });
  return found ?? (of.at(-1) as T);
}
