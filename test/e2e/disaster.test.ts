import assert from "node:assert/strict";
import { documentCounts } from "../../lab/cht";
import { output } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { archives, assertComplete, backUp, home, recovery } from "./backup";
import { type Destroyed, destroy, tree } from "./fresh-machine";
import { chtAnswers, healthyLab } from "./hooks";
import { assertNoDrift, up } from "./stack";

const keysOnServer = () => output("server", `cat ${home}/.ssh/authorized_keys`);
const shown = "openssl s_client -connect 127.0.0.1:443 < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint";
const hostKey = () => output("cht", "cat /etc/ssh/ssh_host_ed25519_key.pub");

describe("when the CHT machine is gone", function () {
  this.timeout(240_000);

  let was: { tree: object; counts: object; certificate: string; hostKey: string; keys: string; archives: string[] };
  let archive: string;
  let passphrase: string;
  let destroyed: Destroyed | undefined;

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
    destroyed = await destroy("cht");
    // Another one, empty, with another host key, of which the operator tells the stack.
    await destroyed.newCht();
    await destroyed.tellStack();
  });

  after(async function () {
    this.timeout(400_000);
    await destroyed?.anew();
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
    await up();
    await assertNoDrift();
    await chtAnswers();
    const kept = (await keysOnServer()).split("\n").filter((line) => was.keys.split("\n").includes(line));
    assert.deepEqual(kept, []);
  });

  it("the next backup goes to the same repository, where every older one still is", async () => {
    const next = assertComplete(await backUp()).archive;
    assert.deepEqual(await archives(passphrase), [...was.archives, next]);
    destroyed = undefined;
  });
});
