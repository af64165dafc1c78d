/** An error whose message is meant for the operator: one line, shown without a stack trace. */
export class Refused extends Error {}

/** The machine itself can't be reached: nothing is known of what is on it. */
export class Unreachable extends Refused {
  /** @param machine its name in `host:machines` */
  constructor(
    readonly machine: string,
    message: string,
  ) {
    super(message);
  }
}
