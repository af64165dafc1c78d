/** An error whose message is meant for the operator: one line, shown without a stack trace. */
export class Refused extends Error {}
