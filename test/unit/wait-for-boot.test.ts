import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readHostFile } from "../../components/host-files";
import { waitFor } from "../../lab/machines";
import { run } from "../../toolchain/command";

/** What cloud-init says, as 25.1 does; it answers by these files. */
interface CloudInit {
  /** Seconds that `--wait` takes. */
  wait?: number;
  status: string;
  extended?: string;
  errors?: string[];
  recoverable?: Record<string, string[]>;
  /** A unit that failed, and its last words. */
  failed?: { unit: string; words: string };
}

describe("a new server's first boot", function () {
  this.timeout(20_000);

  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-boot-"));
  });
  after(() => rmSync(folder, { recursive: true }));

  /** Runs the script as it is run on the machine. */
  function waited(says: CloudInit | undefined, limit = 10) {
    const program = join(folder, "cloud-init");
    rmSync(program, { force: true });
    if (says !== undefined) {
      const { status, extended = status, errors = [], recoverable = {}, failed } = says;
      const json = { status, extended_status: extended, errors, recoverable_errors: recoverable };
      writeFileSync(
        program,
        `#!/bin/sh
case $* in
  "status --wait") exec sleep ${says.wait ?? 0} ;;
  "status --long") printf 'status: ${status}\\nextended_status: ${extended}\\ndetail: x\\n' ;;
  *) cat <<'END'
${JSON.stringify(json)}
END
esac
`,
      );
      const list = failed === undefined ? "" : `${failed.unit} loaded failed failed Something`;
      writeFileSync(join(folder, "systemctl"), `#!/bin/sh\n[ -z '${list}' ] || echo '${list}'\n`);
      writeFileSync(
        join(folder, "journalctl"),
        `#!/bin/sh\necho "$*" | grep -q _SYSTEMD_UNIT && echo '${failed?.words}'\n`,
      );
      for (const name of ["cloud-init", "systemctl", "journalctl"]) chmodSync(join(folder, name), 0o755);
    }
    return run("bash", ["-s", "--", String(limit)], {
      stdin: readHostFile("aws/wait_for_boot.sh"),
      env: { PATH: `${folder}:/usr/bin:/bin` },
    });
  }

  it("that went well is said to have ended", async () => {
    const done = await waited({ status: "done", wait: 1 });
    assert.deepEqual([done.code, done.stdout, done.stderr], [0, "the first boot has ended\n", ""]);
  });

  it("with warnings goes on and names them", async () => {
    const recoverable = { WARNING: ["no locale de_XX", "an old key"] };
    const done = await waited({ status: "done", extended: "degraded done", recoverable });
    assert.equal(done.code, 0, done.stderr);
    assert.match(
      done.stdout,
      /^the first boot has ended, with warnings:\n {2}warning: no locale de_XX\n {2}warning: an old/,
    );
  });

  it("that failed says why", async () => {
    const done = await waited({ status: "error", extended: "error - done", errors: ["('runcmd', 'no volume')"] });
    assert.deepEqual([done.code, done.stdout], [1, ""]);
    assert.match(
      done.stderr,
      /^the first boot failed:\n {2}\('runcmd', 'no volume'\)\n {2}more: cloud-init status --long/,
    );
  });

  it("that failed says how to get another instance, as a restart wouldn't help; one that is only late doesn't", async () => {
    const { stderr } = await waited({ status: "error", errors: ["no volume"] });
    assert.match(
      stderr,
      /log\nA restart would not make up for it\. .*the data volume stays:\n {2}npm run pulumi -- up --stack STACK --replace '\*\*:Instance::server-instance-\*'\nor, with today's settings for the first boot [\s\S]*end the\ninstance at AWS .* and run `up` again\.\n$/,
    );
    assert.doesNotMatch((await waited({ status: "running", wait: 543 }, 1)).stderr, /restart|--replace/);
  });

  it("that failed in a unit quotes the unit", async () => {
    const failed = { unit: "cht-data-volume.service", words: "the data volume isn t attached" };
    const done = await waited({ status: "error", errors: ["('scripts-user', 'runcmd')"], failed });
    assert.match(
      done.stderr,
      /^the first boot failed:\n.*\n {2}cht-data-volume.service: the data volume isn t attached\n {2}more: /,
    );
  });

  it("that isn't done in time fails, and nothing of it goes on", async () => {
    const began = Date.now();
    const done = await waited({ status: "running", wait: 543 }, 1);
    assert.equal(done.code, 1);
    assert.match(done.stderr, /^the first boot isn't done after 1 s:\n/);
    assert.ok(Date.now() - began < 543_000);
    const isOver = async () => (await run("pgrep", ["-fx", "sleep 543"])).code !== 0;
    assert.ok(await waitFor(isOver, 60_000));
  });

  it("of a machine that sets nothing up fails", async () => {
    const disabled = await waited({ status: "disabled" });
    assert.deepEqual(
      [disabled.code, disabled.stderr.split("\n")[0]],
      [1, "the first boot set nothing up, for cloud-init is disabled:"],
    );
    const silent = await waited({ status: "not started" });
    assert.deepEqual(
      [silent.code, silent.stderr.split("\n")[0]],
      [1, "cloud-init doesn't tell how the first boot went:"],
    );
    const none = await waited(undefined);
    assert.equal(none.code, 1);
    assert.match(none.stderr, /^there is no cloud-init on this machine/);
  });
});
