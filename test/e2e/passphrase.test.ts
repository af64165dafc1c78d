import assert from "node:assert/strict";
import { copyFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { exec, output } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import { labFolder } from "../../toolchain/paths";
import { assertNoDrift, labStack, mustSucceed } from "./stack";

const settingsFile = join(labFolder, "passphrase-test.yaml");
const chosen = "chosen by the operator 4711";

/** Lists archives with a passphrase that borg reads from its input. */
function list(passphrase: string) {
  const script = `BORG_PASSPHRASE_FD=0 BORG_BASE_DIR=/var/lib/cht-backup/lab/borg BORG_RSH='ssh -F /etc/cht-backup/lab/ssh_config' borg --lock-wait 60 list --short ssh://offsite/srv/cht-backup/lab/repository`;
  return exec("cht", script, { stdin: passphrase });
}

describe("the passphrase", function () {
  this.timeout(120_000);
  after(() => rmSync(settingsFile, { force: true }));

  it("is made at the first up, kept encrypted, and opens the repository", async () => {
    const { recovery } = JSON.parse(await mustSucceed("stack", "output", "--json", "--show-secrets"));
    assert.match(recovery.passphrase, /^\S{12,}|chosen/);
    assert.match(recovery.key, /^BORG_KEY [0-9a-f]{64}\n/);
    assert.equal((await list(recovery.passphrase)).code, 0);
    const shown = await mustSucceed("stack", "output", "--json");
    assert.doesNotMatch(shown, new RegExp(recovery.passphrase));
    assert.doesNotMatch(shown, /BORG_KEY/);
  });

  it("that an operator chooses later takes the former one's place, and the archives stay", async () => {
    const outputs = async () => JSON.parse(await mustSucceed("stack", "output", "--json", "--show-secrets"));
    const { recovery: before, repositoryId } = await outputs();
    const former = before.passphrase;
    const archives = (await list(former)).stdout;
    copyFileSync(stackFile, settingsFile);
    const withSettings = ["--config-file", settingsFile];
    await mustSucceed("config", "set", "--secret", "cht-backup:passphrase", chosen, ...withSettings);

    await mustSucceed("up", "--yes", "--skip-preview", ...withSettings);
    assert.equal((await list(chosen)).stdout, archives);
    if (former !== chosen) {
      assert.notEqual((await list(former)).code, 0);
      const { recovery: after } = await outputs();
      assert.notEqual(after.key, before.key);
      assert.equal(after.formerKeys[repositoryId], before.key, "the former export was lost");
    }
    await output("cht", "systemctl start cht-backup-lab.service");

    const again = await labStack("preview", "--expect-no-changes", ...withSettings);
    assert.equal(again.code, 0, again.stdout);
    // Without the setting it stays as it is: nothing makes another one behind the operator's back.
    await mustSucceed("up", "--yes", "--skip-preview");
    assert.equal((await list(chosen)).code, 0);
    await assertNoDrift();
  });
});
