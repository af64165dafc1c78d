/**
 * Mistakes in settings, one line each: the path as it is written in the stack file, what was found, what is allowed.
 * Pure: the program uses it for all settings, the plugin for the machines'.
 */
import { z } from "zod";

/** What is declared beside a setting (by zod's `.meta()`), for its error message and for docs/settings.md. */
export type SettingText = {
  /** What the setting means. */
  description: string;
  /** Which values are allowed, in words that follow "must be". */
  allowed: string;
  /** A value that is right, as it is written in the stack file. */
  example?: string;
  /** The default in words, where it isn't a constant. */
  fallback?: string;
};

/** Where a value is, from the outermost name inwards. */
export type Path = readonly PropertyKey[];

/** A path as an operator writes it: `cht-backup:server.port`, `cht-backup:alerts[0]`. */
export function written(path: Path): string {
  return path
    .map((part, index) => (typeof part === "number" ? `[${part}]` : index === 0 ? String(part) : `.${String(part)}`))
    .join("");
}

/** A setting without the layers that only give it a default or change its form. */
export function core(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
    return core(schema.unwrap() as z.ZodType);
  }
  return schema instanceof z.ZodPipe ? core(schema.in as z.ZodType) : schema;
}

/** The texts that were declared beside a setting, on whichever of its layers. */
export function textsOf(schema: z.ZodType): SettingText {
  const meta = schema.meta() ?? (schema instanceof z.ZodOptional ? (schema.unwrap() as z.ZodType).meta() : undefined);
  return (meta ?? { description: "", allowed: "another value" }) as unknown as SettingText;
}

/**
 * The mistakes that a schema finds in values.
 *
 * @param schema an object's schema, whose settings carry texts
 * @param given the values, by name
 * @param hidden whether the value at a path may not be shown
 * @returns one line a mistake; none when all is right
 */
export function mistakesIn(
  schema: z.ZodObject,
  given: unknown,
  hidden: (path: Path) => boolean = () => false,
): string[] {
  const parsed = schema.safeParse(given);
  if (parsed.success) return [];
  const unknown: { meant: string | undefined; line: string }[] = [];
  const others: { at: string; line: string; missing?: boolean }[] = [];
  for (const { path, ...issue } of parsed.error.issues) {
    const at = written(path);
    if (issue.code === "unrecognized_keys") {
      const names = Object.keys((core(schemaAt(schema, path)) as z.ZodObject).shape);
      for (const key of issue.keys) unknown.push(unknownName(path, key, names));
    } else if (issue.code === "invalid_key") {
      const record = core(schemaAt(schema, path.slice(0, -1))) as z.ZodRecord;
      others.push({ at, line: `${at}: the name must be ${textsOf(record.keyType as z.ZodType).allowed}` });
    } else {
      const value = valueAt(given, path);
      const line = `${at}: ${found(value, hidden(path))}; ${mustBe(schemaAt(schema, path))}`;
      others.push({ at, line, missing: value === undefined });
    }
  }
  // A misspelt name is one mistake, not a second one because the right name is missing.
  const meant = new Set(unknown.map((mistake) => mistake.meant));
  return [...unknown, ...others.filter((mistake) => !(mistake.missing && meant.has(mistake.at)))].map(
    (mistake) => mistake.line,
  );
}

/** What a setting's value must be, with an example. */
export function mustBe(schema: z.ZodType): string {
  const { allowed, example } = textsOf(schema);
  return `must be ${allowed}${example === undefined ? "" : `, for instance ${example}`}`;
}

/**
 * What was found, in few words. Long texts are cut. A text that holds a private key or a password in an address
 * was pasted into the wrong place, and isn't shown.
 */
export function found(value: unknown, hidden = false): string {
  if (value === undefined) return "missing";
  if (hidden) return "found a value that isn't shown";
  if (value === null || value === "") return "found nothing";
  if (Array.isArray(value)) return "found a list";
  if (typeof value === "object") return "found a mapping";
  if (typeof value !== "string") return `found ${String(value)}`;
  if (/PRIVATE KEY|:\/\/[^/]*@/.test(value)) return "found a text that isn't shown";
  return `found ${JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}…` : value)}`;
}

/** A value that is a mapping; undefined for any other. */
export function asMapping(given: unknown): Record<string, unknown> | undefined {
  if (typeof given !== "object" || given === null || Array.isArray(given)) return undefined;
  return given as Record<string, unknown>;
}

function unknownName(parent: Path, key: string, names: string[]): { meant: string | undefined; line: string } {
  const at = written([...parent, key]);
  const near = nearest(key, names);
  if (near !== undefined) {
    const meant = written([...parent, near]);
    return { meant, line: `${at}: there is no such setting; did you mean ${meant}?` };
  }
  const outer = names.find((name) => key.startsWith(`${name}.`) || key.startsWith(`${name}[`));
  if (outer !== undefined) {
    const hint = `it belongs inside ${written([...parent, outer])}, as \`npm run pulumi -- config set --path '${at}' …\` does it`;
    return { meant: undefined, line: `${at}: there is no setting with a name in this form; ${hint}` };
  }
  return {
    meant: undefined,
    line: `${at}: there is no such setting; must be one of ${names.join(", ")}`,
  };
}

/** The name that was probably meant: the same but for its namespace, or at most a third of its letters away. */
function nearest(key: string, names: string[]): string | undefined {
  const bare = (name: string) => name.replace(/^[^:]*:/, "").toLowerCase();
  const [best] = names
    .map((name) => ({ name, distance: distance(bare(key), bare(name)) }))
    .filter(({ name, distance }) => distance <= Math.max(1, Math.floor(bare(name).length / 3)))
    .sort((one, other) => one.distance - other.distance);
  return best?.name;
}

/** How many letters must be added, removed, changed or swapped with their neighbour (optimal string alignment). */
export function distance(one: string, other: string): number {
  const rows = [Array.from({ length: other.length + 1 }, (_, index) => index)];
  const at = (i: number, j: number) => rows[i]?.[j] ?? 0;
  for (let i = 1; i <= one.length; i++) {
    const row = [i];
    rows.push(row);
    for (let j = 1; j <= other.length; j++) {
      const changed = at(i - 1, j - 1) + (one[i - 1] === other[j - 1] ? 0 : 1);
      const swapped =
        i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1] ? at(i - 2, j - 2) + 1 : changed;
      row.push(Math.min(changed, swapped, at(i - 1, j) + 1, at(i, j - 1) + 1));
    }
  }
  return at(one.length, other.length);
}

function schemaAt(schema: z.ZodType, path: Path): z.ZodType {
  let here = schema;
  for (const part of path) {
    const inner = core(here);
    if (inner instanceof z.ZodObject) here = inner.shape[part as string] as z.ZodType;
    else if (inner instanceof z.ZodRecord) here = inner.valueType as z.ZodType;
    else if (inner instanceof z.ZodArray) here = inner.element as z.ZodType;
  }
  return here;
}

function valueAt(value: unknown, path: Path): unknown {
  let here = value;
  for (const part of path) here = (here as Record<PropertyKey, unknown> | undefined)?.[part];
  return here;
}
