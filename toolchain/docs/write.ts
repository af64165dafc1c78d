/** `npm run docs`: writes what is made from the program's own texts, each file by its neighbour here. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { contracts, schemaOf } from "../../contract";
import { conditions } from "../conditions";
import { main } from "../main";
import { project } from "../paths";
import { Problem } from "../progress";
import { grafanaAlerts, grafanaAlertsFile, prometheusRules, rulesFile } from "./alert-rules";
import { costs, costsFile } from "./costs-page";
import { dashboard, dashboardFile } from "./dashboard";
import { rightsOfTheExample } from "./example-rights";
import { runbook, runbookFile } from "./runbook-page";
import { reference, referenceFile } from "./settings-page";
import { stackSchema, stackSchemaFile } from "./stack-schema";

/** What `docs/production.md` gives to people and pipelines, by file. */
export function rightsFiles(): [string, string][] {
  return Object.entries(rightsOfTheExample()).map(([name, policy]) => [
    join(project, "docs", "examples", `${name}-policy.json`),
    `${JSON.stringify(policy, null, 2)}\n`,
  ]);
}

/** What the programs on machines check their files by. */
export const contractFiles = (): [string, string][] =>
  (Object.keys(contracts) as (keyof typeof contracts)[]).map((name) => [
    join(project, "hosts", "chtbackup", "schemas", `${name}.json`),
    schemaOf(name),
  ]);

/** What is made from the list of conditions. */
export function conditionFiles(): [string, string][] {
  const all = conditions();
  const measured = all.filter(({ seen }) => !seen.includes("operator"));
  return [
    [runbookFile, runbook(all)],
    [rulesFile, prometheusRules(measured)],
    [grafanaAlertsFile, grafanaAlerts(measured)],
    [dashboardFile, dashboard(measured)],
  ];
}

const help = `Usage: npm run docs [-- --check]

Writes what is made from the program's own texts: docs/settings.md, docs/stack.schema.json, docs/costs.md, docs/runbook.md
and alert rules and a dashboard in docs/monitoring, the rights in docs/examples, and the schemas of contract/ in
hosts/chtbackup/schemas.

  --check   write nothing; exit code 1 when a file isn't what would be written
  --help    this text
`;

/** All that is made, by its file, and what can't be made. */
function made(): { files: [string, string][]; problem: string | undefined } {
  const files: [string, string][] = [
    [referenceFile, reference()],
    [costsFile, costs()],
    [stackSchemaFile, stackSchema()],
    ...contractFiles(),
    ...conditionFiles(),
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
