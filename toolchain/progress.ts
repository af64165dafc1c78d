/** Plain progress for long work: one line a step, with the time it took. */
import { plain } from "./plain";

/** A problem the user can do something about: its message is all that is shown of it. */
export class Problem extends Error {}

/** How long a step took. */
export interface Timing {
  step: string;
  milliseconds: number;
}

/** `25 s`, `1 min 5 s`, or `0.4 s` for less than ten seconds. */
export function duration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

export class Progress {
  readonly timings: Timing[] = [];

  /** @param output Where a line goes. Default: standard error, so that a program's output stays its own. */
  constructor(private readonly output: (line: string) => void = (line) => void process.stderr.write(`${line}\n`)) {}

  private write(line: string): void {
    this.output(plain(line));
  }

  /** Says something that isn't a step. */
  note(text: string): void {
    this.write(`  ${text}`);
  }

  /**
   * Runs a step and writes its line with the elapsed time; every 15 s until then, that it is still at it.
   * A step that fails writes no line of its own: the error says what happened.
   */
  async step<T>(name: string, work: () => Promise<T>): Promise<T> {
    const start = Date.now();
    const tick = setInterval(() => this.write(`  ${name}: ${duration(Date.now() - start)} so far`), 15_000);
    try {
      const result = await work();
      const milliseconds = Date.now() - start;
      this.timings.push({ step: name, milliseconds });
      this.write(`· ${name} … ${duration(milliseconds)}`);
      return result;
    } finally {
      clearInterval(tick);
    }
  }
}
