import assert from "node:assert/strict";
import { exec, output } from "../../lab/machines";
import type { Result } from "../../toolchain/command";
import {
  archives,
  assertComplete,
  assertFailed,
  backUp,
  data,
  home,
  location,
  recovery,
  repository,
  settings,
  user,
} from "./backup";
import { withoutCopies } from "./bucket";
import { healthyLab } from "./hooks";
import { runbook } from "./runbook";

const scratch = "/var/tmp/append-only-test";
/** An account on the server that takes the same key without any limit: what is refused to the other works there. */
const unlimited = "append-only-test";
/** Another deployment's place on the server. The account could write there if its key could. */
const sibling = "/srv/cht-backup/append-only-test";
const keys = `${home}/.ssh/authorized_keys`;
const shard = `${data}/shards/00000000-15555554/medic.1795302615.couch`;

/** An attacker's own way to use the key: none of the limits in the ssh_config that we wrote. */
const ssh = (account: string, options = "") =>
  `ssh -F none -i ${settings}/ssh_key -o BatchMode=yes -o HostKeyAlias=offsite -o UserKnownHostsFile=${settings}/known_hosts ${options} ${account}@cht-backup-lab-server`;

interface Attempt {
  what: string;
  /** Runs on the CHT machine. Where the account has no limits, it prints `succeeded`. */
  script: (account: string) => string;
}

/** With nothing to read, the forced command ends at once; so does a forwarding that nobody uses. */
const attempts: Attempt[] = [
  { what: "a command", script: (account) => `${ssh(account)} 'echo succeeded' </dev/null` },
  { what: "a shell", script: (account) => `echo 'echo succeeded' | ${ssh(account)} sh` },
  { what: "a login shell", script: (account) => `echo 'echo succeeded' | ${ssh(account, "-T")}` },
  {
    what: "another borg command than serve",
    script: (account) => `${ssh(account)} 'borg --version && echo succeeded' </dev/null`,
  },
  {
    what: "a forwarded port, out of the server",
    script: (account) =>
      `timeout 10 ${ssh(account, "-W 127.0.0.1:22")} </dev/null | grep -q ^SSH-2.0 && echo succeeded`,
  },
  {
    what: "a forwarded port, into this machine",
    script: (account) =>
      `${ssh(account, "-f -N -M -S control -o ExitOnForwardFailure=yes -R 18022:127.0.0.1:22")} </dev/null &&
       echo succeeded && ssh -S control -O exit x`,
  },
  {
    what: "a forwarded socket",
    script: (account) =>
      `${ssh(account, "-f -N -M -S control -o ExitOnForwardFailure=yes -R /tmp/append-only-test.sock:127.0.0.1:22")} </dev/null &&
       echo succeeded && ssh -S control -O exit x`,
  },
  {
    what: "files by sftp",
    script: (account) =>
      `printf 'get /etc/hostname got\\n' | sftp -b - ${ssh(account)
        .replace(/^ssh /, "")
        .replace(/ (\S+)$/, " $1")} && test -s got && echo succeeded`,
  },
  {
    what: "files by scp, from the server",
    script: (account) =>
      `scp -O ${ssh(account).replace(/^ssh /, "")}:/etc/hostname got && test -s got && echo succeeded`,
  },
  {
    what: "files by scp, to the server",
    script: (account) =>
      `scp -O ${ssh(account)
        .replace(/^ssh /, "")
        .replace(/ (\S+)$/, " /etc/hostname $1")}:/tmp/append-only-test.file && echo succeeded`,
  },
];

/** Runs borg on the CHT machine, with its key and passphrase, as a client that has been there before or not. */
function borg(args: string, base = `${scratch}/borg`): Promise<Result> {
  return exec(
    "cht",
    `export BORG_PASSPHRASE="$(cat ${settings}/passphrase)" BORG_RSH='ssh -F ${settings}/ssh_config' BORG_BASE_DIR=${base}
export BORG_RELOCATED_REPO_ACCESS_IS_OK=yes BORG_DELETE_I_KNOW_WHAT_I_AM_DOING=YES BORG_CHECK_I_KNOW_WHAT_I_AM_DOING=YES
borg --lock-wait 60 ${args}`,
  );
}

