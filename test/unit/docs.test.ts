import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parse } from "yaml";
import type { z } from "zod";
import { settingsSchema } from "../../config";
import { serverAwsSchema } from "../../config-aws";
import { costs, month, monthlyCost, prices, restore, stored } from "../../docs/costs";
import { costsFile, rightsFiles } from "../../docs/generate";
import { lookingOnly, rightsOfTheExample } from "../../docs/policies";
import { core } from "../../provider/mistakes";
import { project } from "../../toolchain/paths";
import { exampleForAws } from "../example";

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

  it("has the sum that a stack's output names, part by part", () => {
    const { text, ...parts } = monthlyCost({
      instanceType: "t4g.small",
      dataGibibytes: 100,
      bucket: { storageClass: null },
    });
    // 730 hours at 1.84 cents; 108 GB at 8.8 cents; 730 hours at half a cent; 100 GB at 2.3 cents and some requests.
    assert.deepEqual(parts, { server: 13.43, volume: 9.5, address: 3.65, bucket: 2.3, total: 28.88 });
    assert.match(
      text,
      /^about 28\.88 US dollars a month \(t4g\.small 13\.43, .* bucket with 100 GB in Standard 2\.30\)/,
    );
    assert.ok(text.includes(`by the prices of ${prices.date} in eu-west-1 (Ireland)`), text);
    assert.match(readFileSync(costsFile, "utf8"), /^\| t4g\.small \| {2}\| 13\.43 \| 19\.54 \| 26\.58 \|/m);
  });

  it("leaves out what isn't made", () => {
    const copy = monthlyCost({ dataGibibytes: 100, bucket: { storageClass: "GLACIER_IR" } });
    assert.deepEqual(Object.keys(copy), ["bucket", "total", "text"]);
    assert.equal(copy.total, copy.bucket);
    assert.equal(monthlyCost({ instanceType: "t3.nano", dataGibibytes: 20 }).bucket, undefined);
  });

  it("invents no price that it doesn't have", () => {
    const { total, server, volume, text } = monthlyCost({ instanceType: "m9g.small", dataGibibytes: 20 });
    assert.deepEqual([total, server], [undefined, undefined]);
    assert.equal(volume, 2.46);
    assert.match(text, /m9g\.small, which docs\/costs\.ts has no price for: look at https:/);
    const cold = monthlyCost({ dataGibibytes: 20, bucket: { storageClass: "DEEP_ARCHIVE" } });
    assert.deepEqual([cold.total, cold.bucket], [undefined, undefined]);
  });

  it("knows every storage class that the settings allow", () => {
    const { storageClass } = (core(settingsSchema.shape["cht-backup:bucket"]) as z.ZodObject).shape;
    const { options } = core(storageClass) as z.ZodEnum;
    assert.deepEqual(
      prices.classes.map(({ id }) => id),
      [null, ...options],
    );
  });
});

