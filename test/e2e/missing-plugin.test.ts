import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { identityFile } from "../../lab/boot";
import { addressOf, output } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { pulumi } from "../../toolchain/pulumi";
import { exampleForAws } from "../example";

const stack = "without-plugin";

describe("the example for AWS on a computer that lacks something", function () {
  this.timeout(60_000);

  let folder: string;
  let env: NodeJS.ProcessEnv;

  /** As an operator calls it. */
  function preview(more: NodeJS.ProcessEnv): Promise<Result> {
    const args = ["preview", "--stack", stack, "--config-file", join(folder, "prod.yaml"), "--color", "never"];
    return run("npm", ["run", "-s", "pulumi", "--", ...args], { cwd: project, env: { ...env, ...more } });
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-plugin-"));
    for (const name of ["state", "home"]) mkdirSync(join(folder, name));
    // Pulumi names the plugin that it misses first: it may only be AWS'.
    const config = exampleForAws();
    config["cht-backup:drill"].manageDocker = false;
    // The machines are asked before Pulumi is told of a resource.
    // An earlier lab had another key at this address, which ssh remembers.
    const [type, key] = (await output("cht", "cat /etc/ssh/ssh_host_ed25519_key.pub")).split(" ");
    const hostKey = `${type} ${key}`;
    config["host:machines"].cht = { address: await addressOf("cht"), user: "ubuntu", identityFile, hostKey };
    config["cht-backup:firstBackup"] = false;
    writeFileSync(join(folder, "prod.yaml"), stringify({ config }));
    const { AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...others } = process.env;
    env = {
      ...others,
      PULUMI_HOME: join(folder, "home"),
      PULUMI_BACKEND_URL: `file://${join(folder, "state")}`,
      PULUMI_CONFIG_PASSPHRASE: "a phrase",
      // As where it can't be reached, without the time that Pulumi takes to find out.
      PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
      AWS_CONFIG_FILE: join(folder, "config"),
      AWS_SHARED_CREDENTIALS_FILE: join(folder, "credentials"),
      AWS_EC2_METADATA_DISABLED: "true",
    };
    const made = await pulumi(["stack", "init", stack, "--no-select"], { env });
    assert.equal(made.code, 0, made.stderr);
  });
  after(() => {
    rmSync(join(project, `Pulumi.${stack}.yaml`), { force: true });
    rmSync(folder, { recursive: true });
  });

  it("says that the plugin of AWS is missing, why it is needed and what to do", async () => {
    const done = await preview({ AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE", AWS_SECRET_ACCESS_KEY: "hunter2" });
    assert.equal(done.code, 1, done.stdout);
    assert.match(done.stdout, /no resource plugin 'pulumi-resource-aws' found/);
    const { dependencies } = JSON.parse(readFileSync(join(project, "package.json"), "utf8"));
    const install = `npm run pulumi -- plugin install resource aws ${dependencies["@pulumi/aws"]}`;
    assert.ok(done.stderr.includes(`${install}\n`), done.stderr);
    assert.match(done.stderr, /Pulumi's plugin `aws`, .*\nIt makes what `cht-backup:server\.aws`/);
    assert.doesNotMatch(done.stdout + done.stderr, /hunter2|^ +at /m);
  });

  it("says that there is no credential, before it asks for anything", async () => {
    const done = await preview({});
    assert.notEqual(done.code, 0, done.stdout);
    assert.match(done.stdout, /no credential for AWS: .* no profile `default` in AWS' files of this computer/);
    assert.doesNotMatch(done.stdout, /resource plugin|^ +at /m);
    assert.doesNotMatch(done.stderr, /Pulumi's plugin/);
  });
});
