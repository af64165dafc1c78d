/** docs/runbook.md: a section for each condition, what it means and what to do. */
import { join } from "node:path";
import type { Condition } from "../conditions";
import { project } from "../paths";

export const runbookFile = join(project, "docs", "runbook.md");

const machines = {
  cht: "the CHT machine",
  server: "the server",
  drill: "a machine of its own that drills",
  operator: "the computer on which `npm run status` runs",
};

/** Commands that run on the operator's computer begin so. */
const isHere = (command: string) => command.startsWith("npm run ");

function block(title: string, commands: string[]): string[] {
  return commands.length === 0 ? [] : [title, "", "```shell", ...commands, "```", ""];
}

function section(of: Condition): string[] {
  const seen = of.seen.map((role) => machines[role]).join(", ") || "whoever collects the metrics";
  const hidden = of.hidden_by.map((id) => `[${id}](#${id})`).join(", ");
  return [
    `## ${of.id}`,
    "",
    `**${of.title}.** ${of.severity === "critical" ? "Critical" : "A warning"}, seen by ${seen}.`,
    "",
    of.meaning,
    "",
    `It says: “${of.text.replace(/\{[a-z]+\}/g, "…")}”`,
    "",
    `**What to do.** ${of.todo}`,
    "",
    ...block(
      "On that machine, as root:",
      of.commands.filter((command) => !isHere(command)),
    ),
    ...block("On your computer, in the project:", of.commands.filter(isHere)),
    ...(hidden === "" ? [] : [`It isn't told while one of these holds, from which it follows: ${hidden}.`, ""]),
  ];
}

/** The whole page. Pure. */
export function runbook(conditions: Condition[]): string {
  return [
    "<!-- Written by `npm run docs` from hosts/chtbackup/watch/conditions.py. -->",
    "# Runbook",
    "",
    "What alarms, status, the metrics and the page may say, and what to do then. Each machine looks every hour. " +
      "Somebody is told at once, then once a day, then that it is over. What a run says itself when it fails comes before that.",
    "",
    "In the commands DEPLOYMENT and STACK stand for your names, SERVER and PORT for the server's address and SSH port.",
    "",
    ...conditions.flatMap(section),
  ].join("\n");
}
