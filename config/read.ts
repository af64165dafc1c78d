/** From Pulumi's texts to settings: checked, every default filled in. */
import { z } from "zod";
import { core, mistakesIn, type Path } from "../provider/mistakes";
import { bucketOf } from "./bucket";
import { furtherMistakes } from "./checks";
import { drillOf } from "./drill";
import { machinesOf } from "./machines";
import { serverOf } from "./server";
import { type Settings, settingsSchema, type Values } from "./settings";

/**
 * Reads the settings from a stack's configuration.
 *
 * @param all the whole configuration as Pulumi hands it over: texts, structured values as JSON
 * @param stack the stack's name, the default of the deployment's
 * @param secretKeys names in `all` whose values hold a secret
 * @throws pulumi.RunError with one line for every mistake
 */
export function readSettings(all: Record<string, string>, stack: string, secretKeys: Iterable<string>): Settings {
  const secret = new Set(secretKeys);
  const given: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(all)) {
    if (/^(cht-backup|host):/.test(key)) given[key] = decode(value, fields[key]);
  }
  if (given["cht-backup:bucket"] === "none") delete given["cht-backup:bucket"];
  const mistakes = [...mistakesIn(settingsSchema, given, isSecret(secret)), ...furtherMistakes(given, stack, secret)];
  if (mistakes.length > 0) {
    const count = mistakes.length === 1 ? "1 mistake" : `${mistakes.length} mistakes`;
    // Only here: loading the SDK takes longer than all else that a command does before it begins.
    const { RunError } = require("@pulumi/pulumi") as typeof import("@pulumi/pulumi");
    throw new RunError(
      [`${count} in the settings of stack ${stack} (docs/settings.md lists them all):`, ...mistakes].join("\n  "),
    );
  }
  return completed(settingsSchema.parse(given), stack);
}

/** What says where a deployment's machines are, and what is where on them. */
export type Places = Pick<Settings, "deployment" | "machines" | "server" | "drill" | "recoveryKit">;

const placesSchema = settingsSchema
  .pick({
    "host:machines": true,
    "cht-backup:deployment": true,
    "cht-backup:server": true,
    "cht-backup:drill": true,
    "cht-backup:recoveryKit": true,
  })
  .strip();

/**
 * Reads only that from a stack's configuration, whose secrets may be missing.
 * @returns undefined where something in it isn't right or was a secret: `readSettings`, with the secrets, says what
 */
export function readPlaces(all: Record<string, string>, stack: string): Places | undefined {
  const texts = Object.entries(all).map(([key, value]) => [key, decode(value, fields[key])]);
  const { data } = placesSchema.safeParse(Object.fromEntries(texts));
  const machines = data?.["host:machines"];
  if (data === undefined || machines?.cht?.address === undefined || machines.server === undefined) return undefined;
  return placesOf(named(data), stack);
}

/** The same by names without their namespace. */
function named(given: object): Values {
  const short = Object.entries(given).map(([name, value]) => [name.slice(name.indexOf(":") + 1), value]);
  return Object.fromEntries(short) as Values;
}

function placesOf(values: Pick<Values, keyof Places>, stack: string): Places {
  const deployment = values.deployment ?? stack;
  const machines = machinesOf(values.machines, values.server.aws !== undefined);
  const server = serverOf(values.server, machines);
  const drill = drillOf(values.drill, deployment, machines, server);
  return { deployment, machines, server, drill, recoveryKit: values.recoveryKit };
}

/** Fills in what one setting takes from another. */
function completed(given: z.output<typeof settingsSchema>, stack: string): Settings {
  const values = named(given);
  const places = placesOf(values, stack);
  return {
    ...values,
    ...places,
    bucket: bucketOf(values.bucket, places.deployment),
    passphrase: values.passphrase,
  };
}

const fields: Record<string, z.ZodType> = settingsSchema.shape;

/** Pulumi hands over every value as text. Where the setting isn't one, the text is JSON; what isn't stays a text. */
function decode(value: string, schema: z.ZodType | undefined): unknown {
  if (schema === undefined || core(schema) instanceof z.ZodString) return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** Values that are never shown: what Pulumi holds as a secret, and what should have been one. */
function isSecret(secret: Set<string>): (path: Path) => boolean {
  const always = ["cht-backup:passphrase", "cht-backup:alerts", "pings", "accessKeyId", "secretAccessKey"];
  return (path) => secret.has(String(path[0])) || path.some((part) => always.includes(String(part)));
}
