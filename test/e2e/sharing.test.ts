import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { bucketNames } from "../../components/names";
import { bucketSecrets, bucketSettings } from "../../lab/bucket";
import { exec, output } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import { labFolder } from "../../toolchain/paths";
import { pulumi } from "../../toolchain/pulumi";
import { bucketContent, type CopyReport } from "./bucket";
import { assertNoDrift, mustSucceed } from "./stack";

/** A second deployment, on the lab's machines, with its stack in the lab's state. */
const settingsFile = join(labFolder, "second.yaml");
const server = "/srv/cht-backup/second";
const copies = bucketNames("second");
const metrics = "/var/lib/prometheus/node-exporter";
/** Below the lab's own, where the writer's key may write. What a run before has left is locked, so it stays. */
const prefix = `lab/second-${Date.now()}/`;

async function second(...args: string[]): Promise<string> {
  return secondReads("", ...args);
}

async function secondReads(stdin: string, ...args: string[]): Promise<string> {
  const env = {
    ...process.env,
    PULUMI_STACK: "second",
    PULUMI_BACKEND_URL: `file://${join(labFolder, "state")}`,
    PULUMI_CONFIG_PASSPHRASE_FILE: join(labFolder, "passphrase"),
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
  };
  const result = await pulumi([...args, "--color", "never"], { env, stdin });
  assert.equal(result.code, 0, result.stdout + result.stderr);
  return result.stdout;
}

const withSettings = ["--config-file", settingsFile];

function archives(deployment: string): Promise<string> {
  return output("cht", `python3 -I /opt/cht-backup/${deployment}/chtbackup borg list --short`);
}

/** Makes a copy of the second deployment's repository. @returns its report */
async function copy(): Promise<CopyReport> {
  const script = `touch --date '1 minute ago' ${server}/repository
systemctl start ${copies.copyService}
cat ${copies.state}/last-copy.json`;
  return JSON.parse(await output("server", script));
}

/** Asserts that the server neither copies anything nor knows the bucket's key any more. */
async function assertNoCopies(): Promise<void> {
  const search = `read -r secret
ls -d ${copies.settings} ${copies.programs} ${server}/snapshot 2>/dev/null
systemctl list-unit-files 'cht-bucket-*second*' --no-legend
systemctl list-units --all 'cht-bucket-*second*' --no-legend
grep -rlF --exclude-dir=lab -- "$secret" /etc /home /opt /root /run /srv /tmp /var/lib 2>/dev/null
true`;
  assert.equal(await output("server", search, { stdin: `${bucketSecrets().writer}\n` }), "");
}

async function sweep(): Promise<void> {
  await exec("cht", "rm -rf /etc/cht-backup/second /var/lib/cht-backup/second /opt/cht-backup/second");
  await exec(
    "server",
    `rm -rf ${server} ${copies.settings} ${copies.programs} ${copies.state}; userdel cht-backup-second`,
  );
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
      "cht-backup:bucket": { ...bucketSettings, prefix, reader: undefined },
    };
    await second("stack", "init", "second");
    writeFileSync(settingsFile, readFileSync("Pulumi.second.yaml", "utf8") + stringify({ config: settings }));
    // The lab's own are encrypted for the lab's stack alone.
    const secret = ["config", "set", "--secret", "--path", "cht-backup:bucket.secretAccessKey"];
    await secondReads(bucketSecrets().writer, ...secret, ...withSettings);
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

  it("destroying one leaves its repository, its passphrase, its copies, and everything of the other", async () => {
    assert.equal((await copy()).ok, true);
    const content = await bucketContent(prefix);
    const indexes = () => Object.keys(content.locks).filter((path) => path.startsWith("index/"));
    assert.deepEqual([indexes().length > 0, content.hidden], [true, []]);
    const { kept } = JSON.parse(await second("stack", "output", "--json"));
    assert.ok(
      kept.bucket.startsWith(`cht-backup-lab/${prefix}, with all copies; locks aren't lengthened`),
      kept.bucket,
    );
    const before = { own: await archives("second"), other: await archives("lab") };
    assert.match(before.own, /^second-\S+$/);
    const identity = JSON.parse(await second("stack", "output", "--json")).repositoryId;
    const segments = await output("server", `cd ${server}/repository && find data -type f -exec sha256sum {} +`);
    const passphrase = await output("cht", "sha256sum /etc/cht-backup/second/passphrase");

    // Where node_exporter is, which the lab's machines don't have.
    await output("cht", `mkdir -p ${metrics}; systemctl start cht-watch-second.service; test -s ${metrics}/*second*`);

    const said = await second("destroy", "--yes", "--skip-preview", ...withSettings);

    assert.match(said, /warning: the copies in the bucket cht-backup-lab stay where they are/);
    // The lab's own watch may have written there meanwhile.
    assert.equal(await output("cht", `ls -A ${metrics} | grep second || true; rm -r ${metrics}`), "");
    await assertNoCopies();
    assert.deepEqual(await bucketContent(prefix), content);
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
    await second("preview", "--expect-no-changes", ...withSettings);
    const again = await copy();
    assert.deepEqual([again.ok, again.uploadedFiles], [true, 0], JSON.stringify(again));
    await assertNoDrift();
  });

  it("one that gives its bucket up keeps the copies there, and no key; every up says what it lacks from then on", async () => {
    const content = await bucketContent(prefix);
    const settings = parse(readFileSync(settingsFile, "utf8"));
    settings.config["cht-backup:bucket"] = "none";
    writeFileSync(settingsFile, stringify(settings));
    const said = await second("up", "--yes", "--skip-preview", ...withSettings);
    assert.match(said, /warning: cht-backup:bucket is none: there is no third copy.* 3-2-1 .* isn't met/);
    assert.match(said, /warning: the copies in the bucket cht-backup-lab stay where they are/);
    await assertNoCopies();
    assert.deepEqual(await bucketContent(prefix), content);
    const quiet = await second("up", "--yes", "--skip-preview", ...withSettings);
    assert.match(quiet, /3-2-1 .* isn't met/);
    assert.doesNotMatch(quiet, /the copies in the bucket/);
    await second("preview", "--expect-no-changes", ...withSettings);
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
