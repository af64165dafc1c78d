import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { costs, month, prices, restore, stored } from "../../docs/costs";
import { costsFile } from "../../docs/generate";
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

describe("docs/costs.md", () => {
  const [standard, infrequent] = prices.classes;

  it("is what `npm run docs` writes", () => {
    assert.equal(readFileSync(costsFile, "utf8"), costs(), "stale: npm run docs");
  });

  it("reckons as one does by hand", () => {
    assert.ok(standard && infrequent);
    // 100 GB at 2.3 cents; 200 objects.
    const first = month(100, standard);
    assert.ok(Math.abs(first.storage - 2.3) < 1e-9);
    assert.ok(first.requests > 0 && first.requests < 0.01, `${first.requests}`);
    assert.equal(first.checks, 0);
    // 1 cent a GB, and 9 cents for each of the 600 GB that aren't free; 1,400 GETs.
    assert.ok(Math.abs(restore(700, infrequent) - (7 + 54 + 0.0014)) < 1e-9);
    assert.equal(stored(20, { name: "", plain: 0, compactions: 0 }, 12), 20);
    assert.ok(Math.abs(stored(100, { name: "", plain: 0.01, compactions: 0 }, 1) - 130) < 1e-9);
  });
});

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
