import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "mocha";
import { parse } from "yaml";
import { changes, diagnostics } from "../../lab/deploy";
import { aptSettings, buildCommand, contentHash, machineRelease } from "../../lab/images";
import { removeForsaken } from "../../lab/remove";
import { labSettings, mergeSettings, missingBucketSecrets } from "../../lab/settings";
import { holdings, size } from "../../lab/summary";
import { project } from "../../toolchain/paths";
import { Progress } from "../../toolchain/progress";

const machines = {
  cht: { address: "172.18.0.2", user: "ubuntu", hostKey: "ssh-ed25519 AAAAcht" },
  server: { address: "172.18.0.3", user: "root", hostKey: "ssh-ed25519 AAAAserver" },
};
const settings = labSettings(machines, ".lab/id_ed25519", true, new Date("2026-12-01T14:30:00Z"));

describe("Pulumi.lab.yaml", () => {
  it("is made from nothing", () => {
    assert.deepEqual(parse(mergeSettings("", settings)), {
      config: {
        "host:machines": {
          cht: { ...machines.cht, identityFile: ".lab/id_ed25519" },
          server: { ...machines.server, identityFile: ".lab/id_ed25519" },
        },
        "cht-backup:server": { address: "cht-backup-lab-server" },
        "cht-backup:firstBackup": false,
        "cht-backup:schedule": "*-*-* 02:00:00",
        "cht-backup:randomDelay": "0s",
        "cht-backup:drill": { manageDocker: false, randomDelay: "0s" },
      },
    });
  });

  it("doesn't change the second time", () => {
    const once = mergeSettings("", settings);
    assert.equal(mergeSettings(once, settings), once);
  });

  it("is left alone to the byte where it says what is so, however it is written", () => {
    const text = JSON.stringify({ config: settings });
    assert.equal(mergeSettings(text, settings), text);
  });

  it("follows a machine whose address changed", () => {
    const before = mergeSettings("", settings);
    const moved = { ...machines, cht: { ...machines.cht, address: "172.18.0.9" } };
    const after = mergeSettings(before, labSettings(moved, ".lab/id_ed25519"));
    assert.equal(after, before.replace("172.18.0.2", "172.18.0.9"));
  });

  it("keeps what the user and Pulumi put there", () => {
    const text = `# mine
encryptionsalt: v1:abc=
config:
  cht-backup:passphrase:
    secure: v1:def
  cht-backup:server: # small disk
    reserveMebibytes: 64
  cht-backup:randomDelay: 5min
`;
    const merged = mergeSettings(text, settings);
    const values = parse(merged) as { encryptionsalt: string; config: Record<string, unknown> };
    assert.equal(values.encryptionsalt, "v1:abc=");
    assert.deepEqual(values.config["cht-backup:passphrase"], { secure: "v1:def" });
    assert.deepEqual(values.config["cht-backup:server"], { reserveMebibytes: 64, address: "cht-backup-lab-server" });
    assert.equal(values.config["cht-backup:randomDelay"], "5min");
    assert.match(merged, /^# mine\n/);
    assert.match(merged, /# small disk/);
  });

  it("gets the bucket's secrets once, and the rest of its settings beside them", () => {
    const wanted = [
      { path: "cht-backup:bucket.secretAccessKey", of: "writer" },
      { path: "cht-backup:bucket.reader.secretAccessKey", of: "reader" },
    ];
    assert.deepEqual(missingBucketSecrets(mergeSettings("", settings)), wanted);
    const text = "config:\n  cht-backup:bucket:\n    secretAccessKey:\n      secure: v1:a\n";
    assert.deepEqual(missingBucketSecrets(text), wanted.slice(1));
    const all = `${text}    reader:\n      secretAccessKey:\n        secure: v1:b\n`;
    assert.deepEqual(missingBucketSecrets(all), []);
    const merged = mergeSettings(all, { "cht-backup:bucket": { name: "b", reader: { accessKeyId: "c" } } });
    assert.deepEqual(parse(merged).config["cht-backup:bucket"], {
      secretAccessKey: { secure: "v1:a" },
      reader: { secretAccessKey: { secure: "v1:b" }, accessKeyId: "c" },
      name: "b",
    });
  });

  it("is left without a bucket where the user says so", () => {
    const text = "config:\n  cht-backup:bucket: none\n";
    assert.deepEqual(missingBucketSecrets(text), []);
    assert.equal(mergeSettings(text, { "cht-backup:bucket": { name: "b" } }), text);
  });

  it("drops what an older passphrase encrypted", () => {
    const text = "encryptionsalt: v1:abc=\nconfig:\n  cht-backup:passphrase:\n    secure: v1:def\n  a:b: 1\n";
    const values = parse(mergeSettings(text, settings, true)) as { encryptionsalt?: string; config: object };
    assert.equal(values.encryptionsalt, undefined);
    assert.ok(!("cht-backup:passphrase" in values.config));
    assert.ok("a:b" in values.config);
  });

  it("is refused in one line where it is no YAML", () => {
    assert.throws(() => mergeSettings("config: [\n", settings), /^Error: Pulumi\.lab\.yaml can't be read: [^\n]+$/);
  });
});

describe("the lab's images", () => {
  it("take over how packages are reached, and nothing else of apt", () => {
    const dump = [
      'Acquire::cdrom::mount "/media/cdrom/";',
      'Acquire::http::Proxy "http://proxy.example:3142";',
      'Acquire::https::Proxy "";',
      'Acquire::Check-Date "false";',
      'Dir::Cache "";',
    ].join("\n");
    const expected = 'Acquire::http::Proxy "http://proxy.example:3142";\nAcquire::Check-Date "false";\n';
    assert.equal(aptSettings(dump), expected);
  });

  it("have a name that follows their content", () => {
    const files = (a: string) => new Map([["a", Buffer.from(a)]]);
    const name = contentHash(files("1"), "base");
    assert.match(name, /^[0-9a-f]{12}$/);
    assert.equal(contentHash(files("1"), "base"), name);
    const others = [contentHash(files("2"), "base"), contentHash(files("1"), "other")];
    others.push(contentHash(new Map([["a1", Buffer.from("")]]), "base"));
    assert.equal(new Set([name, ...others]).size, 4);
  });

  it("are built by the engine itself, with or without buildx", () => {
    assert.deepEqual(buildCommand(true).args.slice(0, 4), ["buildx", "build", "--builder", "default"]);
    assert.equal(buildCommand(false).env.DOCKER_BUILDKIT, "0");
  });
});

describe("what the lab's machines are made of", () => {
  it("is Debian 13, or what the environment says, and another word is refused", () => {
    assert.equal(machineRelease({}), "trixie");
    assert.equal(machineRelease({ CHT_BACKUP_LAB_RELEASE: "bookworm" }), "bookworm");
    assert.throws(() => machineRelease({ CHT_BACKUP_LAB_RELEASE: "sid" }), /is sid; it must be trixie or bookworm\.$/);
  });
});

describe("the lab on CouchDB's own image", function () {
  this.timeout(20_000);

  const official = join(project, "lab", "images", "couchdb", "official");

  it("can start all programs that its images hold", () => {
    const listed = execFileSync("git", ["ls-files", "--stage", "lab/images", "test/e2e/official"], { cwd: project });
    for (const line of listed.toString().trim().split("\n")) {
      const [mode, , , path = ""] = line.split(/\s/);
      if (readFileSync(join(project, path)).subarray(0, 2).toString() === "#!") assert.equal(mode, "100755", path);
    }
  });

  it("runs it under the name of the node that the lab's databases belong to", () => {
    const about = JSON.parse(readFileSync(join(project, "test", "fixtures", "couchdb-small.json"), "utf8")).about;
    const [, name] = /^ENV NODENAME=(.+)$/m.exec(readFileSync(join(official, "Dockerfile"), "utf8")) ?? [];
    assert.equal(`couchdb@${name}`, about.node);
  });

  it("lets CouchDB make its files for others to read, and nobody else read the password", () => {
    const folder = mkdtempSync(join(tmpdir(), "lab-"));
    try {
      const script = readFileSync(join(official, "cht-entrypoint.sh"), "utf8");
      const credentials = join(folder, "cluster-credentials.ini");
      const there = script
        .replace("/opt/couchdb/etc/local.d", folder)
        .replace("/docker-entrypoint.sh", join(folder, "next"));
      writeFileSync(join(folder, "entrypoint"), there);
      writeFileSync(join(folder, "next"), `#!/bin/sh\numask\nstat -c %a ${credentials}\necho "$@"\n`);
      chmodSync(join(folder, "next"), 0o755);
      const env = {
        ...process.env,
        COUCHDB_USER: "medic",
        COUCHDB_PASSWORD: "p",
        COUCHDB_SECRET: "s",
        COUCHDB_UUID: "u",
      };
      const shell = `umask 022; exec sh ${join(folder, "entrypoint")} couchdb`;
      const done = spawnSync("sh", ["-c", shell], { env, encoding: "utf8" });
      assert.equal(done.stdout, "0022\n640\ncouchdb\n", done.stderr);
      assert.match(readFileSync(credentials, "utf8"), /^\[admins\]\nmedic = p\n/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

/** Lends work a folder with shell programs, for the front of its PATH. */
async function withPrograms<T>(programs: Record<string, string>, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "lab-"));
  try {
    for (const [name, text] of Object.entries(programs)) {
      writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    }
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe("a CHT of the lab that doesn't answer", function () {
  this.timeout(20_000);

  /** Runs the script that waits, with programs in the place of others. */
  const wait = (programs: Record<string, string>) =>
    withPrograms(programs, async (folder) => {
      const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
      const words = [join(project, "lab", "images", "cht", "wait-for-cht"), "/nowhere/.env", "cht", "1"];
      return spawnSync("sh", words, { env, encoding: "utf8" });
    });

  it("is told with the reason, the state of each container, and its last line", async () => {
    const done = await wait({
      python3: `echo "Traceback" >&2; echo "CHT doesn't answer: Bad Gateway" >&2; exit 1`,
      docker: `case $1 in
ps) echo one; echo two ;;
inspect) echo "/$4 is restarting, last exit code 126" ;;
logs) echo "exec /cht-entrypoint.sh: permission denied" >&2 ;;
esac`,
    });
    assert.equal(done.status, 1);
    const line = "  exec /cht-entrypoint.sh: permission denied";
    const [one, two] = ["one", "two"].map((id) => `/${id} is restarting, last exit code 126\n${line}\n`);
    assert.equal(done.stderr, `CHT doesn't answer: Bad Gateway\n${one}${two}`);
  });

  it("isn't waited for once it does", async () => {
    const done = await wait({ python3: "exit 0", docker: "exit 1" });
    assert.deepEqual([done.status, done.stderr], [0, ""]);
  });
});

describe("a lab whose folder .lab is gone", function () {
  this.timeout(20_000);

  /** Has its machines removed, with a `docker` that lists these; returns what docker was asked to do. */
  function remove(running: string, all: string, identity = "/nowhere/id_ed25519"): Promise<string[]> {
    const docker = `echo "$*" >>"$(dirname "$0")/asked"
case "$*" in
"ps --quiet "*) printf '%s' "${running}" ;;
"ps --all "*) printf '%s' "${all}" ;;
esac`;
    return withPrograms({ docker }, async (folder) => {
      const path = process.env.PATH;
      try {
        process.env.PATH = `${folder}:${path}`;
        await removeForsaken(new Progress(() => undefined), identity);
      } finally {
        process.env.PATH = path;
      }
      const asked = join(folder, "asked");
      return existsSync(asked) ? readFileSync(asked, "utf8").split("\n") : [];
    });
  }

  it("is removed before a new one is made: nobody has the keys of its machines and its bucket", async () => {
    assert.ok(
      (await remove("", "402b0b777725\n77cc6a04270a\n")).includes("rm --force --volumes 402b0b777725 77cc6a04270a"),
    );
  });

  it("is left alone while it runs, in words: it may be another checkout's", async () => {
    await assert.rejects(
      remove("402b0b777725\n", "402b0b777725\n"),
      /^Error: a lab runs here that isn't this checkout's\./,
    );
  });

  it("isn't looked for by a checkout that has its own", async () => {
    assert.deepEqual(await remove("", "402b0b777725\n", __filename), []);
  });
});

describe("the lab's summary", () => {
  it("counts what a restore needs", () => {
    const paths = [
      "home/ubuntu/cht/couchdb/.shards/00000000-15555554/medic.1_design/mrview/a.view",
      "home/ubuntu/cht/couchdb/shards/00000000-15555554/medic.1.couch",
      "home/ubuntu/cht/couchdb/_dbs.couch",
      "home/ubuntu/cht/upgrade-service/.env",
      "home/ubuntu/cht/compose/cht-core.yml",
      "run/cht-backup/lab/tls/key.pem",
      "run/cht-backup/lab/manifest.json",
    ];
    assert.deepEqual(holdings(paths), [
      ["view indexes (.shards)", 1],
      ["databases (shards)", 1],
      ["CouchDB's own databases", 1],
      [".env", 1],
      ["compose files", 1],
      ["TLS key and certificate", 1],
      ["manifest and others", 1],
    ]);
  });

  it("writes sizes as borg does", () => {
    assert.deepEqual([0, 999, 1000, 2_749_956, 150_000_000].map(size), ["0 B", "999 B", "1.0 kB", "2.7 MB", "150 MB"]);
  });

  it("counts changed resources, not unchanged ones", () => {
    assert.equal(changes("Resources:\n    + 31 created\n    ~ 2 updated\n    +-1 replaced\n    4 unchanged\n"), 34);
    assert.equal(changes("Resources:\n    34 unchanged\n"), 0);
  });

  it("quotes the diagnostics of a failed update", () => {
    const text =
      "noise\nDiagnostics:\n  host:index:File (a):\n    error: server: refused\n\nResources:\n    1 unchanged\n";
    assert.equal(diagnostics(text), "  host:index:File (a):\n    error: server: refused");
    assert.equal(diagnostics("error: no such stack\n"), "  error: no such stack");
  });
});
