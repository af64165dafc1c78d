/** The commands of `docs/restore.md`, for the lab. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { project } from "../../toolchain/paths";

/** The first block of commands in a section that has these words in it. */
export function runbook(section: number, words: string): string {
  const text = readFileSync(join(project, "docs", "restore.md"), "utf8");
  const [, from = ""] = text.split(new RegExp(`^## ${section}\\. `, "m"));
  const blocks = [...(from.split(/^## /m)[0] ?? "").matchAll(/```shell\n([\s\S]*?)```/g)].map(
    ([, block = ""]) => block,
  );
  const block = blocks.find((each) => each.includes(words)) ?? assert.fail(words);
  return block
    .replace(/\bprod\b/g, "lab")
    .replaceAll("npm run", "npm run -s")
    .trim();
}
