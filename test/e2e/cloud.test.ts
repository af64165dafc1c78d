import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { parse, stringify } from "yaml";
import { identityFile } from "../../lab/boot";
import { exec, output } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import { type Result, run } from "../../toolchain/command";
import { labFolder, project } from "../../toolchain/paths";
import { pulumi } from "../../toolchain/pulumi";
import { cloudMachine, removeCloud } from "./cloud-machine";

const folder = join(labFolder, "cloud");
const settingsFile = join(folder, "settings.yaml");
const calls = join(folder, "calls");
const backend = `file://${join(labFolder, "state")}`;
const borg = "python3 -I /opt/cht-backup/cloud/chtbackup borg";

/** Runs the CLI on the stack `cloud`, with stand-ins for the plugins of AWS and of one-shot commands. */
function stack(...args: string[]): Promise<Result> {
  const env = {
    ...process.env,
    PATH: `${join(__dirname, "cloud")}${delimiter}${process.env.PATH}`,
    PULUMI_STACK: "cloud",
    PULUMI_BACKEND_URL: backend,
    PULUMI_CONFIG_PASSPHRASE_FILE: join(labFolder, "passphrase"),
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
    AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE",
    AWS_SECRET_ACCESS_KEY: "nothing is asked of AWS",
    STANDIN_CALLS: calls,
    STANDIN_CLOUD: join(folder, "cloud.json"),
  };
  return pulumi([...args, "--color", "never"], { env, timeoutMs: 1_500_000 });
}

const withSettings = ["--config-file", settingsFile];

async function mustSucceed(...args: string[]): Promise<string> {
  const result = await stack(...args);
  assert.equal(result.code, 0, result.stdout + result.stderr);
  return result.stdout;
}

/** Calls of the stand-ins since the last time, in order. */
function called(): string[] {
  const lines = readFileSync(calls, "utf8").trim().split("\n");
  writeFileSync(calls, "");
  return lines;
}

const archives = async () => (await output("cht", `${borg} list --short`)).split("\n");
const repositoryId = () => output("cloud", "sed -n 's/^id = //p' /srv/cht-backup/cloud/repository/config");
/** The machine and all that is in it are gone, its data volume isn't. */
const vanish = () => run("docker", ["rm", "--force", "--volumes", cloudMachine]);

async function sweep(): Promise<void> {
  await pulumi(["stack", "rm", "--yes", "--force", "--stack", "cloud"], {
    env: { ...process.env, PULUMI_BACKEND_URL: backend },
  });
  const names = "cht-backup-cloud.timer cht-backup-cloud.service";
  await exec(
    "cht",
    `systemctl disable --now ${names}
rm -rf /etc/cht-backup/cloud /var/lib/cht-backup/cloud /opt/cht-backup/cloud /etc/systemd/system/cht-backup-cloud*
systemctl daemon-reload`,
  );
  await removeCloud();
  rmSync(folder, { recursive: true, force: true });
  rmSync("Pulumi.cloud.yaml", { force: true });
}

/**
 * The whole way from nothing, by the real engine. AWS is stood in for: by a machine of the lab that boots with the real user
 * data, and a disk that is attached to it.
 */