async function mustBorg(args: string, base?: string): Promise<string> {
  const result = await borg(args, base);
  assert.equal(result.code, 0, `borg ${args}: ${result.stderr}`);
  return result.stdout;
}

/**
 * What borg's manual tells an administrator to do after an attack on an append-only repository: find in the log the
 * last transaction before it, remove every segment written since.
 */
const rollBack = (path: string, before: string) => `
last=$(awk -v limit='${before}' '{ sub(/,$/, "", $2) } $5 < limit { last = $2 } END { print last }' '${path}/transactions')
[ -n "$last" ]
for segment in $(find '${path}/data' -type f -name '[0-9]*'); do
  if [ "$(basename "$segment")" -gt "$last" ]; then rm "$segment"; fi
done`;

/** All files of the repository that hold archives, with their checksums. */
const segments = (path: string) => `cd ${path}/data && find . -type f -exec sha256sum {} + | sort -k 2`;

describe("a stolen key of the CHT machine", function () {
  this.timeout(120_000);

  let passphrase: string;
  let key: string;

  before(async () => {
    await healthyLab();
    ({ passphrase, key } = await recovery());
    assertComplete(await backUp());
    await output("cht", `rm -rf ${scratch} && mkdir -p ${scratch}`);
    const publicKey = await output("cht", `cat ${settings}/ssh_key.pub`);
    await output(
      "server",
      `set -e
id ${unlimited} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash ${unlimited}
usermod --password '*' ${unlimited}
install -d -o ${unlimited} -m 0700 ~${unlimited}/.ssh
echo '${publicKey}' >~${unlimited}/.ssh/authorized_keys
rm -rf ${sibling} && install -d -o ${user} -g ${user} ${sibling}`,
    );
  });

  after(async () => {
    await exec("cht", `rm -rf ${scratch}`);
    await exec("server", `rm -rf ${scratch} ${sibling} /tmp/append-only-test.*; userdel --remove ${unlimited}`);
  });

  for (const { what, script } of attempts) {
    it(`doesn't get ${what}`, async () => {
      const inScratch = (account: string) =>
        exec("cht", `cd ${scratch} && rm -f got control\n${script(account)}`, { timeoutMs: 20_000 });
      const [refused, allowed] = [await inScratch(user), await inScratch(unlimited)];
      assert.match(allowed.stdout, /succeeded/, `the attempt itself is wrong: ${allowed.stderr}`);
      assert.doesNotMatch(refused.stdout, /succeeded/);
      assert.notEqual(refused.code, 124, "it hung");
    });
  }

  it("doesn't get a terminal, nor its agent forwarded, in the one session that it gets", async () => {
    // The session is held open, and looked at on the server: what its process has got of what was asked for.
    const held = (account: string) =>
      exec(
        "cht",
        `eval "$(ssh-agent -s)" >/dev/null; trap 'kill $SSH_AGENT_PID' EXIT
sleep 3 | timeout 10 ${ssh(account, "-A -tt")} sleep 3`,
      );
    const got = (account: string, program: string) =>
      output(
        "server",
        `for i in $(seq 100); do
  pid=$(pgrep -u ${account} -x ${program}) && break
  sleep 0.05
done
tr '\\0' '\\n' <"/proc/$pid/environ" | sed -n 's/^\\(SSH_AUTH_SOCK\\|SSH_TTY\\)=.*/\\1/p' | sort
ps -o tty= -p "$pid" | sed 's,pts/.*,terminal,'`,
      );
    const sessions = [held(user), held(unlimited)];
    const [refused, allowed] = await Promise.all([got(user, "borg"), got(unlimited, "sleep")]);
    await Promise.all(sessions);
    assert.equal(allowed, "SSH_AUTH_SOCK\nSSH_TTY\nterminal", "the attempt itself is wrong");
    assert.equal(refused, "?");
  });

  it("meets, for what can't be tried here (X11, tunnels), limits that sshd confirms", async () => {
    const limits = await output(
      "server",
      `mkdir -p /run/sshd; /usr/sbin/sshd -T -C user=${user},host=cht,addr=192.0.2.1`,
    );
    for (const limit of ["x11forwarding no", "permittunnel no", "disableforwarding yes", "permituserrc no"]) {
      assert.ok(limits.split("\n").includes(limit), limit);
    }
    assert.match(
      limits,
      new RegExp(`^forcecommand /usr/bin/borg serve --append-only --restrict-to-repository ${repository}$`, "m"),
    );
    assert.match(await output("server", `cat ${keys}`), /^restrict,command="\/usr\/bin\/borg serve --append-only /);
  });

  it("doesn't get a session without the forced command, even where authorized_keys has lost it", async () => {
    const weakened = `cp -p ${keys} ${keys}.kept && sed -i 's/^[^ ]*restrict.*" ssh-/ssh-/' ${keys} && grep -q '^ssh-' ${keys}`;
    await output("server", weakened);
    try {
      const tried = await exec(
        "cht",
        `${ssh(user)} 'echo succeeded' </dev/null; timeout 10 ${ssh(user, "-W 127.0.0.1:22")} </dev/null`,
      );
      assert.doesNotMatch(tried.stdout, /succeeded|SSH-2/);
    } finally {
      await output("server", `mv ${keys}.kept ${keys}`);
    }
  });

  for (const [what, path] of [
    ["the directory above its own", home],
    ["a directory below its own", `${repository}/below`],
    ["another deployment's place", `${sibling}/repository`],
    ["another deployment's place by way of its own", `${repository}/../../append-only-test/repository`],
    ["the home directory", "/~/new"],
    ["a place that only begins with the same name", `${repository}-2`],
    ["/tmp", "/tmp/append-only-test.repository"],
  ]) {
    it(`can't make or open a repository in ${what}`, async () => {
      for (const action of ["init --encryption none", "list"]) {
        const tried = await borg(`${action} 'ssh://offsite${path}'`);
        assert.notEqual(tried.code, 0, action);
        assert.match(tried.stderr, /Repository path not allowed/);
      }
      assert.equal(
        await output(
          "server",
          `ls -A ${sibling}; ls -d ${repository}-2 /tmp/append-only-test.repository ${repository}/below 2>/dev/null || true`,
        ),
        "",
      );
    });
  }

  it("can't talk the server out of its limits", async () => {
    // A client may send any command; the forced one takes only harmless options of it.
    await output(
      "cht",
      `cat >${scratch}/rsh <<'END'
#!/bin/sh
exec ssh -F ${settings}/ssh_config offsite 'borg serve --restrict-to-path / --umask=000'
END
chmod +x ${scratch}/rsh`,
    );
    const tried = await exec(
      "cht",
      `BORG_RSH=${scratch}/rsh BORG_BASE_DIR=${scratch}/borg borg init --encryption none 'ssh://offsite${sibling}/repository'`,
    );
    assert.match(tried.stderr, /Repository path not allowed/);
  });

  describe("that deletes everything it can", () => {
    let earlier: string[];
    let segmentsBefore: string[];
    let attackedAt: string;
    let checksum: string;

    before(async () => {
      earlier = await archives(passphrase);
      assert.ok(earlier.length >= 2);
      checksum = (await output("cht", `sha256sum ${shard}`)).slice(0, 64);
      segmentsBefore = (await output("server", segments(repository))).split("\n");
      attackedAt = await output("server", "date --utc +%Y-%m-%dT%H:%M:%S.%6N");
    });

    it("is told by borg that it worked, and the next night's backup sees nothing odd", async () => {
      await mustBorg(`delete '${location}::${earlier[0]}'`);
      await mustBorg(`prune --keep-last 1 '${location}'`);
      await mustBorg(`delete --glob-archives '*' '${location}'`);
      await mustBorg(`compact --threshold 0 '${location}'`);
      assert.deepEqual(await archives(passphrase), []);
      const { archive } = assertComplete(await backUp());
      assert.deepEqual(await archives(passphrase), [archive]);
    });

    it("can't delete the repository itself, repair it, or lift its limits", async () => {
      assert.match((await borg(`delete '${location}'`)).stderr, /append-only mode/);
      assert.match((await borg(`check --repair '${location}'`)).stderr, /append-only mode/);
      assert.notEqual((await borg(`config '${location}' append_only 0`)).code, 0);
      assert.match(await output("server", `cat ${repository}/config`), /^append_only = 1$/m);
    });

    it("can even lock everybody out with a passphrase of its own", async () => {
      const locked = await exec(
        "cht",
        `BORG_PASSPHRASE="$(cat ${settings}/passphrase)" BORG_NEW_PASSPHRASE=stolen BORG_BASE_DIR=${scratch}/borg \
         BORG_RSH='ssh -F ${settings}/ssh_config' borg --lock-wait 60 key change-passphrase '${location}'`,
      );
      assert.equal(locked.code, 0, locked.stderr);
      assert.match((await borg(`list '${location}'`)).stderr, /passphrase .*incorrect/);
      const run = await backUp();
      assertFailed(run, 2, /the passphrase doesn't open the repository/);
    });

    it("hasn't changed or removed one byte of what was there", async () => {
      const after = new Set((await output("server", segments(repository))).split("\n"));
      assert.deepEqual(
        segmentsBefore.filter((line) => !after.has(line)),
        [],
      );
    });

    it("every earlier archive is recovered on the server, on a copy, with nothing but the stack's output", async () => {
      const script = `set -e
IFS= read -r BORG_PASSPHRASE; export BORG_PASSPHRASE
rm -rf ${scratch}; mkdir -p ${scratch}/place
cat >${scratch}/key
cp -a ${repository} ${scratch}/repository
export BORG_BASE_DIR=${scratch}/borg BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
${rollBack(`${scratch}/repository`, attackedAt)}
borg key import ${scratch}/repository ${scratch}/key
borg check --verify-data ${scratch}/repository
borg list --short ${scratch}/repository
cd ${scratch}/place
borg extract '${scratch}/repository::${earlier[0]}' ${shard.slice(1)}
sha256sum ${shard.slice(1)} | cut -c 1-64`;
      const recovered = await output("server", script, { stdin: `${passphrase}\n${key}\n` });
      assert.deepEqual(recovered.split("\n"), [...earlier, checksum]);
    });

    it("after the same on the repository itself, a backup refuses what looks like an attack", async () => {
      const script = `set -e
${rollBack(repository, attackedAt)}
own=$(mktemp -d)
chown ${user} "$own"
runuser -u ${user} -- env BORG_BASE_DIR="$own" BORG_RELOCATED_REPO_ACCESS_IS_OK=yes borg key import ${repository} -
rm -rf "$own"`;
      await withoutCopies(() => output("server", script, { stdin: `${key}\n` }));
      assert.deepEqual(await archives(passphrase), earlier);
      assertFailed(await backUp(), 2, /the repository was set back to an older state, or is a copy/);
      assert.deepEqual(await archives(passphrase), earlier);
    });

    it("once the operator has confirmed it, the next backup works, and every earlier archive is there", async () => {
      await output("cht", runbook(8, "manifest-timestamp"));
      const { archive } = assertComplete(await backUp());
      assert.deepEqual(await archives(passphrase), [...earlier, archive]);
    });
  });
});
