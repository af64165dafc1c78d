import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bucketSecrets } from "../../lab/bucket";
import { exec, type Machine, machines, output } from "../../lab/machines";
import { passphraseFile, stackFile } from "../../lab/stack";
import { type Result, run } from "../../toolchain/command";
import { labFolder } from "../../toolchain/paths";
import { pulumi } from "../../toolchain/pulumi";
import {
  alertService,
  assertComplete,
  assertFailed,
  backUp,
  container,
  data,
  during,
  python,
  recovery,
  repository,
  settings,
  startBackup,
} from "./backup";
import { healthyLab } from "./hooks";
import { labStack, mustSucceed } from "./stack";

interface Found {
  /** Name of the secret. */
  secret: string;
  /** Where it was seen. */
  where: string;
  /** The program that showed it, where a process did. */
  program?: string;
}
interface Search {
  read: number;
  found: Found[];
}
interface Sample {
  passes: number;
  /** Names of all programs that were seen. */
  programs: string[];
  found: Found[];
}

/** Texts by the name of the secret that they belong to. */
const secrets: Record<string, string[]> = {};
/** No secret, but looked for like one: each search must find it where it was put, and there only. */
const canary = `canary-${randomBytes(12).toString("hex")}`;

/** The lines of a key's file that are the key; shorter ones could be anything. */
const keyLines = (text: string) => text.split("\n").filter((line) => /^[\w+/=-]{30,}$/.test(line.trim()));

async function gatherSecrets(alert: string): Promise<void> {
  const { passphrase, key } = await recovery();
  const env = await output("cht", "cat /home/ubuntu/cht/upgrade-service/.env");
  const ofEnv = (name: string) => new RegExp(`^${name}=(.+)$`, "m").exec(env)?.[1] ?? "";
  Object.assign(secrets, {
    canary: [canary],
    "the repository's passphrase": [passphrase.trim()],
    "the repository's key": keyLines(key),
    COUCHDB_PASSWORD: [ofEnv("COUCHDB_PASSWORD")],
    COUCHDB_SECRET: [ofEnv("COUCHDB_SECRET")],
    "the alert's address": [alert],
    "the private key of the CHT machine": keyLines(await output("cht", `cat ${settings}/ssh_key`)),
    "the TLS key": keyLines(
      await output("cht", `docker exec ${await container("nginx")} cat /etc/nginx/private/key.pem`),
    ),
    "the passphrase of the stack's secrets": [readFileSync(passphraseFile, "utf8").trim()],
    "the bucket's writer": [bucketSecrets().writer],
    "the bucket's reader": [bucketSecrets().reader],
    "the operator's key": keyLines(readFileSync(join(labFolder, "id_ed25519"), "utf8")),
  });
  for (const [name, texts] of Object.entries(secrets)) {
    assert.ok(texts.length > 0 && texts.every((text) => text.length >= 12), `${name} is too short to be looked for`);
  }
}

/** Names of the secrets that are in a text. */
const secretsIn = (text: string) =>
  Object.entries(secrets).flatMap(([name, texts]) => (texts.some((each) => text.includes(each)) ? [name] : []));

async function search(machine: Machine, ...args: string[]): Promise<Search> {
  const result = await python(machine, "search.py", args, JSON.stringify(secrets));
  assert.equal(result.code, 0, result.stderr);
  return JSON.parse(result.stdout);
}

