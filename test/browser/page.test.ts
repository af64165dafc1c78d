import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostFile } from "../../components/host-files";
import { troubledReports, wellReports } from "../status-reports";
import { Chromium } from "./chromium";

const NOW = Date.UTC(2026, 10, 28, 12, 10) / 1000;
const PHONE = 360;
const DESK = 1280;

/** The page as the machines' program makes it. */
function page(reports: object[], unreached: object[] = []): string {
  const input = JSON.stringify({ reports, unreached, at: NOW });
  const { stdout, status, stderr } = spawnSync("python3", ["-I", "-B", hostFile("chtbackup"), "page"], {
    input,
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  return stdout;
}

const EVIL = '</title></style><script>document.title="evil"</script><img src=x onerror="document.title=\'evil\'">';

describe("the page in a browser", function () {
  this.timeout(60_000);
  const folder = mkdtempSync(join(tmpdir(), "cht-backup-page-"));
  /** Where to put pictures for people to look at; by default nowhere. */
  const pictures = process.env.PAGE_PICTURES;
  const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
  const silent = [{ name: "third", why: "third (203.0.113.9): can't be reached over SSH: no answer at port 22" }];
  const pages = {
    well: page(wellReports(NOW)),
    troubled: page(troubledReports(NOW), silent),
    "the server's own": page(wellReports(NOW).slice(1, 2)),
    empty: page([]),
    hostile: page(
      troubledReports(NOW).map((report) =>
        JSON.parse(JSON.stringify(report).replaceAll("moh", JSON.stringify(EVIL).slice(1, -1))),
      ),
      [{ name: EVIL, why: EVIL.repeat(20) }],
    ),
  };
  const file = (name: string) => join(folder, `${name.replaceAll(/\W/g, "-")}.html`);
  let chromium: Chromium;

  before(async () => {
    for (const [name, text] of Object.entries(pages)) writeFileSync(file(name), text);
    chromium = await Chromium.start();
  });
  after(async () => {
    await chromium?.stop();
    rmSync(folder, { recursive: true });
  });

  for (const name of Object.keys(pages)) {
    // Both looks of a page that has everything on it.
    for (const dark of name === "troubled" ? [false, true] : [name === "well"]) {
      it(`passes an accessibility check, and fits on a phone: ${name}, ${dark ? "dark" : "light"}`, async () => {
        await chromium.open(file(name), { width: PHONE, dark });
        if (pictures !== undefined) {
          mkdirSync(pictures, { recursive: true });
          const picture = join(pictures, `${name.replaceAll(/\W/g, "-")}-${dark ? "dark" : "light"}.png`);
          writeFileSync(picture, await chromium.screenshot());
        }
        const width = await chromium.evaluate<number>("document.scrollingElement.scrollWidth");
        assert.ok(width <= PHONE, `${width} pixels wide`);
        await chromium.evaluate(`${axe}; undefined`);
        // Opened, so that what is in them is looked at, too.
        await chromium.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })");
        const found = await chromium.evaluate<{ passes: string[]; violations: string[]; unsure: string[] }>(
          `axe.run().then(({ passes, violations, incomplete }) => {
            const told = (all) => all.map(({ id, nodes }) => id + ": " + nodes.map(({ html }) => html).join(" "));
            return { passes: passes.map(({ id }) => id), violations: told(violations), unsure: told(incomplete) };
          })`,
        );
        assert.deepEqual(found.violations, []);
        assert.deepEqual(found.unsure, []);
        for (const rule of ["color-contrast", "html-has-lang", "document-title", "heading-order", "region"]) {
          assert.ok(found.passes.includes(rule), rule);
        }
      });
    }
  }

  it("is light or dark as the reader's system is", async () => {
    const grounds: string[] = [];
    for (const dark of [false, true]) {
      await chromium.open(file("well"), { width: DESK, dark });
      grounds.push(await chromium.evaluate("getComputedStyle(document.body).backgroundColor"));
    }
    assert.deepEqual(grounds, ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]);
  });

  it("shows the verdict and what is worst without scrolling", async () => {
    await chromium.open(file("troubled"), { width: PHONE, dark: false });
    for (const selector of [".verdict", ".conditions h3"]) {
      const bottom = await chromium.evaluate<number>(
        `document.querySelector("${selector}").getBoundingClientRect().bottom`,
      );
      assert.ok(bottom < 640, `${selector} ends at ${bottom}`);
    }
  });

  it("does nothing by what a hostile machine reports, and loads nothing", async () => {
    await chromium.open(file("hostile"), { width: PHONE, dark: false });
    assert.match(await chromium.evaluate<string>("document.title"), /^Backups of <\/title>.*: somebody has to look$/);
    assert.equal(await chromium.evaluate("document.querySelectorAll('script, img').length"), 0);
    assert.deepEqual(chromium.requests, []);
  });

  it("has no script, so that it needs none", () => {
    for (const text of Object.values(pages)) assert.doesNotMatch(text, /<script/i);
  });
});
