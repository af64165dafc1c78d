/**
 * Values on their way between the engine and the machines: the engine's encoding of secret and not yet known ones is taken
 * off and put back; what is shown has no secrets, and nothing of a machine's that would steer a terminal.
 */
import { isDeepStrictEqual } from "node:util";
import { plain } from "../toolchain/plain";

const SIGNATURE = "4dabf18193072939515e22adb298388d";
const SECRET = "1b47061264138c4ac30d75fd1eb44270";
const OUTPUT_VALUE = "d0e6a833031e9bbcd3f4e8bde6ca49a4";
/** Stands for a value that only an update will know (`UnknownStringValue` in Pulumi's `resource/plugin`). */
const UNKNOWN = new Set([
  "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
  "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
  "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
  "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
  "030794c1-ac77-496b-92df-f27374a8bd58",
  "e48ece36-62e2-4504-bad9-02848725956a",
  "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
]);

/** Plain values, and which of the top-level properties hold a secret or something unknown, however deep. */
export interface Properties {
  values: Record<string, unknown>;
  secret: Set<string>;
  unknown: Set<string>;
}

/** Takes the engine's wrapping off. */
export function unwrap(wire: Record<string, unknown> | undefined): Properties {
  const result: Properties = { values: {}, secret: new Set(), unknown: new Set() };
  for (const [key, value] of Object.entries(wire ?? {})) {
    result.values[key] = uncovered(
      value,
      () => result.secret.add(key),
      () => result.unknown.add(key),
    );
  }
  return result;
}

/** Puts the wrapping back on the properties named as secret, and leaves out what is undefined. */
export function wrap(values: Record<string, unknown>, secret: Iterable<string>): Record<string, unknown> {
  const hidden = new Set(secret);
  return Object.fromEntries(
    Object.entries(values)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key, hidden.has(key) ? { [SIGNATURE]: SECRET, value } : value]),
  );
}

/** Replaces every secret in a text that an operator will see. Short ones are left: hiding them would hide words. */
export function scrub(text: string, ...properties: Properties[]): string {
  let result = text;
  for (const { values, secret } of properties) {
    for (const key of secret) {
      for (const value of strings(values[key])) {
        for (const part of [value, ...value.split("\n")]) {
          if (part.trim().length >= 6) result = result.replaceAll(part, "[secret]");
        }
      }
    }
  }
  return result;
}

/** Ends a text in which something was escaped: no text that somebody wants ends so, so it stays a difference. */
const ESCAPED = " (characters escaped)";

/**
 * What was seen on a machine, as the engine may print it in a diff. What is as it was known stays exactly that, whatever it
 * holds; a difference is shown in plain text. Secrets stay as they are: the engine doesn't print them.
 * @param known the same properties as the state has them
 */
export function plainDrift<V extends Record<string, unknown>>(
  seen: V,
  known: Record<string, unknown>,
  secret: ReadonlySet<string>,
): V {
  const shown = (text: string) => {
    const lines = plainContent(text);
    return lines === text ? text : `${lines}${ESCAPED}`;
  };
  return mapProperties(seen, (name, value) =>
    secret.has(name) || isDeepStrictEqual(value, known[name]) ? value : mapTexts(value, shown),
  );
}

/** What a machine decided, such as its public key, as the engine may print it. Secrets stay as they are. */
export function plainOutputs<V extends Record<string, unknown>>(outputs: V, secret: ReadonlySet<string>): V {
  return mapProperties(outputs, (name, value) => (secret.has(name) ? value : mapTexts(value, plainContent)));
}

/** A file's text with its lines and tabs; a carriage return makes a difference to a file, and shows. */
const plainContent = (text: string) => text.split("\n").map(plain).join("\n");

function mapProperties<V extends Record<string, unknown>>(
  values: V,
  map: (name: string, value: unknown) => unknown,
): V {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, map(name, value)])) as V;
}

function mapTexts(value: unknown, map: (text: string) => string): unknown {
  if (typeof value === "string") return map(value);
  if (Array.isArray(value)) return value.map((item) => mapTexts(item, map));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [map(key), mapTexts(item, map)]));
}

function uncovered(value: unknown, secret: () => void, unknown: () => void): unknown {
  if (typeof value === "string") {
    if (UNKNOWN.has(value)) unknown();
    return value;
  }
  if (Array.isArray(value)) return value.map((item) => uncovered(item, secret, unknown));
  if (typeof value !== "object" || value === null) return value ?? undefined;
  const object = value as Record<string, unknown>;
  if (object[SIGNATURE] === SECRET) {
    secret();
    return uncovered(object.value, secret, unknown);
  }
  if (object[SIGNATURE] === OUTPUT_VALUE) {
    if (object.secret === true) secret();
    if (!("value" in object)) unknown();
    return uncovered(object.value, secret, unknown);
  }
  return Object.fromEntries(Object.entries(object).map(([key, item]) => [key, uncovered(item, secret, unknown)]));
}

function strings(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (typeof value === "object" && value !== null) return Object.values(value).flatMap(strings);
  return [];
}