/** What anybody may look at on a machine; `/usr` holds packages only. */
const open = ["/etc", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var"];

/** Watches the processes of both machines and of this computer while something runs. */
async function watched(work: () => Promise<void>): Promise<Record<string, Sample>> {
  const stop = "/tmp/secrets-test-stop";
  const here = mkdtempSync(join(tmpdir(), "secrets-test-"));
  const source = readFileSync(join(__dirname, "machine", "sampler.py"), "utf8");
  await Promise.all(machines.map((machine) => output(machine, `rm -f ${stop}`)));
  const stdin = JSON.stringify(secrets);
  const samplers = {
    ...Object.fromEntries(machines.map((machine) => [machine, python(machine, "sampler.py", [stop], stdin)])),
    "this computer": run("python3", ["-c", source, join(here, "stop")], { stdin }),
  };
  try {
    await work();
  } finally {
    writeFileSync(join(here, "stop"), "");
    await Promise.all(machines.map((machine) => output(machine, `touch ${stop}`)));
  }
  const samples: Record<string, Sample> = {};
  for (const [place, sampler] of Object.entries(samplers)) {
    const { stdout, stderr }: Result = await sampler;
    assert.ok(stdout, stderr);
    samples[place] = JSON.parse(stdout);
  }
  rmSync(here, { recursive: true });
  await Promise.all(machines.map((machine) => output(machine, `rm -f ${stop}`)));
  return samples;
}

/** Shows the canary as a careless program would show a secret: in arguments, and in a process that isn't root's. */
async function showCanary(): Promise<void> {
  const careless = `
sh -c 'sleep 1; : ${canary}'
SECRET=${canary} setpriv --reuid=nobody --regid=nogroup --clear-groups sleep 1`;
  await Promise.all([
    ...machines.map((machine) => output(machine, careless)),
    run("sh", ["-c", `sleep 1; : ${canary}`]),
  ]);
}

/** All files of a directory, deep. */
function filesIn(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

describe("secrets", function () {
  this.timeout(180_000);

  const scratch = mkdtempSync(join(tmpdir(), "secrets-test-"));
  const withAlerts = join(scratch, "Pulumi.lab.yaml");
  const alert = randomBytes(12).toString("hex");
  const printed: Record<string, string> = {};
  let samples: Record<string, Sample>;
  let whileBackingUp: Search;

  /** Runs the CLI on the lab's stack and keeps what it prints. */
  async function say(name: string, ...args: string[]): Promise<Result> {
    const result = await labStack(...args);
    printed[name] = result.stdout + result.stderr;
    return result;
  }

  before(async () => {
    await healthyLab();
    await gatherSecrets(alert);
    writeFileSync(withAlerts, readFileSync(stackFile));
    const set = ["config", "set", "--secret", "--path", "cht-backup:alerts[0]", "--config-file", withAlerts];
    // Nothing listens there: what a library says about an address that fails is part of what is looked at.
    const stdin = `json://cht:${alert}@127.0.0.1:9/`;
    const done = await pulumi([...set, "--stack", "lab"], { stdin });
    assert.equal(done.code, 0, done.stderr);

    samples = await watched(async () => {
      await showCanary();
      // Everything that has to do with a secret is out of order, so that it is shown and repaired.
      await output(
        "cht",
        `cd ${settings} && echo ${canary} >passphrase && chmod 0644 passphrase ssh_key && echo ${canary} >alerts && chmod 0755 .`,
      );
      await output("server", `sed -i 's/^append_only = 1/append_only = 0/' ${repository}/config`);
      await say("preview --diff", "preview", "--diff", "--config-file", withAlerts);
      await say("up", "up", "--yes", "--skip-preview", "--diff", "--config-file", withAlerts);
      // By standard input: this search is watched, too.
      assert.equal(await output("cht", `grep -cf - ${settings}/alerts <<'END'\n${alert}\nEND`), "1");

      // While the certificates and the manifest lie there and borg is at work.
      const paused = python("cht", "when_opened.py", [
        `${data}/_dbs.couch`,
        "run",
        "touch /run/secrets-test-paused; until [ -e /run/secrets-test-go ]; do sleep 0.05; done",
      ]);
      await output("cht", "rm -f /run/secrets-test-*");
      const running = await startBackup();
      await output("cht", "until [ -e /run/secrets-test-paused ]; do sleep 0.05; done", { timeoutMs: 240_000 });
      try {
        whileBackingUp = await search("cht", "files", "/etc", "/run", "/tmp", "/var");
      } finally {
        await output("cht", "touch /run/secrets-test-go");
      }
      assertComplete(await running.finished());
      assert.equal((await paused).code, 0);

      const failed = await during("cht", `mount -t tmpfs none ${data}`, `umount ${data}`, backUp);
      assertFailed(failed, 2, /is its disk mounted/);
      await output(
        "cht",
        `until [ "$(systemctl show -p ActiveState --value ${alertService})" != activating ]; do sleep 0.1; done`,
      );

      // borg's own words in an error, when it had the passphrase: a repository that is none.
      await during(
        "server",
        `mv ${repository} ${repository}.away; install -d -m 0700 --owner=cht-backup-lab ${repository}; touch ${repository}/junk`,
        `rm -rf ${repository}; mv ${repository}.away ${repository}`,
        () => say("an up that fails", "up", "--yes", "--skip-preview", "--config-file", withAlerts),
      );
      await during("cht", "systemctl stop ssh.service", "systemctl start ssh.service", () =>
        say("a preview that fails", "preview", "--config-file", withAlerts),
      );
      await say("the up after", "up", "--yes", "--skip-preview");
    });
    await say("preview --json", "preview", "--json");
    await say("stack output", "stack", "output", "--json");
    await say("stack export", "stack", "export");
    await say("stack history", "stack", "history", "--json");
  });

  after(async () => {
    rmSync(scratch, { recursive: true, force: true });
    await exec("cht", `rm -f /run/secrets-test-*; systemctl reset-failed`);
  });

  const shouldBeSeen = {
    cht: ["chtbackup backup", "chtbackup alert", "borg", "ssh", "docker"],
    server: ["borg", "sshd-session"],
    "this computer": ["pulumi", "ssh"],
  };
  for (const [place, expected] of Object.entries(shouldBeSeen)) {
    it(`aren't in the arguments of any process on ${place}, nor in an environment that others may read`, () => {
      const { passes, programs, found } = samples[place] as Sample;
      assert.ok(passes > 100, `only ${passes} looks`);
      for (const program of expected)
        assert.ok(
          programs.some((name) => name.startsWith(program)),
          programs.join(" "),
        );
      assert.deepEqual([...new Set(found.map(({ secret }) => secret))], ["canary"], JSON.stringify(found));
      assert.ok(found.some(({ where }) => where === "argv"));
      if (place !== "this computer") assert.ok(found.some(({ where }) => where === "environ"));
    });
  }

  for (const machine of machines) {
    it(`aren't in the journal of ${machine}`, async () => {
      await output(machine, `echo ${canary} | systemd-cat; journalctl --sync`);
      const { read, found } = await search(machine, "journal");
      assert.ok(read > 10);
      assert.deepEqual(found, [{ secret: "canary", where: "journal" }]);
    });

    it(`aren't in any file that others may read on ${machine}`, async () => {
      const planted = "/var/tmp/secrets-test";
      const { read, found } = await during(
        machine,
        `echo ${canary} >${planted}; chmod 0644 ${planted}`,
        `rm ${planted}`,
        () => search(machine, "files", ...open),
      );
      assert.ok(read > 100);
      assert.deepEqual(found, [{ secret: "canary", where: planted }]);
    });
  }

  it("aren't in any file that others may read while a backup runs", () => {
    assert.ok(whileBackingUp.read > 100);
    assert.deepEqual(whileBackingUp.found, []);
  });

  it("aren't in what the CLI prints: previews, diffs, an up, errors, outputs, the exported state", () => {
    assert.match(printed["preview --diff"] ?? "", /alert-addresses/);
    assert.match(printed["preview --diff"] ?? "", /backup-passphrase/);
    assert.match(printed["an up that fails"] ?? "", /borg-repository[\s\S]*error/);
    assert.match(printed["a preview that fails"] ?? "", /can't be reached over SSH/);
    assert.match(printed["stack export"] ?? "", /"ciphertext"/);
    for (const [what, text] of Object.entries(printed)) {
      assert.ok(text.length > 20, what);
      // What someone put into a secret's place is as secret.
      assert.deepEqual(secretsIn(text), [], what);
    }
    assert.deepEqual(secretsIn(`${canary} ${alert}`), ["canary", "the alert's address"]);
  });

  it("aren't in clear in the state and its history, but can be read by who has the passphrase", async () => {
    const files = filesIn(join(labFolder, "state"));
    assert.ok(files.some((path) => path.includes("history")) && files.some((path) => path.includes("stacks")));
    for (const path of files) assert.deepEqual(secretsIn(readFileSync(path, "latin1")), [], path);
    const shown = await mustSucceed("stack", "export", "--show-secrets");
    assert.ok(secretsIn(shown).includes("the repository's passphrase"));
    assert.ok(secretsIn(shown).includes("the repository's key"));
  });

  it("the private half of the CHT machine's key isn't in the state at all", async () => {
    const shown = await mustSucceed("stack", "export", "--show-secrets");
    assert.ok(!secretsIn(shown).includes("the private key of the CHT machine"));
  });
});
