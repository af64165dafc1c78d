import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { exec } from "../../lab/machines";
import { passphraseFile, stackFile } from "../../lab/stack";
import type { Result } from "../../toolchain/command";
import { labFolder, project } from "../../toolchain/paths";
import { pulumi } from "../../toolchain/pulumi";
import { type Case, cases, secretText } from "./lifecycle/cases";
import { type Change, changesOf } from "./preview";

const folder = join(__dirname, "lifecycle");
const state = join(labFolder, "lifecycle-state");
const settingsFile = join(folder, "Pulumi.lifecycle.yaml");

function engine(...args: string[]): Promise<Result> {
  return engineFor("everything", ...args);
}

function engineFor(program: "everything" | "refused", ...args: string[]): Promise<Result> {
  const env = {
    ...process.env,
    LIFECYCLE: program,
    PULUMI_BACKEND_URL: `file://${state}`,
    PULUMI_CONFIG_PASSPHRASE_FILE: passphraseFile,
    PULUMI_STACK: "lifecycle",
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
  };
  return pulumi(args, { cwd: folder, env });
}

async function up(...args: string[]): Promise<void> {
  const result = await engine("up", "--yes", "--skip-preview", ...args);
  assert.equal(result.code, 0, result.stdout + result.stderr);
}

async function preview(): Promise<Change[]> {
  const result = await engine("preview", "--json");
  assert.equal(result.code, 0, result.stdout + result.stderr);
  return changesOf(result.stdout);
}

/** What every case's machine shows, by the case's name. */
async function look(): Promise<Map<string, string>> {
  const seen = await Promise.all(
    cases.map(async ({ name, machine, look }) => [name, (await exec(machine, look)).stdout.trim()] as const),
  );
  return new Map(seen);
}

/** Everything that the fixture ever puts on the lab's machines, which the stack itself must leave. */
async function sweep(): Promise<void> {
  await exec(
    "cht",
    "gpasswd --delete games users; systemctl stop lifecycle.timer; rm -rf /srv/lifecycle /etc/systemd/system/lifecycle.*; systemctl daemon-reload",
  );
  await exec("server", "rm -rf /srv/lifecycle; userdel lifecycle; dpkg --purge tree hello");
}

describe("every resource of the plugin, from nothing to gone", function () {
  this.timeout(300_000);

  const stages = new Map<string, Map<string, string>>();
  const at = (stage: string, { name }: Case) => stages.get(stage)?.get(name) ?? "";
  let drift: Change[] = [];
  let driftInWords = "";
  let unchanged: Change[] = [];
  let deployment = "";
  let refused: Result;
  let destroyed = "";

  before(async () => {
    rmSync(state, { recursive: true, force: true });
    rmSync(settingsFile, { force: true });
    mkdirSync(state, { recursive: true });
    await sweep();
    const machines = parse(readFileSync(stackFile, "utf8")).config["host:machines"];
    for (const machine of Object.values<{ identityFile: string }>(machines)) {
      machine.identityFile = join(project, machine.identityFile);
    }
    const created = await engine("stack", "init", "lifecycle");
    assert.equal(created.code, 0, created.stderr);
    const salt = readFileSync(settingsFile, "utf8");
    writeFileSync(settingsFile, salt + stringify({ config: { "host:machines": machines } }));

    refused = await engineFor("refused", "up", "--yes", "--skip-preview");
    stages.set("before", await look());
    await preview();
    stages.set("after a preview", await look());
    await up();
    stages.set("after up", await look());
    deployment = (await engine("stack", "export")).stdout;
    unchanged = await preview();
    await up();
    stages.set("after a second up", await look());
    for (const { machine, meddle } of cases) {
      if (meddle !== undefined) assert.equal((await exec(machine, meddle)).code, 0, meddle);
    }
    stages.set("after meddling", await look());
    drift = await preview();
    driftInWords = (await engine("preview", "--diff")).stdout;
    stages.set("after a preview of the drift", await look());
    await up();
    stages.set("after the repair", await look());
    const gone = await engine("destroy", "--yes", "--skip-preview");
    assert.equal(gone.code, 0, gone.stdout + gone.stderr);
    destroyed = gone.stdout;
    stages.set("after destroy", await look());
  });

  after(async () => {
    await sweep();
    rmSync(settingsFile, { force: true });
  });

  for (const each of cases) {
    describe(each.name, () => {
      it("a preview leaves the machine untouched", () => {
        assert.equal(at("after a preview", each), at("before", each));
      });
      it("is made as it was asked for", () => assert.match(at("after up", each), each.right));
      it("is left alone by a second run", () => {
        assert.deepEqual(
          unchanged.filter((change) => change.name === each.name),
          [],
        );
        assert.equal(at("after a second up", each), at("after up", each));
      });
      if (each.meddle !== undefined) {
        it(`shows in a preview, as ${each.drift}, what someone did to it`, () => {
          assert.notEqual(at("after meddling", each), at("after up", each), "the meddling had no effect");
          const change = drift.find(({ name }) => name === each.name);
          assert.ok(change, `no change of ${each.name} in ${JSON.stringify(drift)}`);
          const shown = change.operation === "update" ? change.properties : [change.operation];
          assert.ok(shown.includes(each.drift ?? ""), JSON.stringify(change));
          assert.equal(at("after a preview of the drift", each), at("after meddling", each));
        });
        it("is mended by the next up", () => assert.match(at("after the repair", each), each.right));
      }
      it("goes with the stack, or stays where it must", () => {
        if (each.afterDestroy) assert.match(at("after destroy", each), each.afterDestroy);
        else assert.equal(at("after destroy", each), at("before", each));
      });
    });
  }

  it("a package that the distribution has only in an older version is refused with the reason, and not installed", () => {
    assert.notEqual(refused.code, 0);
    assert.match(refused.stdout, /server: Debian GNU\/Linux 13 .* offers tree \S+, but 99 or newer is needed/);
    assert.doesNotMatch(stages.get("before")?.get("packages") ?? "", /^installed/);
  });
  it("who destroys a stack is told what becomes of the copies in a bucket", () => {
    assert.match(
      destroyed,
      /warning: the copies in the bucket cht-backup-lab stay where they are, and can be restored/,
    );
  });
  it("a preview shows the changed lines of a file", () => assert.match(driftInWords, /-.*four/));
  it("a secret is nowhere in clear: neither in the state nor in a preview", () => {
    assert.doesNotMatch(deployment, new RegExp(secretText));
    assert.doesNotMatch(driftInWords, new RegExp(secretText));
  });
});
