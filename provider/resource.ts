/** What a kind of resource has to say of itself; `server.ts` brings it together with the engine. */
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import type { Machine } from "./ssh";

/** Inputs after `check`: complete, with defaults filled in. */
export type Inputs = Record<string, unknown> & { machine: string };

/** What is on the machine. Where `inputs` differ from those asked for, that is drift. */
export interface Observed {
  /** The inputs as they would have to be to describe what is there. */
  inputs: Inputs;
  /** What the machine decided: a public key, an identity. */
  outputs: Record<string, unknown>;
}

/** Gives the connection to a machine by its name in `host:machines`; refuses an unknown name. */
export type Machines = (name: string) => Machine;

/** A kind of resource. */
export interface Kind {
  /** The inputs, with their defaults. Properties that stand for an observed fact have the right one as default. */
  inputs: z.ZodObject;
  /** What a schema can't say. Properties in `unknown` will only be known later. @returns mistakes by property */
  verify?(inputs: Record<string, unknown>, unknown: ReadonlySet<string>): { property: string; reason: string }[];
  /**
   * What only the machine can tell of the inputs, in a preview too, before anything is made. It changes nothing there, and
   * isn't asked where the machine can't be reached: that is told elsewhere.
   * @param before the inputs of the last time
   * @returns mistakes by property
   */
  survey?(
    machines: Machines,
    inputs: Inputs,
    before: Inputs | undefined,
  ): Promise<{ property: string; reason: string }[]>;
  /** Last touches to checked inputs, for instance a file's text in place of its name. */
  complete?(inputs: Record<string, unknown>, unknown: ReadonlySet<string>): Record<string, unknown>;
  /** Inputs whose change means another thing, not a change of this one. */
  identity: string[];
  /** Inputs and outputs that are always secret. */
  secret?: string[];
  /**
   * Inputs that are long texts. The state holds them once, not among the outputs again: the engine writes the whole state
   * after each step, and with them twice that took most of an `up` that changes nothing.
   */
  long?: string[];
  /** Looks. @returns undefined where the thing isn't there */
  read(machines: Machines, inputs: Inputs, outputs: Record<string, unknown>): Promise<Observed | undefined>;
  /** Makes or mends; must do right whatever it finds. @returns the outputs */
  apply(
    machines: Machines,
    inputs: Inputs,
    before: { inputs: Inputs; outputs: Record<string, unknown> } | undefined,
  ): Promise<Record<string, unknown>>;
  /** Removes what can be made again. */
  remove(machines: Machines, inputs: Inputs): Promise<void>;
  /** The resource's id: what an operator would call it on its machine. */
  id(inputs: Inputs): string;
}

/** Name of a machine in `host:machines`. */
export const machineName = z.string().min(1);
/** Absolute path without `..`, line breaks or a trailing slash. */
export const absolutePath = z
  .string()
  .regex(
    /^\/(?!.*(^|\/)\.\.(\/|$))[^\n\r\0]*[^/\n\r\0]$/,
    "must be an absolute path without `..`, such as /etc/example",
  );
/** Four octal digits. */
export const fileMode = z.string().regex(/^[0-7]{4}$/, 'must be four octal digits, such as "0644"');
/** Name of a user or a group, as useradd(8) takes it. */
export const accountName = z.string().regex(/^[a-z_][a-z0-9_-]{0,31}$/, "must be the name of a user, such as root");
/** Without line breaks, which would end a line of a file we write. */
export const oneLine = z.string().regex(/^[^\n\r]+$/, "must be one line");

/**
 * Checks inputs against their kind. Properties that only an update will know are left alone.
 * @returns complete inputs, and the mistakes by property
 */
export function checkInputs(
  kind: Kind,
  given: Record<string, unknown>,
  unknown: ReadonlySet<string>,
): { inputs: Record<string, unknown>; failures: { property: string; reason: string }[] } {
  const known = Object.fromEntries(
    Object.entries(given).filter(([key, value]) => !unknown.has(key) && !key.startsWith("__") && value !== undefined),
  );
  const later = Object.fromEntries(
    [...unknown].filter((key) => key in kind.inputs.shape).map((key) => [key, true as const]),
  );
  const result = kind.inputs.partial(later as Record<string, never>).safeParse(known);
  if (!result.success) {
    const failures = result.error.issues.flatMap((issue) =>
      issue.code === "unrecognized_keys"
        ? issue.keys.map((key) => ({ property: key, reason: "is not a property of this resource" }))
        : [{ property: issue.path.join("."), reason: issue.message }],
    );
    return { inputs: given, failures };
  }
  const inputs = { ...result.data, ...Object.fromEntries([...unknown].map((key) => [key, given[key]])) };
  const failures = kind.verify?.(inputs, unknown) ?? [];
  if (failures.length > 0) return { inputs: given, failures };
  return { inputs: kind.complete?.(inputs, unknown) ?? inputs, failures: [] };
}

/** The properties in which two sets of inputs differ; those only an update will know count as different. */
export function changedProperties(
  before: Record<string, unknown>,
  after: Record<string, unknown>,
  unknown: ReadonlySet<string>,
): string[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys]
    .filter((key) => !key.startsWith("__"))
    .filter((key) => unknown.has(key) || !isDeepStrictEqual(before[key], after[key]))
    .sort();
}
