import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { exec, type Machine, output, waitFor } from "../../lab/machines";
import { project } from "../../toolchain/paths";
import { cliEnvironment } from "../../toolchain/pulumi";
import { findCli } from "../../toolchain/pulumi-cli";
import type { Change } from "./preview";
import { assertNoDrift, connections, labStack, mustSucceed, previewChanges, up } from "./stack";

const settings = "/etc/cht-backup/lab";
const server = "/srv/cht-backup/lab";
const keys = `${server}/.ssh/authorized_keys`;

interface Meddling {
  what: string;
  machine: Machine;
  script: string;
  /** The name under which the preview shows it. */
  shownAs: string;
  /** A property that it shows, or the operation where the whole thing is gone. */
  in: string;
  /** Succeeds once it is repaired. */
  repaired: string;
}

/** What an attacker, a colleague or a package might do. All of it is done at once, then repaired by one `up`. */
const meddlings: Meddling[] = [
  {
    what: "the nightly timer is stopped and disabled",
    machine: "cht",
    script: "systemctl disable --quiet --now cht-backup-lab.timer",
    shownAs: "nightly-backup-timer",
    in: "enabled",
    repaired: "systemctl is-enabled cht-backup-lab.timer && systemctl is-active cht-backup-lab.timer",
  },
  {
    what: "the backup's service is masked",
    machine: "cht",
    script: "ln -sf /dev/null /etc/systemd/system/cht-backup-lab.service; systemctl daemon-reload",
    shownAs: "nightly-backup-service",
    in: "content",
    repaired: "systemctl show -p LoadState cht-backup-lab.service | grep -q =loaded",
  },
  {
    what: "the alarm's service is overridden by a drop-in",
    machine: "cht",
    script: `mkdir -p /etc/systemd/system/cht-backup-lab-failed.service.d
      printf '[Service]\\nExecStart=\\nExecStart=/bin/true\\n' >/etc/systemd/system/cht-backup-lab-failed.service.d/quiet.conf
      systemctl daemon-reload`,
    shownAs: "failure-alert-service",
    in: "overrides",
    repaired:
      "systemctl cat cht-backup-lab-failed.service | grep -q 'chtbackup alert' && ! systemctl cat cht-backup-lab-failed.service | grep -q /bin/true",
  },
  {
    what: "the drill's timer is stopped",
    machine: "cht",
    script: "systemctl stop cht-drill-lab.timer",
    shownAs: "drill-timer",
    in: "active",
    repaired: "systemctl is-active cht-drill-lab.timer",
  },
  {
    what: "the alarm about overdue drills is switched off",
    machine: "cht",
    script: "systemctl disable --quiet --now cht-drill-lab-overdue.timer",
    shownAs: "drill-overdue-timer",
    in: "enabled",
    repaired: "systemctl is-enabled cht-drill-lab-overdue.timer && systemctl is-active cht-drill-lab-overdue.timer",
  },
  {
    what: "the drill is made to look right",
    machine: "cht",
    script: "sed -i 's/drill run/drill overdue/' /etc/systemd/system/cht-drill-lab.service; systemctl daemon-reload",
    shownAs: "drill-service",
    in: "content",
    repaired: "systemctl cat cht-drill-lab.service | grep -q 'drill run'",
  },
  {
    what: "the drill's tidying up at boot is disabled",
    machine: "cht",
    script: "systemctl disable --quiet cht-drill-lab-cleanup.service",
    shownAs: "drill-cleanup-service",
    in: "enabled",
    repaired: "systemctl is-enabled cht-drill-lab-cleanup.service",
  },
  {
    what: "the drill's checks are changed",
    machine: "cht",
    script: "echo '# changed' >>/opt/cht-backup/lab/chtbackup/manifest/verify.py",
    shownAs: "cht-programs",
    in: "files",
    repaired: "! grep -q '^# changed' /opt/cht-backup/lab/chtbackup/manifest/verify.py",
  },
  {
    what: "the drill's settings are removed",
    machine: "cht",
    script: `rm ${settings}/drill.json`,
    shownAs: "drill-settings",
    in: "create",
    repaired: `grep -q cht-drill-lab ${settings}/drill.json`,
  },
  {
    what: "the forced command is weakened",
    machine: "server",
    script: `sed -i 's#command="[^"]*"#command="/usr/bin/borg serve"#' ${keys}`,
    shownAs: "server-authorized-key",
    in: "command",
    repaired: `grep -q '/chtbackup guard ' ${keys}`,
  },
  {
    what: "a second key is let in for that user",
    machine: "server",
    script: `echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDOyFo85EhjxcKPwy3PVRUkg9DAcyF83jITBCUDpWyHv intruder' >>${keys}`,
    shownAs: "server-authorized-key",
    in: "otherKeys",
    repaired: `[ "$(grep -c . ${keys})" = 1 ] && ! grep -q intruder ${keys}`,
  },
  {
    what: "the file of keys is handed to that user",
    machine: "server",
    script: `chown cht-backup-lab ${keys}`,
    shownAs: "server-authorized-key",
    in: "protection",
    repaired: `[ "$(stat -c %U ${keys})" = root ]`,
  },
  {
    what: "what borg is told is edited",
    machine: "cht",
    script: `sed -i 's/"compression": "[^"]*"/"compression": "none"/' ${settings}/settings.json`,
    shownAs: "backup-settings",
    in: "content",
    repaired: `! grep -q '"none"' ${settings}/settings.json`,
  },
  {
    what: "the passphrase's file is exchanged",
    machine: "cht",
    script: `echo something else >${settings}/passphrase`,
    shownAs: "backup-passphrase",
    in: "inFile",
    repaired: `! grep -q something ${settings}/passphrase`,
  },
  {
    what: "the passphrase becomes readable for everybody",
    machine: "cht",
    script: `chmod 0644 ${settings}/passphrase`,
    shownAs: "backup-passphrase",
    in: "mode",
    repaired: `[ "$(stat -c %a ${settings}/passphrase)" = 600 ]`,
  },
  {
    what: "the directory of settings is opened",
    machine: "cht",
    script: `chmod 0755 ${settings}`,
    shownAs: "cht-settings-directory",
    in: "mode",
    repaired: `[ "$(stat -c %a ${settings})" = 700 ]`,
  },
  {
    what: "the private key changes its owner",
    machine: "cht",
    script: `chown daemon ${settings}/ssh_key`,
    shownAs: "cht-ssh-key",
    in: "owner",
    repaired: `[ "$(stat -c %U ${settings}/ssh_key)" = root ]`,
  },
  {
    what: "another server key is slipped in",
    machine: "cht",
    script: `sed -i 's/^offsite .*/offsite ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDOyFo85EhjxcKPwy3PVRUkg9DAcyF83jITBCUDpWyHv/' ${settings}/known_hosts`,
    shownAs: "cht-known-hosts",
    in: "content",
    repaired: `! grep -q IDOyFo85 ${settings}/known_hosts`,
  },
  {
    what: "a script is changed",
    machine: "cht",
    script: "echo '# changed' >>/opt/cht-backup/lab/chtbackup/backup/program.py",
    shownAs: "cht-programs",
    in: "files",
    repaired: "! grep -q '^# changed' /opt/cht-backup/lab/chtbackup/backup/program.py",
  },
  {
    what: "a module in the Python environment is changed",
    machine: "cht",
    script: "echo 'x = 1' | tee -a /opt/cht-backup/lab/venv/lib/python3*/site-packages/apprise/apprise.py",
    shownAs: "borgmatic-environment",
    in: "files",
    repaired: "! grep -q '^x = 1' /opt/cht-backup/lab/venv/lib/python3*/site-packages/apprise/apprise.py",
  },
  {
    what: "borg is removed from the server",
    machine: "server",
    script: "apt-get remove -qq -y borgbackup >/dev/null 2>&1",
    shownAs: "server-borg",
    in: "packages",
    repaired: "borg --version",
  },
  {
    what: "the limits of that login are removed",
    machine: "server",
    script: "rm /etc/ssh/sshd_config.d/50-cht-backup-lab.conf; systemctl try-restart ssh",
    shownAs: "server-login-limits",
    in: "create",
    repaired:
      "mkdir -p /run/sshd; /usr/sbin/sshd -T -C user=cht-backup-lab,host=x,addr=1.2.3.4 | grep -q '^permittty no'",
  },
  {
    what: "the user gets another shell",
    machine: "server",
    script: "usermod --shell /bin/bash cht-backup-lab",
    shownAs: "server-user",
    in: "shell",
    repaired: "getent passwd cht-backup-lab | grep -q ':/bin/sh$'",
  },
  {
    what: "the user joins a group that may more",
    machine: "server",
    script: "usermod --append --groups adm cht-backup-lab",
    shownAs: "server-user",
    in: "groups",
    repaired: "! id -nG cht-backup-lab | grep -q adm",
  },
  {
    what: "the user's home is handed to it",
    machine: "server",
    script: `chown cht-backup-lab ${server}`,
    shownAs: "server-user",
    in: "homeProtection",
    repaired: `[ "$(stat -c %U ${server})" = root ]`,
  },
  {
    what: "the space held back is given away",
    machine: "server",
    script: `rm ${server}/reserve`,
    shownAs: "server-space-reserve",
    in: "create",
    repaired: `[ "$(stat -c %s ${server}/reserve)" -ge 1048576 ]`,
  },
  {
    what: "the repository's own lock against deleting is taken off",
    machine: "server",
    script: `sed -i 's/^append_only = 1/append_only = 0/' ${server}/repository/config`,
    shownAs: "borg-repository",
    in: "appendOnly",
    repaired: `grep -q '^append_only = 1' ${server}/repository/config`,
  },
];

