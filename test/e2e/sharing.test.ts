import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { exec, output } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import { labFolder } from "../../toolchain/paths";
import { pulumi } from "../../toolchain/pulumi";
import { assertNoDrift, mustSucceed } from "./stack";

/** A second deployment, on the lab's machines, with its stack in the lab's state. */
const settingsFile = join(labFolder, "second.yaml");
const server = "/srv/cht-backup/second";

async function second(...args: string[]): Promise<string> {
  const env = {
    ...process.env,
    PULUMI_STACK: "second",
    PULUMI_BACKEND_URL: `file://${join(labFolder, "state")}`,
    PULUMI_CONFIG_PASSPHRASE_FILE: join(labFolder, "passphrase"),
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
  };
  const result = await pulumi([...args, "--color", "never"], { env });
  assert.equal(result.code, 0, result.stdout + result.stderr);
  return result.stdout;
}

const withSettings = ["--config-file", settingsFile];

function archives(deployment: string): Promise<string> {
  return output(
    "cht",
    `/opt/cht-backup/${deployment}/venv/bin/borgmatic --config /etc/cht-backup/${deployment}/borgmatic.yaml repo-list --short | grep -v Listing`,
  );
}

async function sweep(): Promise<void> {
  await exec("cht", "rm -rf /etc/cht-backup/second /var/lib/cht-backup/second /opt/cht-backup/second");
  await exec("server", `rm -rf ${server}; userdel cht-backup-second`);
  await pulumi(["stack", "rm", "--yes", "--force", "--stack", "second"], {
    env: { ...process.env, PULUMI_BACKEND_URL: `file://${join(labFolder, "state")}` },
  });
  rmSync(settingsFile, { force: true });
  rmSync("Pulumi.second.yaml", { force: true });
}

describe("two deployments on one server", function () {
  this.timeout(240_000);

  before(async () => {
    await sweep();
    const { config } = parse(readFileSync(stackFile, "utf8"));
    const settings = {
      ...config,
      "cht-backup:deployment": "second",
      "cht-backup:server": { ...config["cht-backup:server"], reserveMebibytes: 2 },
      // Its secrets are encrypted for the lab's stack alone.
      "cht-backup:bucket": "none",
    };
    await second("stack", "init", "second");
    writeFileSync(settingsFile, readFileSync("Pulumi.second.yaml", "utf8") + stringify({ config: settings }));
    await second("up", "--yes", "--skip-preview", ...withSettings);
    await output("cht", "systemctl start cht-backup-second.service");
  });
  after(sweep);

  it("live side by side: neither drifts because of the other", async () => {
    await second("preview", "--expect-no-changes", ...withSettings);
    await assertNoDrift();
  });

  it("can't reach into each other's repository", async () => {
    const script = (deployment: string) =>
      `BORG_BASE_DIR=$(mktemp -d) BORG_PASSCOMMAND='cat /etc/cht-backup/lab/passphrase' BORG_RSH='ssh -F /etc/cht-backup/second/ssh_config' borg list ssh://offsite/srv/cht-backup/${deployment}/repository`;
    const other = await exec("cht", script("lab"));
    assert.notEqual(other.code, 0);
    assert.match(other.stderr, /path not allowed/i);
  });

  it("destroying one leaves its repository, its passphrase, and everything of the other", async () => {
    const before = { own: await archives("second"), other: await archives("lab") };
    assert.match(before.own, /^second-\S+$/);
    const identity = JSON.parse(await second("stack", "output", "--json")).repositoryId;
    const segments = await output("server", `cd ${server}/repository && find data -type f -exec sha256sum {} +`);
    const passphrase = await output("cht", "sha256sum /etc/cht-backup/second/passphrase");

    await second("destroy", "--yes", "--skip-preview", ...withSettings);

    await output("server", `cd ${server}/repository && sha256sum --check --quiet -`, { stdin: segments });
    assert.equal(await output("cht", "sha256sum /etc/cht-backup/second/passphrase"), passphrase);
    assert.equal(await output("cht", "systemctl list-unit-files 'cht-backup-second*' --no-legend | wc -l"), "0");
    assert.equal(await output("server", `test -e ${server}/.ssh/authorized_keys || echo gone`), "gone");
    await assertNoDrift();
    assert.equal(await archives("lab"), before.other);

    // Made again, it finds what was left.
    await second("up", "--yes", "--skip-preview", ...withSettings);
    assert.equal(JSON.parse(await second("stack", "output", "--json")).repositoryId, identity);
    assert.equal(await archives("second"), before.own);
    await second("destroy", "--yes", "--skip-preview", ...withSettings);
    await assertNoDrift();
  });

  it("a stack that has nothing to do with a deployment of this name can't take it over", async () => {
    // Prod's file copied for a training machine: same deployment, same server, another key.
    const keys = "/srv/cht-backup/second/.ssh/authorized_keys";
    const foreign =
      'restrict,command="/usr/bin/borg serve" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDOyFo85EhjxcKPwy3PVRUkg9DAcyF83jITBCUDpWyHv prod';
    await output("server", `mkdir -p $(dirname ${keys}) && echo '${foreign}' >${keys}`);
    await output("cht", "cp -p /etc/cht-backup/second/passphrase /root/passphrase-of-second");
    await assert.rejects(second("up", "--yes", "--skip-preview", ...withSettings), /lets another key in/);
    assert.equal(await output("server", `cat ${keys}`), foreign);

    await second("config", "set", "--secret", "cht-backup:passphrase", "believed to be the right one", ...withSettings);
    await second("destroy", "--yes", "--skip-preview", ...withSettings);
    await assert.rejects(second("up", "--yes", "--skip-preview", ...withSettings), /holds another passphrase/);
    await output(
      "cht",
      "cmp /etc/cht-backup/second/passphrase /root/passphrase-of-second && rm /root/passphrase-of-second",
    );
    await output("server", `rm ${keys}`);
    await second("destroy", "--yes", "--skip-preview", ...withSettings);
  });

  it("the output of the stack says what a destroy would leave, and where", async () => {
    const { kept } = JSON.parse(await mustSucceed("stack", "output", "--json"));
    assert.match(
      JSON.stringify(kept),
      /\/srv\/cht-backup\/lab\/repository.*|passphrase.*\/etc\/cht-backup\/lab\/passphrase/,
    );
  });
});
