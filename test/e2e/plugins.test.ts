/** What the engine makes of our resources of other people's plugins, which are stood in for: see `cloud/standin.ts`. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import type { Result } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { pulumi } from "../../toolchain/pulumi";

const program = `
const pulumi = require("@pulumi/pulumi");
const { keepDocker } = require("./components/drill-docker");
const { runRemotely } = require("./components/remote-script");
const { address, once, earlier } = JSON.parse(require("node:fs").readFileSync("settings.json", "utf8"));
const machine = { address, user: "ops", sudo: true };
keepDocker("cht", machine, "cht-drill-moh", undefined, undefined, {});
if (earlier) {
  // As an earlier version registered it.
  const { remote } = require("@pulumi/command");
  const connection = { host: address, user: "ops", privateKey: pulumi.secret("hunter2") };
  new remote.Command("first-backup", { connection, create: "x", update: "true", triggers: [] });
} else {
  const order = { name: "cht", machine, words: [] };
  runRemotely("first-backup", { order, script: "cht/first_backup.sh", once }, {});
}
`;

describe("resources of other plugins", function () {
  this.timeout(120_000);

  let folder: string;
  const path = (name: string) => join(folder, name);
  /** The stack's settings, and the engines that answer, by address, with their networks. */
  const today = (settings: object, engines: Record<string, Record<string, string>>) => {
    writeFileSync(path("settings.json"), JSON.stringify(settings));
    const hosts = Object.entries(engines).map(([address, networks]) => [`ssh://ops@${address}`, networks]);
    writeFileSync(path("engines.json"), JSON.stringify(Object.fromEntries(hosts)));
  };
  const engine = (...args: string[]): Promise<Result> =>
    pulumi([...args, "--color", "never"], {
      cwd: folder,
      env: {
        ...process.env,
        PATH: [path("bin"), join(__dirname, "cloud"), process.env.PATH].join(delimiter),
        PULUMI_STACK: "plugins",
        PULUMI_HOME: path("home"),
        PULUMI_BACKEND_URL: `file://${path("state")}`,
        PULUMI_CONFIG_PASSPHRASE: "a phrase",
        PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
        STANDIN_CALLS: path("calls"),
        STANDIN_DOCKER: path("engines.json"),
      },
      timeoutMs: 240_000,
    });
  /** @returns what the plugins were asked for, and how often something was run on a machine */
  async function up(): Promise<{ calls: string[]; logins: number }> {
    for (const name of ["calls", "logins"]) writeFileSync(path(name), "");
    const done = await engine("up", "--yes", "--skip-preview");
    assert.equal(done.code, 0, done.stdout + done.stderr);
    const lines = (name: string) => readFileSync(path(name), "utf8").split("\n").slice(0, -1);
    return { calls: lines("calls").sort(), logins: lines("logins").length };
  }
  const unchanged = async () => {
    const done = await engine("preview", "--expect-no-changes");
    assert.equal(done.code, 0, done.stdout + done.stderr);
  };

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-plugins-"));
    for (const name of ["state", "home", "bin"]) mkdirSync(path(name));
    for (const name of ["components", "hosts", "node_modules", "operations", "provider", "toolchain", "config"])
      symlinkSync(join(project, name), path(name));
    writeFileSync(path("program.ts"), program);
    // The engine that is built from Go modules reads the options a line each.
    const options = "    typescript: false\n    nodeargs: --require ./toolchain/typescript.cjs\n";
    const runtime = `runtime:\n  name: nodejs\n  options:\n${options}`;
    writeFileSync(path("Pulumi.yaml"), `name: plugins\nmain: program.ts\n${runtime}options:\n  refresh: always\n`);
    writeFileSync(path("package.json"), JSON.stringify({ name: "plugins" }));
    // A login that begins, prints the mark by which that is seen, and does nothing.
    const mark = "printf %s \"$*\" | grep -o 'cht-backup-[0-9a-f]\\{32\\}' | tee /dev/stderr";
    writeFileSync(path("bin/ssh"), `#!/bin/sh\necho login >>${path("logins")}\n${mark}\ncat >/dev/null\n`, {
      mode: 0o755,
    });
    const made = await engine("stack", "init", "--no-select", "plugins");
    assert.equal(made.code, 0, made.stderr);
  });
  after(() => rmSync(folder, { recursive: true }));

  it("of an earlier version are carried over: the network that is there is taken, the old command goes without a login, and no key stays in the state", async () => {
    today({ address: "old", once: "one", earlier: true }, { old: { "cht-drill-moh": "made-by-hand" } });
    assert.deepEqual((await up()).calls, ["create first-backup"]);
    today({ address: "old", once: "one" }, { old: { "cht-drill-moh": "made-by-hand" } });
    assert.deepEqual(await up(), { calls: ["create first-backup", "delete first-backup"], logins: 1 });
    const { stdout } = await engine("stack", "export");
    assert.match(stdout, /command:local:Command::first-backup/);
    assert.match(stdout, /"id": "made-by-hand"/);
    assert.doesNotMatch(stdout, /remote:Command|privateKey/);
    await unchanged();
  });

  it("go by today's settings, not by those that the state has kept of a machine that is gone", async () => {
    today({ address: "new", once: "one" }, { new: {} });
    const { calls, logins } = await up();
    assert.ok(calls.includes("create drill-cht-network"), calls.join());
    assert.equal(logins, 0, "another address is no reason to run the script again");
    await unchanged();
  });

  it("run their script again where there is something new to do, and then alone", async () => {
    today({ address: "new", once: "two" }, { new: { "cht-drill-moh": "made-cht-drill-moh" } });
    assert.deepEqual(await up(), { calls: ["create first-backup", "delete first-backup"], logins: 1 });
  });

  it("that Docker can't be asked for are told in our words, before anything is made", async () => {
    today({ address: "elsewhere", once: "two" }, {});
    const { code, stdout } = await engine("preview");
    assert.notEqual(code, 0);
    assert.match(stdout, /cht: Docker can't be used there by ops/);
    assert.doesNotMatch(stdout, /^ +at /m);
  });
});