describe("docs/examples", () => {
  const actions = (name: "operator" | "state" | "pipeline") =>
    rightsOfTheExample()[name].Statement.flatMap(({ Action = [] }) => Action);

  it("isn't touched, and `npm run docs` says why, where Pulumi.prod.yaml holds one's own stack", () => {
    const own = join(project, "Pulumi.staging.yaml");
    assert.throws(
      () => rightsOfTheExample(own),
      /^Error: Pulumi\.prod\.yaml is no longer the example.*left as they are$/,
    );
    const words = ["--require", "./toolchain/typescript.cjs", "docs/generate.ts", "--help"];
    const { status, stdout } = spawnSync(process.execPath, words, { cwd: project, encoding: "utf8" });
    assert.equal(status, 0);
    assert.match(stdout, /^Usage: npm run docs \[-- --check\]/);
  }).timeout(30_000);

  it("has the rights that `npm run docs` writes", () => {
    for (const [file, policy] of rightsFiles()) assert.equal(readFileSync(file, "utf8"), policy, "stale: npm run docs");
  });

  it("gives the pipeline rights to look, and no others", () => {
    assert.ok(actions("pipeline").length > 10);
    for (const action of actions("pipeline")) {
      assert.match(action, /^(ec2:Describe|iam:(Get|List)|s3:(Get|List)|ssm:GetParameter|kms:Decrypt)/);
      assert.ok([...actions("operator"), ...actions("state")].includes(action), action);
    }
    const { Statement } = rightsOfTheExample().pipeline;
    const objects = Statement.filter(({ Action = [] }) => Action.includes("s3:GetObject"));
    assert.deepEqual(
      objects.map(({ Resource }) => Resource),
      ["arn:aws:s3:::moh-pulumi-state/*"],
    );
    const changing = { Sid: "Change", Effect: "Allow" as const, Action: ["s3:PutObject"], Resource: "*" };
    assert.deepEqual(lookingOnly({ Version: "2012-10-17", Statement: [changing] }).Statement, []);
  });

  it("has a workflow that looks every night, with pinned actions, few rights and no secret", () => {
    const text = readFileSync(join(project, "docs/examples/drift.yml"), "utf8");
    const workflow = parse(text);
    assert.match(workflow.on.schedule[0].cron, /^\d+ \d+ \* \* \*$/);
    assert.deepEqual(workflow.permissions, { contents: "read", "id-token": "write" });
    const { steps, ...job } = workflow.jobs.preview;
    assert.ok(job["timeout-minutes"] > 0);
    const uses = steps.flatMap((step: { uses?: string }) => step.uses ?? []);
    assert.equal(uses.length, 3);
    for (const action of uses) assert.match(action, /^[\w./-]+@[0-9a-f]{40}$/);
    assert.equal(steps[0].with["persist-credentials"], false);
    const command = steps.at(-1).run;
    assert.match(command, /^npm run pulumi -- preview --expect-no-changes /);
    assert.match(command, /--stack prod$/);
    // What it prints stands in GitHub for all who may read there.
    assert.doesNotMatch(command, /--show-secrets|--diff|--json|--debug/);
    assert.doesNotMatch(text, /\$\{\{|secrets\.|AKIA|PASSPHRASE/);
    const policy = JSON.stringify(rightsOfTheExample().pipeline);
    const bucket = /^s3:\/\/([^?]+)\?/.exec(steps.at(-1).env.PULUMI_BACKEND_URL)?.[1] ?? "";
    assert.ok(bucket !== "" && policy.includes(`arn:aws:s3:::${bucket}/*`), bucket);
  });
});

describe("docs/production.md", () => {
  const page = readFileSync(join(project, "docs/production.md"), "utf8");

  it("names the version of the plugin that the project uses", () => {
    const { dependencies } = JSON.parse(readFileSync(join(project, "package.json"), "utf8"));
    const named = [...page.matchAll(/plugin install resource aws ([\d.]+)/g)].map(([, version]) => version);
    assert.deepEqual(named, [dependencies["@pulumi/aws"]]);
  });

  it("has blocks that can be pasted into any shell: no comments, nothing that goes on after a failure", () => {
    const blocks = [...page.matchAll(/```shell\n([\s\S]*?)```/g)].map(([, block = ""]) => block);
    assert.ok(blocks.length > 10);
    for (const block of blocks) {
      assert.doesNotMatch(block, /(^|\s)#|`/, block);
      const changes = block.match(/\baws (iam|kms|s3api) (?!get|describe|head)/g) ?? [];
      if (changes.length > 1) assert.match(block, /^\( set -eu\n[\s\S]*\n\)\n$/);
    }
  });

  it("names what the example costs, as reckoned", () => {
    const config = exampleForAws();
    const { total = 0 } = monthlyCost({
      instanceType: serverAwsSchema.shape.instanceType.parse(undefined),
      dataGibibytes: config["cht-backup:server"].aws.dataGibibytes,
      bucket: config["cht-backup:bucket"],
    });
    // And the key for the state.
    assert.match(page.replaceAll("\n", " "), new RegExp(`about ${Math.round(total + 1)} US dollars a month at first`));
  });

  it("replaces everything in the rights that is another's", () => {
    const [, script = ""] = /sed -e "([^\n]*)" "docs\/examples/.exec(page) ?? [];
    for (const example of ["123456789012", "eu-west-1", "moh-pulumi-state", "moh-backup-copy"]) {
      assert.ok(script.includes(`s/${example}/`), example);
      assert.ok(
        rightsFiles().some(([, policy]) => policy.includes(example)),
        example,
      );
    }
  });
});

describe("the documents", () => {
  it("say of `--start` what begins at once, wherever they say it: SMS, and replications that run for ever", () => {
    const told = [...pages, "operations/restore.ts"]
      .flatMap((page) => text(page).split(/\n\n|^\d+\. |^ {2}(?=--)/m))
      .filter((paragraph) => /--start/.test(paragraph) && /SMS/.test(paragraph));
    assert.ok(told.length >= 4, `${told.length}`);
    for (const paragraph of told) assert.match(paragraph, /replications that run for ever/);
  });

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
