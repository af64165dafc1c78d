import assert from "node:assert/strict";
import { join } from "node:path";
import { ensureMachines } from "../../lab/boot";
import { deployedImages, documentCounts, ensureDrillNetwork, load } from "../../lab/cht";
import { containerOf, dockerVolume, type Machine, machines, output } from "../../lab/machines";
import { writeSettings } from "../../lab/stack";
import { Logged, run } from "../../toolchain/command";
import { labFolder, project } from "../../toolchain/paths";
import { Progress } from "../../toolchain/progress";
import { archives, assertComplete, backUp, home, recovery } from "./backup";
import { tree } from "./fresh-machine";
import { chtAnswers, healthyLab } from "./hooks";
import { assertNoDrift, up } from "./stack";

const keysOnServer = () => output("server", `cat ${home}/.ssh/authorized_keys`);
const shown = "openssl s_client -connect 127.0.0.1:443 < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint";
const hostKey = () => output("cht", "cat /etc/ssh/ssh_host_ed25519_key.pub");

/** The machine with its disk, and all that was ever on it. */
async function destroy(): Promise<void> {
  await run("docker", ["rm", "--force", "--volumes", containerOf("cht")]);
  await run("docker", ["volume", "rm", dockerVolume]);
}

describe("when the CHT machine is gone", function () {
  this.timeout(240_000);

  let was: { tree: object; counts: object; certificate: string; hostKey: string; keys: string; archives: string[] };
  let archive: string;
  let passphrase: string;
  let whole = true;

  before(async () => {
    await healthyLab();
    ({ passphrase } = await recovery());
    archive = assertComplete(await backUp()).archive as string;
    was = {
      tree: await tree("cht"),
      counts: await documentCounts(),
      certificate: await output("cht", shown),
      hostKey: await hostKey(),
      keys: await keysOnServer(),
      archives: await archives(passphrase),
    };
    assert.equal(was.archives.at(-1), archive);
    const images = await deployedImages();
    assert.ok(images);
    const imageOf = async (machine: Machine) =>
      (await run("docker", ["inspect", "--format", "{{.Config.Image}}", containerOf(machine)])).stdout.trim();
    const [cht = "", machine = ""] = await Promise.all(machines.map(imageOf));
    whole = false;
    await destroy();
    // Another one, empty, with another host key, of which the operator tells the stack.
    const logged = new Logged(join(labFolder, "log"));
    const reached = await ensureMachines({ machine, cht }, new Progress(() => undefined), logged);
    await load("cht", [images.nginx, images.couchdb], logged);
    writeSettings(reached);
  });

  after(async function () {
    this.timeout(400_000);
    if (whole) return;
    // The tests that follow need a lab, whatever became of this one.
    await destroy();
    const lab = await run("npm", ["run", "-s", "lab"], { cwd: project });
    assert.equal(lab.code, 0, lab.stderr);
  });

  it("one command brings it back onto an empty one: files, owners, modes, volumes, logins, documents, certificate", async () => {
    assert.notEqual(await hostKey(), was.hostKey);
    const begin = Date.now();
    const words = ["--stack", "lab", "--from", "server", "--to", "cht", "--start"];
    const { code, stdout, stderr } = await run("npm", ["run", "-s", "restore", "--", ...words], { cwd: project });
    const seconds = ((Date.now() - begin) / 1000).toFixed(1);
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, new RegExp(`${archive} is restored to /home/ubuntu/cht and right`));
    console.log(`      a CHT destroyed, and back after ${seconds} s`);
    assert.deepEqual(await tree("cht"), was.tree);
    assert.deepEqual(await documentCounts(), was.counts);
    assert.equal(await output("cht", shown), was.certificate);
    assert.equal(await keysOnServer(), was.keys);
  });

  it("an up gives the new machine its backups, and shuts the old one's key out", async () => {
    await ensureDrillNetwork("cht");
    await up();
    await assertNoDrift();
    await chtAnswers();
    const kept = (await keysOnServer()).split("\n").filter((line) => was.keys.split("\n").includes(line));
    assert.deepEqual(kept, []);
  });

  it("the next backup goes to the same repository, where every older one still is", async () => {
    const next = assertComplete(await backUp()).archive;
    assert.deepEqual(await archives(passphrase), [...was.archives, next]);
    whole = true;
  });
});
