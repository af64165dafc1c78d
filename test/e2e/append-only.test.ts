import assert from "node:assert/strict";
import { serverNames } from "../../components/names";
import { serveCommand } from "../../components/repository-guard";
import { exec, output, searchPath } from "../../lab/machines";
import type { Result } from "../../toolchain/command";
import {
  approve,
  archives,
  assertComplete,
  assertFailed,
  backUp,
  borgsPython,
  data,
  home,
  location,
  python,
  recovery,
  repository,
  settings,
  user,
} from "./backup";
import { withoutCopies } from "./bucket";
import { healthyLab } from "./hooks";
import { runbook } from "./runbook";

const { package: programs, state: serverState, auditService, failedService } = serverNames("lab", "/srv/cht-backup");
const guard = `${programs}/repository/guard.py`;
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
    script: (account) => `${ssh(account)} 'PATH=${searchPath} borg --version && echo succeeded' </dev/null`,
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
        exec("cht", `cd ${scratch} && rm -f got control\n${script(account)}`, { timeoutMs: 80_000 });
      const [refused, allowed] = [await inScratch(user), await inScratch(unlimited)];
      assert.match(allowed.stdout, /succeeded/, `the attempt itself is wrong: ${allowed.stderr}`);
      assert.doesNotMatch(refused.stdout, /succeeded/);
      assert.notEqual(refused.code, 124, "it hung");
    });
  }

  it("doesn't get a terminal, nor its agent forwarded, in the one session that it gets", async () => {
    // The session is held open until it was looked at on the server: what its process has got of what was asked for.
    const held = (account: string) =>
      exec(
        "cht",
        `rm -f ${looked(account)}; eval "$(ssh-agent -s)" >/dev/null; pipe=$(mktemp -u); mkfifo "$pipe"; exec 9<>"$pipe"
trap 'kill $SSH_AGENT_PID; rm -f "$pipe" ${looked(account)}' EXIT
timeout 100 ${ssh(account, "-A -tt")} sleep 100 <&9 & held=$!
until [ -e ${looked(account)} ] || ! kill -0 $held 2>/dev/null; do sleep 0.1; done
kill $held 2>/dev/null; wait $held`,
      );
    const looked = (account: string) => `/run/looked-at-${account}`;
    /** @param program how `pgrep` finds it; the copy to the bucket works as the same user */
    const got = (account: string, program: string) =>
      output(
        "server",
        `end=$(($(date +%s) + 60)); while [ "$(date +%s)" -lt "$end" ]; do
  pid=$(pgrep -n -u ${account} ${program}) && [ -n "$(ps -o tty= -p "$pid")" ] && break
  sleep 0.05
done
tr '\\0' '\\n' <"/proc/$pid/environ" | sed -n 's/^\\(SSH_AUTH_SOCK\\|SSH_TTY\\)=.*/\\1/p' | sort
ps -o tty= -p "$pid" | sed 's,pts/.*,terminal,'`,
      ).finally(() => output("cht", `touch ${looked(account)}`));
    const sessions = [held(user), held(unlimited)];
    const [refused, allowed] = await Promise.all([got(user, "-f [c]htbackup.guard"), got(unlimited, "-x sleep")]);
    const [{ stderr } = { stderr: "" }] = await Promise.all(sessions);
    assert.equal(allowed, "SSH_AUTH_SOCK\nSSH_TTY\nterminal", "the attempt itself is wrong");
    // Where the terminal is refused, an older client (OpenSSH 9.2) gives the session up by itself.
    const gaveUp = refused === "" && /PTY allocation request failed/.test(stderr);
    assert.ok(refused === "?" || gaveUp, `${refused}\n${stderr}`);
  });

  it("meets, for what can't be tried here (X11, tunnels), limits that sshd confirms", async () => {
    const limits = await output(
      "server",
      `mkdir -p /run/sshd; /usr/sbin/sshd -T -C user=${user},host=cht,addr=192.0.2.1`,
    );
    for (const limit of ["x11forwarding no", "permittunnel no", "disableforwarding yes", "permituserrc no"]) {
      assert.ok(limits.split("\n").includes(limit), limit);
    }
    assert.ok(limits.split("\n").includes(`forcecommand ${serveCommand("lab")}`), limits);
    assert.ok((await output("server", `cat ${keys}`)).startsWith(`restrict,command="${serveCommand("lab")}" `));
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

  /** Speaks borg's protocol by hand, with the CHT machine's key. @returns the server's answers */
  async function raw(...calls: [method: string, args: Record<string, unknown>][]): Promise<string[]> {
    const words = ["ssh", "-F", `${settings}/ssh_config`, "offsite", "borg serve"];
    const done = await python("cht", "raw_session.py", words, JSON.stringify(calls), await borgsPython("cht"));
    assert.equal(done.code, 0, done.stderr);
    return done.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).error ?? "done");
  }

  const open = (more = {}): [string, Record<string, unknown>] => [
    "open",
    { path: repository, lock: true, lock_wait: 30, exclusive: true, ...more },
  ];
  const manifest = { hex: "00".repeat(32) };

  /** What the audit has found since somebody approved last. */
  const found = async (): Promise<string[]> => {
    await exec("server", `systemctl start ${auditService}`);
    return JSON.parse(await output("server", `cat ${serverState}/last-audit.json`)).problems;
  };

  describe("that deletes everything it can", () => {
    let earlier: string[];
    let segmentsBefore: string[];
    let checksum: string;

    before(async () => {
      await approve("the beginning of a test");
      earlier = await archives(passphrase);
      assert.ok(earlier.length >= 2);
      checksum = (await output("cht", `sha256sum ${shard}`)).slice(0, 64);
      segmentsBefore = (await output("server", segments(repository))).split("\n");
    });

    after(() => approve("the end of a test"));

    it("is refused by the server, whatever borg's own commands ask for", async () => {
      const attempts: [command: string, refusal: RegExp][] = [
        [`delete '${location}::${earlier[0]}'`, /an append-only client doesn't/],
        [`prune --keep-last 1 '${location}'`, /an append-only client doesn't/],
        [`delete --glob-archives '*' '${location}'`, /an append-only client doesn't/],
        [`rename '${location}::${earlier[0]}' other`, /an append-only client doesn't/],
        [`delete '${location}'`, /destroy is refused/],
        [`break-lock '${location}'`, /break_lock is refused/],
        [`check --repair '${location}'`, /check is refused/],
        [`config '${location}' append_only 0`, /./],
      ];
      for (const [command, refusal] of attempts) {
        const tried = await borg(command);
        assert.notEqual(tried.code, 0, command);
        assert.match(tried.stderr, refusal);
      }
      assert.deepEqual(await archives(passphrase), earlier);
    });

    it("can't lock everybody out with a passphrase of its own", async () => {
      const locked = await exec(
        "cht",
        `BORG_PASSPHRASE="$(cat ${settings}/passphrase)" BORG_NEW_PASSPHRASE=stolen BORG_BASE_DIR=${scratch}/borg \
         BORG_RSH='ssh -F ${settings}/ssh_config' borg --lock-wait 60 key change-passphrase '${location}'`,
      );
      assert.notEqual(locked.code, 0);
      assert.deepEqual(await archives(passphrase), earlier);
    });

    it("gets no further with calls that borg's own client never makes", async () => {
      const refusals: [calls: [string, Record<string, unknown>][], last: RegExp][] = [
        [[open({ create: true }), ["destroy", {}]], /destroy is refused/],
        [[open(), open({ create: true })], /one repository, once/],
        [[open({ exclusive: null })], /for reading or for writing/],
        [[open({ lock: false }), ["put", { id: manifest, data: { hex: "00" } }]], /for reading only/],
        [[open({ exclusive: false }), ["put", { id: manifest, data: { hex: "00" } }]], /for reading only/],
        [[open(), ["delete", { id: manifest }]], /an append-only client doesn't/],
        [[open(), ["save_key", { keydata: { hex: "41" } }]], /isn't exchanged/],
        [
          [open(), ["commit_nonce_reservation", { next_unreserved: 2 ** 52, start_nonce: 0 }]],
          /must begin at the counter/,
        ],
      ];
      for (const [calls, last] of refusals)
        assert.match((await raw(...calls)).at(-1) ?? "", last, JSON.stringify(calls));
      assert.deepEqual(await archives(passphrase), earlier);
    });

    it("hasn't changed or removed one byte of what was there, and the next night's backup sees nothing odd", async () => {
      const now = new Set((await output("server", segments(repository))).split("\n"));
      assert.deepEqual(
        segmentsBefore.filter((line) => !now.has(line)),
        [],
      );
      const { archive } = assertComplete(await backUp());
      earlier.push(archive as string);
      assert.deepEqual(await archives(passphrase), earlier);
    });

    it("is told of the same day, with what was tried and how often", async () => {
      const problems = (await found()).join("\n");
      assert.match(problems, /the guard refused a client: a client asked to delete what was there before/);
      assert.match(problems, /the guard refused a client: destroy is refused/);
      assert.match(problems, /docs\/restore\.md/);
      const said = await output("server", `journalctl --no-pager --output=cat --unit=${failedService}`);
      assert.match(said, /CHT backup lab: somebody must look at the repository on server: the guard refused a client/);
    });

    describe("where the guard is taken away", () => {
      let checked: string[];

      before(async () => {
        await approve("the guard goes");
        checked = (await output("server", segments(repository))).split("\n");
        await output(
          "server",
          `cp -p ${guard} ${guard}.kept
cat >${guard} <<'END'
import os


def main():
    os.environ["PATH"] = "${searchPath}"
    os.execvp("borg", ["borg", "serve", "--append-only", "--restrict-to-repository", "${repository}"])
END`,
        );
      });

      after(async () => {
        await exec("server", `mv ${guard}.kept ${guard}`);
        await approve("the guard is back");
      });

      it("is kept by the kernel from removing one file of an earlier backup", async () => {
        await withoutCopies(async () => {
          const answers = await raw(open({ create: true }), ["destroy", {}]);
          assert.match(answers.at(-1) ?? "", /not permitted|PermissionError/i, answers.join());
          await mustBorg(`delete '${location}::${earlier[0]}'`);
          await mustBorg(`prune --keep-last 1 '${location}'`);
          await mustBorg(`compact --threshold 0 '${location}'`);
        });
        assert.equal((await archives(passphrase)).length, 1);
        // The next night's backup notices nothing, and will know the later state.
        assertComplete(await backUp());
        const now = new Set((await output("server", segments(repository))).split("\n"));
        assert.deepEqual(
          checked.filter((line) => !now.has(line)),
          [],
        );
      });

      it("is found by the audit, with the number of what was marked as deleted", async () => {
        assert.match((await found()).join("\n"), /objects were marked as deleted \(\d+ ×, in transaction \d+/);
      });

      it("every earlier archive is back after the runbook's steps, byte for byte, with nothing but the stack's output", async () => {
        const [, bad = ""] = /in transaction (\d+)/.exec((await found()).join("\n")) ?? assert.fail();
        await withoutCopies(() => output("server", runbook(9, "BAD=0").replace("BAD=0", `BAD=${bad}`)));
        const script = `set -e
IFS= read -r BORG_PASSPHRASE; export BORG_PASSPHRASE
rm -rf ${scratch}; mkdir -p ${scratch}/place
cat >${scratch}/key
# The kernel keeps even root from writing to another's file in a directory as sealed (fs.protected_regular).
cp -a --no-preserve=ownership ${repository} ${scratch}/repository
export BORG_BASE_DIR=${scratch}/borg BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
borg key import ${scratch}/repository ${scratch}/key
borg check --verify-data ${scratch}/repository
borg list --short ${scratch}/repository
cd ${scratch}/place
borg extract '${scratch}/repository::${earlier[0]}' ${shard.slice(1)}
sha256sum ${shard.slice(1)} | cut -c 1-64`;
        const recovered = await output("server", script, { stdin: `${passphrase}\n${key}\n` });
        assert.deepEqual(recovered.split("\n"), [...earlier, checksum]);
      });

      it("a backup refuses what looks like an attack, until the operator has confirmed it", async () => {
        assertFailed(await backUp(), 2, /the repository was set back to an older state, or is a copy/);
        await output("cht", runbook(8, "manifest-timestamp"));
        const { archive } = assertComplete(await backUp());
        assert.deepEqual(await archives(passphrase), [...earlier, archive]);
      });
    });
  });
});
