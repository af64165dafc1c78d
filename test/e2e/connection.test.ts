import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { exec, kill, output, start, waitFor } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import type { Result } from "../../toolchain/command";
import { run } from "../../toolchain/command";
import { labFolder, project } from "../../toolchain/paths";
import { assertNoDrift, connections, labStack } from "./stack";

const otherFile = join(labFolder, "connection-test.yaml");

/** A plain preview with other settings for the machines than the lab's own. */
async function previewWith(change: (machines: Record<string, Record<string, unknown>>) => void): Promise<Result> {
  const settings = parse(readFileSync(stackFile, "utf8"));
  change(settings.config["host:machines"]);
  writeFileSync(otherFile, stringify(settings));
  return labStack("preview", "--expect-no-changes", "--config-file", otherFile);
}

describe("the way to the machines", function () {
  this.timeout(120_000);
  const words = (result: Result) => result.stdout + result.stderr;

  after(() => rmSync(otherFile, { force: true }));

  it("an ssh configuration of the operator's is enough: alias, user, port and key come from there", async () => {
    const machines = parse(readFileSync(stackFile, "utf8")).config["host:machines"];
    const configFile = join(labFolder, "ssh_config");
    const knownHosts = join(labFolder, "known_hosts");
    writeFileSync(
      configFile,
      `Host offsite-in-lab\n  HostName ${machines.server.address}\n  IdentityFile ${join(project, machines.server.identityFile)}\n  UserKnownHostsFile ${knownHosts}\n`,
    );
    rmSync(knownHosts, { force: true });
    const asAlias = { address: "offsite-in-lab", user: "root", configFile };
    const first = await previewWith((all) => {
      all.server = asAlias;
    });
    assert.equal(first.code, 0, words(first));
    assert.match(readFileSync(knownHosts, "utf8"), /ssh-ed25519/, "the key of the first contact was not kept");

    writeFileSync(knownHosts, `${machines.server.address} ${machines.cht.hostKey}\n`);
    const changed = await previewWith((all) => {
      all.server = asAlias;
    });
    assert.notEqual(changed.code, 0);
    assert.match(words(changed), /server \(offsite-in-lab\): its SSH host key is not the one known from earlier/);
    rmSync(knownHosts);
    rmSync(configFile);
  });

  it("a jump host leads to a machine behind it", async () => {
    const { cht, server } = parse(readFileSync(stackFile, "utf8")).config["host:machines"];
    const configFile = join(labFolder, "ssh_config");
    const key = join(project, cht.identityFile);
    const knownHosts = join(labFolder, "known_hosts");
    writeFileSync(knownHosts, `${server.address} ${server.hostKey}\n`);
    writeFileSync(
      configFile,
      `Host ${server.address}\n  User root\n  IdentityFile ${key}\n  UserKnownHostsFile ${knownHosts}\n`,
    );
    const result = await previewWith((all) => {
      all.cht = { ...cht, configFile, jump: server.address };
    });
    assert.equal(result.code, 0, words(result));
    rmSync(configFile);
    rmSync(knownHosts);
  });

  it("a host key other than the pinned one is an error that says so", async () => {
    const result = await previewWith((machines) => {
      if (machines.server && machines.cht) machines.server.hostKey = machines.cht.hostKey;
    });
    assert.notEqual(result.code, 0);
    assert.match(
      words(result),
      /server \(.*\): its SSH host key is not the one pinned in host:machines\.server\.hostKey/,
    );
  });

  it("a login that is refused names the settings to look at", async () => {
    const stranger = join(labFolder, "stranger");
    rmSync(stranger, { force: true });
    await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", stranger]);
    const result = await previewWith((machines) => {
      if (machines.cht) machines.cht.identityFile = stranger;
    });
    rmSync(stranger);
    rmSync(`${stranger}.pub`);
    assert.notEqual(result.code, 0);
    assert.match(words(result), /cht \(.*\): login refused.*host:machines\.cht\.user/);
  });

  it("a login without sudo says what to allow", async () => {
    await output("cht", "mv /etc/sudoers.d /etc/sudoers.d.away");
    const result = await labStack("preview");
    await output("cht", "mv /etc/sudoers.d.away /etc/sudoers.d");
    assert.notEqual(result.code, 0);
    assert.match(words(result), /cht: the login may not use sudo without a password/);
  });

  it("a machine that is down fails the preview, by its name, and never looks like no drift", async () => {
    await kill("server");
    const result = await labStack("preview", "--expect-no-changes");
    await start("server");
    assert.notEqual(result.code, 0);
    assert.match(words(result), /server \(.*\): can't be reached over SSH/);
    await assertNoDrift();
  });

  it("a mistake in a machine's settings is one line with its path, before anything is reached", async () => {
    const result = await previewWith((machines) => {
      if (machines.cht) machines.cht.port = 70000;
    });
    assert.notEqual(result.code, 0);
    assert.match(words(result), /host:machines\.cht\.port: .*65535/);
    assert.doesNotMatch(words(result), /\bat .*\.ts:\d+/);
  });

  it("no connection outlives a run", async () => {
    await assertNoDrift();
    // The plugin ends its ssh, and doesn't wait for its end.
    const sessions = "who; ss -Htn state established '( sport = :22 )' | wc -l";
    const over = async () => (await connections()).length === 0 && (await exec("cht", sessions)).stdout === "0\n";
    assert.ok(await waitFor(over, 60_000));
  });
});
