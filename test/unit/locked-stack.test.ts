import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { project } from "../../toolchain/paths";
import { lockAdvice } from "../../toolchain/pulumi";

describe("a stack whose run was cut off", function () {
  this.timeout(60_000);
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-locked-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const wait = async (what: () => boolean) => {
    for (let tries = 0; !what(); tries++) {
      if (tries > 600) assert.fail("it never happened");
      await new Promise((done) => setTimeout(done, 50));
    }
  };

  it("isn't left locked by a terminal that closes: the CLI ends its work in order", async () => {
    const log = join(folder, "log");
    const program = join(folder, "pulumi");
    const lines = [
      'if [ "$1" = version ]; then echo v999.0.0; exit; fi',
      `trap 'echo "ends in order" >> ${log}; exit 3' INT`,
      "trap 'exit 9' HUP",
      `echo began >> ${log}`,
      "while :; do sleep 0.1; done",
    ];
    writeFileSync(program, ["#!/bin/bash", ...lines, ""].join("\n"));
    chmodSync(program, 0o755);
    writeFileSync(join(folder, "pulumi-language-nodejs"), "#!/bin/sh\n");
    chmodSync(join(folder, "pulumi-language-nodejs"), 0o755);
    const env = {
      ...process.env,
      PATH: [folder, process.env.PATH].join(delimiter),
      XDG_CACHE_HOME: folder,
      PULUMI_BACKEND_URL: `file://${folder}`,
    };
    const words = ["--require", "./toolchain/typescript.cjs", "toolchain/pulumi.ts", "stack"];
    // A process group of its own, as a terminal has one in its foreground.
    const child = spawn(process.execPath, words, { cwd: project, env, stdio: "ignore", detached: true });
    const ended = new Promise((done) => child.on("close", done));
    await wait(() => existsSync(log));
    process.kill(-(child.pid as number), "SIGHUP");
    assert.equal(await ended, 3);
    assert.equal(readFileSync(log, "utf8"), "began\nends in order\n");
  });

  it("is named with the command that npm's users have", () => {
    const { pid } = spawnSync("true");
    const locks = join(folder, ".pulumi", "locks", "organization", "cht-backup", "prod");
    mkdirSync(locks, { recursive: true });
    const lock = (name: string, of: object) => writeFileSync(join(locks, name), JSON.stringify(of));
    const backend = `file://${folder}`;
    lock("another-computer.json", { pid, hostname: "elsewhere" });
    lock("works.json", { pid: process.pid, hostname: hostname() });
    writeFileSync(join(locks, "odd.json"), "{");
    assert.equal(lockAdvice("prod", backend), undefined);
    lock("cut-off.json", { pid, hostname: hostname() });
    const advice =
      /The stack prod is still locked .*cut off \(process \d+\)[\s\S]*\n {2}npm run pulumi -- cancel --stack prod\n$/;
    assert.match(lockAdvice("prod", backend) ?? "", advice);
    assert.match(lockAdvice("organization/cht-backup/prod", backend) ?? "", advice);
    assert.equal(lockAdvice("staging", backend), undefined);
    assert.equal(lockAdvice("prod", "s3://states"), undefined);
    assert.equal(lockAdvice("prod", undefined), undefined);
  });
});
