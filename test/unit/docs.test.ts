import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { project } from "../../toolchain/paths";

const pages = [
  "README.md",
  ...readdirSync(join(project, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];
const text = (page: string) => readFileSync(join(project, page), "utf8");

/** A heading's anchor as code hosts make it. */
const anchor = (heading: string) =>
  heading
    .toLowerCase()
    .replace(/[^\w\s-]/g, "")
    .trim()
    .replaceAll(" ", "-");

describe("the documents", () => {
  for (const page of pages) {
    it(`${page}: every link inside the project leads somewhere`, () => {
      const links = [...text(page).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)];
      for (const [link, path = "", fragment] of links) {
        const target = path === "" ? page : join(dirname(page), path);
        assert.ok(existsSync(join(project, target)), `${link} in ${page}`);
        if (fragment === undefined) continue;
        const anchors = [...text(target).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => anchor(heading));
        assert.ok(anchors.includes(fragment), `${link} in ${page}: ${anchors.join(", ")}`);
      }
    });
    it(`${page}: every npm command it names exists`, () => {
      const { scripts } = JSON.parse(readFileSync(join(project, "package.json"), "utf8"));
      const named = [...text(page).matchAll(/npm (?:run )?(?:-s )?([a-z][a-z:-]*)/g)].map(([, name = ""]) => name);
      for (const name of named.filter((each) => !["ci", "run"].includes(each)))
        assert.ok(name in scripts, `${name} in ${page}`);
    });
  }
});
