/** docs/settings.md, the reference of all settings: made from the texts in `config/`. */
import { join } from "node:path";
import { z } from "zod";
import { settingsSchema } from "../../config";
import { core, textsOf } from "../../provider/mistakes";
import { project } from "../paths";

export const referenceFile = join(project, "docs", "settings.md");

const start = `# Settings

<!-- Made by \`npm run docs\` from config/ and provider/connection.ts: change the texts there. -->

All settings are in the stack's file, \`Pulumi.STACK.yaml\`, under \`config:\`; \`Pulumi.prod.yaml\` is an example. A path
such as \`cht-backup:server.port\` is the setting \`port\` inside \`cht-backup:server\`, and is set by
\`npm run pulumi -- config set --path 'cht-backup:server.port' 2222\` or in the file. Only the two machines' addresses are
needed. A wrong setting stops \`pulumi preview\` and \`pulumi up\` before anything is touched, with one line for every
mistake. An editor with the YAML language server (the YAML extension of VS Code) completes and checks the file while it is
written, by [stack.schema.json](stack.schema.json), which the first line of the examples names.
`;

/** The whole reference. Pure. */
export function reference(): string {
  const sections = Object.entries(settingsSchema.shape).map(([name, schema]) => section(name, schema as z.ZodType));
  return `${[start, ...sections].join("\n")}`;
}

function section(name: string, schema: z.ZodType): string {
  const inner = core(schema);
  const { description } = textsOf(schema);
  if (inner instanceof z.ZodRecord) {
    const element = core(inner.valueType as z.ZodType) as z.ZodObject;
    return `## \`${name}\`\n\n${description}\n\n${inside(`${name}.NAME`, element)}`;
  }
  if (inner instanceof z.ZodObject) return `## \`${name}\`\n\n${description}\n\n${inside(name, inner)}`;
  return `## \`${name}\`\n\n${description}\n\n${facts(schema)
    .map(([title, value]) => `- ${title}: ${value}\n`)
    .join("")}`;
}

/** The settings inside another one. Not a table: descriptions are too long for cells. */
function inside(name: string, object: z.ZodObject): string {
  return Object.entries(object.shape)
    .map(([key, schema]) => {
      const lines = facts(schema as z.ZodType).map(([title, value]) => `  - ${title}: ${value}\n`);
      const inner = core(schema as z.ZodType);
      const further = inner instanceof z.ZodObject ? inside(`${name}.${key}`, inner) : "";
      return `- **\`${name}.${key}\`**: ${textsOf(schema as z.ZodType).description}\n${lines.join("")}${further}`;
    })
    .join("");
}

function facts(schema: z.ZodType): [string, string][] {
  const { allowed, example, fallback } = textsOf(schema);
  const list: [string, string][] = [
    ["allowed", allowed],
    ["default", fallback ?? defaultOf(schema)],
  ];
  if (example !== undefined) list.push(["example", `\`${example}\``]);
  return list;
}

function defaultOf(schema: z.ZodType): string {
  const value = schema instanceof z.ZodDefault ? schema.def.defaultValue : undefined;
  if (value === undefined) return "none, it must be given";
  if (Array.isArray(value) || (typeof value === "object" && Object.keys(value ?? {}).length === 0)) return "none";
  return `\`${String(value)}\``;
}
