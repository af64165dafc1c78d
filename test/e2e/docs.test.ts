import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { exec, output } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertNoDrift } from "./stack";

/** The lines of the shell blocks of a page, without their comments. */
function commands(page: string): string[] {
  const text = readFileSync(join(project, page), "utf8");
  return [...text.matchAll(/```shell\n([\s\S]*?)```/g)]
    .flatMap(([, block = ""]) => block.split("\n"))
    .map((line) => line.replace(/\s+#.*$/, "").trim())
    .filter((line) => line !== "");
}

describe("the commands in the documents", function () {
  this.timeout(180_000);

  it("README: what someone did to a machine shows as the README says", async () => {
    const readme = readFileSync(join(project, "README.md"), "utf8");
    const [, meddling = ""] = /say `(docker exec [^`]*)`/.exec(readme) ?? [];
    assert.equal((await run("sh", ["-c", meddling])).code, 0, meddling);
    const preview = commands("README.md").find((line) => line.includes("preview")) ?? "";
    const shown = await run("sh", ["-c", preview], { cwd: project });
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, /nightly-backup-timer update \[diff: ~active\]/);
    const [, repair = ""] = /`(npm run pulumi -- up [^`]*)` repairs it/.exec(readme) ?? [];
    assert.equal((await run("sh", ["-c", `${repair} --yes`], { cwd: project })).code, 0, repair);
    await assertNoDrift();
  });

  it("how it works: what was backed up can be got out again", async () => {
    await output("cht", "rm -rf /var/tmp/restored && systemctl start cht-backup-lab.service");
    const newest = await output("cht", "python3 -I /opt/cht-backup/lab/chtbackup borg list --short --last 1");
    for (const command of commands("docs/how-it-works.md")) {
      const done = await exec("cht", command.replace("::ARCHIVE", `::${newest.trim()}`));
      assert.equal(done.code, 0, `${command}: ${done.stderr}`);
    }
    await output(
      "cht",
      "diff -r /home/ubuntu/cht/couchdb /var/tmp/restored/home/ubuntu/cht/couchdb && rm -rf /var/tmp/restored",
    );
  });
});
