/** A JSON schema of stack files, by which editors complete and check the settings: made from the texts in `config/`. */
import { join } from "node:path";
import { z } from "zod";
import { settingsSchema } from "../../config";
import { project } from "../paths";

export const stackSchemaFile = join(project, "docs", "stack.schema.json");

type Schema = Record<string, unknown>;

/** What stands for any text in a stack file once Pulumi has encrypted it (`config set --secret`). */
const encrypted: Schema = {
  type: "object",
  properties: { secure: { type: "string" } },
  required: ["secure"],
  additionalProperties: false,
};

/** What else than its own type a setting may be, by its place. */
function alternatives(type: unknown, place: readonly (string | number)[]): Schema[] {
  if (type === "string") return [{ $ref: "#/$defs/encrypted" }];
  const [, name] = place.length === 2 ? place : [];
  if (name === "cht-backup:bucket") return [{ const: "none" }];
  // `config set` without `--path` writes any value as text.
  return name !== undefined && (type === "boolean" || type === "integer") ? [{ type: "string" }] : [];
}

/** What `config/` says of a setting, in words of a JSON schema. Pure. */
function described(schema: Schema, place: readonly (string | number)[]): Schema {
  const { allowed, example, fallback, description, ...rest } = schema;
  const words = [
    description,
    allowed === undefined ? undefined : `Allowed: ${allowed}.`,
    fallback === undefined ? undefined : `Default: ${fallback}.`,
    example === undefined ? undefined : `Example: ${example}`,
  ].filter((text) => text !== undefined);
  const documented = words.length === 0 ? {} : { description: words.join("\n\n") };
  const others = alternatives(rest.type, place);
  return others.length === 0 ? { ...rest, ...documented } : { ...documented, anyOf: [rest, ...others] };
}

/** The whole schema. Pure. */
export function stackSchema(): string {
  const config = z.toJSONSchema(settingsSchema, {
    io: "input",
    unrepresentable: "any",
    override: ({ jsonSchema, path }) => {
      const { type, pattern } = jsonSchema;
      // The name of a key is no value that could be encrypted.
      const changed = path.at(-1) === "propertyNames" ? { type, pattern } : described(jsonSchema as Schema, path);
      for (const name of Object.keys(jsonSchema)) delete jsonSchema[name as keyof typeof jsonSchema];
      Object.assign(jsonSchema, changed);
    },
  });
  const { $schema, ...settings } = config as Schema;
  const schema = {
    $schema,
    title: "Settings of a stack of cht-backup",
    $defs: { encrypted },
    type: "object",
    properties: {
      config: {
        ...settings,
        // Those of Pulumi's plugins are theirs.
        patternProperties: { "^(?!host:|cht-backup:)": {} },
      },
    },
  };
  return `${JSON.stringify(schema, null, 2)}\n`;
}