describe("drift between the stack and the machines", function () {
  this.timeout(180_000);

  before(async () => {
    await up();
  });

  it("there is none after an up: a preview says so with exit code 0, and a second up changes nothing", async () => {
    await assertNoDrift();
    assert.match(await up(), /Resources:\n\s+\d+ unchanged/);
  });

  it("the units on the machine are what systemd understands, down to their programs", async () => {
    const units = "$(ls -d /etc/systemd/system/cht-*-lab*.service /etc/systemd/system/cht-*-lab*.timer)";
    const verified = await exec("cht", `systemd-analyze verify --man=no ${units}`);
    const said = verified.stderr.split("\n").filter((line) => /cht-(backup|drill)-lab/.test(line));
    assert.deepEqual([verified.code, said], [0, []]);
    assert.equal(await output("cht", `echo ${units} | wc -w`), "12");
  });

  describe("what someone did to a machine", () => {
    let changes: Change[] = [];
    let exitCode = 0;

    before(async () => {
      for (const { machine, script, what } of meddlings) {
        const done = await exec(machine, `set -e\n${script}`);
        assert.equal(done.code, 0, `${what}: ${done.stderr}`);
      }
      changes = await previewChanges();
      exitCode = (await labStack("preview", "--expect-no-changes")).code;
      await up();
    });

    for (const { what, machine, shownAs, in: property, repaired } of meddlings) {
      it(`${what}: the preview shows ${shownAs} (${property}), and up repairs it`, async () => {
        const change = changes.find(({ name }) => name === shownAs);
        assert.ok(change, `${shownAs} is not in ${JSON.stringify(changes)}`);
        assert.ok([change.operation, ...change.properties].includes(property), JSON.stringify(change));
        const check = await exec(machine, repaired);
        assert.equal(check.code, 0, check.stdout + check.stderr);
      });
    }
    it("the preview shows nothing that nobody touched", () => {
      // Without borg the guard can't work, and says so.
      const touched = new Set([...meddlings.map(({ shownAs }) => shownAs), "server-programs"]);
      assert.deepEqual(
        changes.map(({ name }) => name).filter((name) => !touched.has(name)),
        [],
      );
    });
    it("a pipeline gets an exit code of its own for it", () => assert.equal(exitCode, 7));
    it("afterwards nothing has drifted", () => assertNoDrift());
  });

  it("a repository that was moved away is missed, and the one that comes back is known again", async () => {
    await output("server", `mv ${server}/repository ${server}/elsewhere`);
    const gone = await previewChanges();
    assert.ok(gone.some(({ name, properties }) => name === "borg-repository" && properties.includes("identity")));
    await output("server", `mv ${server}/elsewhere ${server}/repository`);
    await assertNoDrift();
  });

  it("a repository that stays away is replaced by a new one, and no archive of the old one is touched", async () => {
    const before = JSON.parse(await mustSucceed("stack", "output", "--json")).repositoryId;
    await output("server", `mv ${server}/repository ${server}/elsewhere`);
    const kept = await output("server", `cd ${server}/elsewhere && find data -type f -exec sha256sum {} +`);
    await up();
    const after = JSON.parse(await mustSucceed("stack", "output", "--json")).repositoryId;
    assert.notEqual(after, before);
    const { recovery } = JSON.parse(await mustSucceed("stack", "output", "--json", "--show-secrets"));
    assert.match(recovery.formerKeys[before], new RegExp(`^BORG_KEY ${before}`), "the old repository's key was lost");
    await assertNoDrift();
    // The old one again: an operator found the disk.
    await output("server", `rm -rf ${server}/repository && mv ${server}/elsewhere ${server}/repository`);
    const other = await previewChanges();
    assert.ok(other.some(({ name, properties }) => name === "borg-repository" && properties.includes("identity")));
    await up();
    assert.equal(JSON.parse(await mustSucceed("stack", "output", "--json")).repositoryId, before);
    await output("server", `cd ${server}/repository && sha256sum --check --quiet -`, { stdin: kept });
    await assertNoDrift();
  });

  it("a key of the repository that somebody with root on the server exchanged shows, and the stack's own comes back", async () => {
    const { recovery } = JSON.parse(await mustSucceed("stack", "output", "--json", "--show-secrets"));
    const config = await output("server", `cat ${server}/repository/config`);
    await output(
      "server",
      `set -e; IFS= read -r BORG_PASSPHRASE; export BORG_PASSPHRASE BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
BORG_BASE_DIR=$(mktemp -d); export BORG_BASE_DIR; trap 'rm -rf "$BORG_BASE_DIR"' EXIT
BORG_NEW_PASSPHRASE=an-attacker-chose-this borg --lock-wait 60 key change-passphrase ${server}/repository`,
      { stdin: `${recovery.passphrase}\n` },
    );
    const changes = (await previewChanges()).sort((one, other) => (one.name < other.name ? -1 : 1));
    assert.deepEqual(changes, [
      { name: "borg-repository", operation: "update", properties: ["key"] },
      // borg has written the file anew, as root's alone.
      { name: "repository-seal", operation: "update", properties: ["unsealed"] },
    ]);
    await up();
    await assertNoDrift();
    assert.equal(await output("server", `cat ${server}/repository/config`), config);
    const { recovery: after } = JSON.parse(await mustSucceed("stack", "output", "--json", "--show-secrets"));
    assert.deepEqual(after, recovery, "the stack took another key than its own");
    await output("cht", "systemctl start cht-backup-lab.service");
  });

  it("a repository's configuration that borg can't read any more is drift, and is built from its pieces", async () => {
    const path = `${server}/repository/config`;
    const config = await output("server", `cat ${path}`);
    for (const damage of [`sed -i 's/^key = .*/key = x\\rid = 00/' ${path}`, `truncate -s 60 ${path}`, `rm ${path}`]) {
      await output("server", damage);
      const changes = await previewChanges();
      assert.deepEqual(changes, [{ name: "borg-repository", operation: "update", properties: ["key"] }], damage);
      await up();
      assert.equal(await output("server", `cat ${path}`), config, damage);
    }
    await assertNoDrift();
    await output("cht", "systemctl start cht-backup-lab.service");
  });

  it("a CHT host that has lost what borg knew of the repository is told by up from where to count", async () => {
    const state = "/var/lib/cht-backup/lab/borg";
    await output("cht", `mv ${state} ${state}.lost`);
    assert.deepEqual(await previewChanges(), [
      { name: "borg-repository", operation: "update", properties: ["identity"] },
    ]);
    await up();
    await assertNoDrift();
    const counter = await output("cht", `cat ${state}/.config/borg/security/*/nonce`);
    assert.match(counter, /^[0-9a-f]{8}[08]0000000$/);
    const seconds = Number(BigInt(`0x${counter}`) >> 31n);
    assert.ok(Math.abs(seconds - Date.now() / 1000) < 300, `it counts from ${new Date(seconds * 1000).toISOString()}`);
    await output("cht", "systemctl start cht-backup-lab.service");
    await output("cht", `rm -rf ${state}.lost`);
  });

  it("a login limit that another file of sshd's takes away shows, and isn't called repaired while it is so", async () => {
    const earlier = "/etc/ssh/sshd_config.d/00-earlier.conf";
    await output("server", `printf 'Match User cht-backup-lab\n  ForceCommand /bin/sh\nMatch all\n' >${earlier}`);
    const changes = await previewChanges();
    const repair = await labStack("up", "--yes", "--skip-preview");
    await output("server", `rm ${earlier}`);
    assert.deepEqual(changes, [{ name: "server-login-limits", operation: "update", properties: ["valid"] }]);
    assert.notEqual(repair.code, 0);
    assert.match(repair.stdout, /another setting of sshd takes the forced command from cht-backup-lab/);
    await up();
    await assertNoDrift();
  });

  it("a resource that is replaced is there afterwards", async () => {
    const urn = JSON.parse(await mustSucceed("stack", "export")).deployment.resources.find(({ urn }: { urn: string }) =>
      urn.endsWith("::nightly-backup-timer"),
    ).urn;
    await mustSucceed("up", "--yes", "--skip-preview", "--replace", urn);
    await output("cht", "systemctl is-active cht-backup-lab.timer && systemctl is-enabled cht-backup-lab.timer");
    await assertNoDrift();
  });

  it("an up that was killed half-way is finished by the next", async () => {
    const cli = await findCli();
    assert.ok(cli);
    // The timer comes last of what is missing. Where it is there, too, that up came to its end before it was stopped.
    const [first, last] = ["/opt/cht-backup/lab/venv", "/etc/systemd/system/cht-backup-lab.timer"];
    let killed = false;
    for (let attempt = 0; attempt < 3 && !killed; attempt++) {
      // Enough to do that there is a middle: the environment and all files of one machine.
      await output("cht", `rm -rf /opt/cht-backup/lab /etc/cht-backup/lab/settings.json ${last}`);
      const child = spawn(cli.command, ["up", "--yes", "--skip-preview", "--stack", "lab"], {
        cwd: project,
        env: cliEnvironment("lab", cli, process.env, ["up"]),
        stdio: "ignore",
        detached: true,
      });
      const ended = new Promise((done) => child.once("exit", done));
      const group = -(child.pid as number);
      assert.ok(await waitFor(async () => (await exec("cht", `test -e ${first}`)).code === 0, 180_000));
      if (child.exitCode === null) process.kill(group, "SIGSTOP");
      killed = (await exec("cht", `test -e ${last}`)).code !== 0;
      if (child.exitCode === null) process.kill(group, killed ? "SIGKILL" : "SIGCONT");
      await ended;
    }
    assert.ok(killed, "the up never was in its middle");
    const gone = async () => (await connections()).length === 0;
    assert.ok(await waitFor(gone, 60_000), "connections outlive the engine");
    await assert.rejects(assertNoDrift());
    await up();
    await assertNoDrift();
    await output(
      "cht",
      "/opt/cht-backup/lab/venv/bin/python -c 'import xxhash' && systemctl is-active cht-backup-lab.timer",
    );
  });
});
