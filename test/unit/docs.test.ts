import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parse } from "yaml";
import { monthlyCost } from "../../components/aws-costs";
import { bucketNames, chtNames, drillNames, serverNames } from "../../components/names";
import { settingsSchema } from "../../config";
import { serverAwsSchema } from "../../config/aws-server";
import { core, textsOf } from "../../provider/mistakes";
import { conditions } from "../../toolchain/conditions";
import { costs, costsFile } from "../../toolchain/docs/costs-page";
import { lookingOnly, rightsOfTheExample } from "../../toolchain/docs/example-rights";
import { reference, referenceFile } from "../../toolchain/docs/settings-page";
import { conditionFiles, rightsFiles } from "../../toolchain/docs/write";
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
  it("is what `npm run docs` writes", () => {
    assert.equal(readFileSync(costsFile, "utf8"), costs(), "stale: npm run docs");
  });
});

describe("docs/runbook.md", function () {
  this.timeout(30_000);

  it("and rules and dashboard are what `npm run docs` writes", () => {
    for (const [file, made] of conditionFiles()) assert.equal(readFileSync(file, "utf8"), made, "stale: npm run docs");
  });

  it("names only units that there are", () => {
    const names = [
      chtNames("DEPLOYMENT"),
      drillNames("DEPLOYMENT"),
      serverNames("DEPLOYMENT", ""),
      bucketNames("DEPLOYMENT"),
    ];
    const units = names.flatMap((each) => Object.values(each)).map((name) => name.replace(/\.service$/, ""));
    const commands = conditions().flatMap((of) => of.commands);
    const named = commands.flatMap((each) => /(?:status|start|stop|-u) '?(cht-\S+DEPLOYMENT)/.exec(each)?.[1] ?? []);
    assert.ok(named.length > 10);
    for (const unit of named) {
      const pattern = new RegExp(`^${unit.replace("*", ".*")}$`);
      assert.ok(
        units.some((name) => pattern.test(name)),
        unit,
      );
    }
  });
});

describe("docs/settings.md", () => {
  it("is what `npm run docs` writes", () => {
    assert.equal(readFileSync(referenceFile, "utf8"), reference(), "stale: npm run docs");
  });

  it("has texts for every setting", () => {
    const check = (schema: unknown, name: string): void => {
      const setting = schema as Parameters<typeof textsOf>[0];
      const { description, allowed } = textsOf(setting);
      assert.ok(description?.endsWith(".") && allowed !== undefined, name);
      const { shape, valueType } = core(setting) as { shape?: object; valueType?: unknown };
      for (const [key, inner] of Object.entries(shape ?? {})) check(inner, `${name}.${key}`);
      if (valueType !== undefined) check(valueType, `${name}.NAME`);
    };
    for (const [key, schema] of Object.entries(settingsSchema.shape)) check(schema, key);
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
    const words = ["--require", "./toolchain/typescript.cjs", "toolchain/docs/write.ts", "--help"];
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