describe("a server made at AWS", function () {
  this.timeout(400_000);

  let made: string;

  before(async () => {
    await sweep();
    mkdirSync(folder, { recursive: true });
    writeFileSync(calls, "");
    writeFileSync(join(folder, "cloud.json"), JSON.stringify({ instances: 0 }));
    const lab = parse(readFileSync(stackFile, "utf8")).config;
    const key = identityFile.slice(project.length + 1);
    const config = {
      "host:machines": { cht: lab["host:machines"].cht, server: { identityFile: key } },
      "cht-backup:server": {
        aws: {
          region: "eu-west-1",
          operatorKeys: [readFileSync(`${identityFile}.pub`, "utf8").trim().split(" ").slice(0, 2).join(" ")],
          operatorNetworks: ["203.0.113.7/32"],
          chtNetworks: ["198.51.100.20/32"],
        },
        reserveMebibytes: 8,
      },
      "cht-backup:drill": { enabled: false },
      // Backups are counted.
      "cht-backup:schedule": "yearly",
    };
    writeFileSync(settingsFile, stringify({ config }));
    await mustSucceed("stack", "init", "cloud");
    made = await mustSucceed("up", "--yes", ...withSettings);
  });
  after(sweep);

  it("is made, boots, is set up and gets the first backup by one command, which shows its progress and what to know", async () => {
    assert.deepEqual(await archives().then((list) => list.length), 1);
    assert.match(made, /first-backup/);
    for (const command of ["backUpNow", "lastRun", "listArchives"]) assert.match(made, new RegExp(command));
    assert.match(made, /monthlyCost/);
    assert.equal(
      await output("cloud", "findmnt --noheadings --output TARGET --target /srv/cht-backup/cloud/repository"),
      "/srv/cht-backup",
    );
    const list = called();
    const order = ["server-instance-debian-13-arm64", "server-data-attachment", "first-boot", "first-backup"];
    const places = order.map((name) => list.indexOf(`create ${name}`));
    assert.ok(!places.includes(-1), list.join("\n"));
    assert.deepEqual(
      places,
      places.toSorted((one, other) => one - other),
    );
  });

  it("is as it was set up, and a second up changes nothing", async () => {
    const result = await stack("preview", "--expect-no-changes", ...withSettings);
    assert.equal(result.code, 0, result.stdout + result.stderr);
    assert.match(await mustSucceed("up", "--yes", "--skip-preview", ...withSettings), /\d+ unchanged/);
    assert.equal(called().join(), "");
  });

  it("has its host key and the passphrase in the state encrypted alone", async () => {
    const [, line = ""] = (await output("cloud", "cat /etc/ssh/ssh_host_ed25519_key")).split("\n");
    const passphrase = await output("cht", "cat /etc/cht-backup/cloud/passphrase");
    const { stdout: state } = await run("grep", ["-rhF", "", join(labFolder, "state", ".pulumi", "stacks")]);
    assert.match(state, /server-host-key-pair/);
    for (const secret of [line, Buffer.from(line).toString("base64").slice(4, 60), passphrase]) {
      assert.ok(secret.length > 20 && !state.includes(secret));
    }
  });

  it("that has vanished is made anew around its data: the same key, the same repository, and the next backup in it", async () => {
    const before = await repositoryId();
    await vanish();
    const preview = await stack("preview", "--expect-no-changes", ...withSettings);
    assert.equal(preview.code, 7, preview.stdout + preview.stderr);
    await mustSucceed("up", "--yes", "--skip-preview", ...withSettings);
    const list = called();
    assert.ok(list.includes("create server-instance-debian-13-arm64"), list.join("\n"));
    assert.ok(!list.some((line) => /(create|delete) server-(data-volume|address)$/.test(line)), list.join("\n"));
    assert.ok(!list.includes("create first-backup"));
    assert.equal(await repositoryId(), before);
    await output("cht", "systemctl start cht-backup-cloud.service");
    assert.equal((await archives()).length, 2);
    assert.equal((await stack("preview", "--expect-no-changes", ...withSettings)).code, 0);
  });

  it("that is replaced while it runs keeps address, key and repository", async () => {
    const before = await repositoryId();
    await mustSucceed(
      "up",
      "--yes",
      "--skip-preview",
      "--replace",
      "**server-instance-debian-13-arm64",
      ...withSettings,
    );
    assert.equal(await repositoryId(), before);
    await output("cht", "systemctl start cht-backup-cloud.service");
    assert.equal((await archives()).length, 3);
    assert.equal((await stack("preview", "--expect-no-changes", ...withSettings)).code, 0);
  });

  it("that has vanished doesn't keep a stack from being destroyed, which leaves the data volume and says so", async () => {
    called();
    await vanish();
    const kept = JSON.parse(await mustSucceed("stack", "output", "kept", "--json"));
    assert.match(kept.volume, /data volume vol-0123/);
    await mustSucceed("destroy", "--yes", "--skip-preview", ...withSettings);
    assert.ok(!called().includes("delete server-data-volume"));
  });
});
