import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readHostFile } from "../../components/host-files";
import { run } from "../../toolchain/command";

describe("a unit that is followed on a machine of systemd 252 (Debian 12)", function () {
  this.timeout(20_000);

  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-follow-"));
    const program = (name: string, text: string) => {
      writeFileSync(join(folder, name), `#!/bin/bash\n${text}`);
      chmodSync(join(folder, name), 0o755);
    };
    mkdirSync(join(folder, "tmp"));
    execFileSync("mkfifo", [join(folder, "operator")]);
    // The unit says one line when it begins, nothing for a while, and one line at its end.
    program(
      "systemctl",
      `case "$1 $2" in
"show --property=LoadState") echo loaded ;;
"show --property=ActiveState") echo inactive ;;
"show --property=Result") [ "$ENDED" = 0 ] && echo success || echo exit-code ;;
"show --property=ExecMainStatus") echo "$ENDED" ;;
"start "*) echo begins >> ${folder}/journal; sleep 2.5; echo report > ${folder}/report; echo ends >> ${folder}/journal ;;
esac
`,
    );
    // With --cursor-file and nothing new, journalctl 252 says nothing and ends with 1. After a cursor that isn't the unit's
    // own, it passes over the unit's first line.
    program(
      "journalctl",
      `[ "$1" = --sync ] && exit
for word; do case $word in --cursor-file=*) cursor=\${word#*=} ;; esac; done
touch ${folder}/journal
seen=$(cat "$cursor" 2> /dev/null || echo 0)
lines=$(wc -l < ${folder}/journal)
case $* in *_SYSTEMD_UNIT=*) ;; *) echo 1 > "$cursor"; exit ;; esac
[ "$lines" -gt "\${seen:-0}" ] || exit 1
tail -n +$((seen + 1)) ${folder}/journal
echo "$lines" > "$cursor"
`,
    );
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const env = (ended = 0) => ({ PATH: `${folder}:/usr/bin:/bin`, TMPDIR: join(folder, "tmp"), ENDED: String(ended) });
  const followed = (ended: number) =>
    run(
      "bash",
      [
        "-c",
        // Who reads and writes a pipe himself never comes to its end.
        `exec 0<> ${folder}/operator; set -- unit.service ${folder}/report\n${readHostFile("drill/follow.sh")}`,
      ],
      { env: env(ended) },
    );

  it("tells what a drill says, and prints its report", async () => {
    const { code, stdout, stderr } = await followed(0);
    assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: "report\n", stderr: "begins\nends\n" });
  });

  it("takes a fault of the drill's program for no verdict on the backup", async () => {
    const { code, stderr } = await followed(70);
    assert.equal(code, 2);
    assert.match(stderr, /the drill ended with exit-code \(exit status 70\)/);
  });

  it("tells what the first backup says, to its end", async () => {
    const { code, stdout, stderr } = await run(
      "bash",
      ["-c", readHostFile("cht/first_backup.sh"), "-", "unit.service"],
      {
        env: env(),
      },
    );
    assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: "begins\nends\n", stderr: "" });
  });
});
