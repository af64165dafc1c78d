/**
 * Writes docs/settings.md, the reference of all settings, from the texts in `config.ts`; docs/costs.md from the prices in
 * `costs.ts`; docs/stack.schema.json, by which editors check stack files; and the rights in docs/examples from `policies.ts`.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { z } from "zod";
import { settingsSchema } from "../config";
import { core, textsOf } from "../provider/mistakes";
import { main } from "../toolchain/main";
import { Problem } from "../toolchain/progress";
import { costs } from "./costs";
import { rightsOfTheExample } from "./policies";
import { stackSchema, stackSchemaFile } from "./stack-schema";

/** Where the reference is. */
export const referenceFile = join(__dirname, "settings.md");
export const costsFile = join(__dirname, "costs.md");

/** What `docs/production.md` gives to people and pipelines, by file. */
export function rightsFiles(): [string, string][] {
  return Object.entries(rightsOfTheExample()).map(([name, policy]) => [
    join(__dirname, "examples", `${name}-policy.json`),
    `${JSON.stringify(policy, null, 2)}\n`,
  ]);
}

const start = `# Settings

<!-- Made by \`npm run docs\` from config.ts and provider/connection.ts: change the texts there. -->

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

const help = `Usage: npm run docs [-- --check]

Writes what is made from the program's own texts: docs/settings.md, docs/stack.schema.json, docs/costs.md and the
rights in docs/examples.

  --check   write nothing; exit code 1 when a file isn't what would be written
  --help    this text
`;

/** All that is made, by its file, and what can't be made. */
function made(): { files: [string, string][]; problem: string | undefined } {
  const files: [string, string][] = [
    [referenceFile, reference()],
    [costsFile, costs()],
    [stackSchemaFile, stackSchema()],
  ];
  try {
    return { files: [...files, ...rightsFiles()], problem: undefined };
  } catch (error) {
    if (error instanceof Problem) return { files, problem: error.message };
    throw error;
  }
}

async function generate(args: readonly string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(help);
    return 0;
  }
  const unknown = args.find((arg) => arg !== "--check");
  if (unknown !== undefined) throw new Problem(`there is no option ${unknown}; see npm run docs -- --help`);
  const { files, problem } = made();
  let code = 0;
  for (const [file, text] of files) {
    const name = relative(process.cwd(), file);
    if (!args.includes("--check")) {
      writeFileSync(file, text);
      console.log(`wrote ${name}`);
    } else if (!existsSync(file) || readFileSync(file, "utf8") !== text) {
      console.error(`${name} is stale: npm run docs`);
      code = 1;
    }
  }
  if (problem !== undefined) console.error(`note: ${problem}`);
  return code;
}

if (require.main === module || process.argv[1] === __filename) void main("docs", () => generate(process.argv.slice(2)));
