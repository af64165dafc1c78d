import assert from "node:assert/strict";
import { describe, it } from "mocha";
import { parse } from "yaml";
import { changes, diagnostics } from "../../lab/deploy";
import { aptSettings, buildCommand, contentHash } from "../../lab/images";
import { labSettings, mergeSettings, missingBucketSecrets } from "../../lab/settings";
import { holdings, size } from "../../lab/summary";

const machines = {
  cht: { address: "172.18.0.2", user: "ubuntu", hostKey: "ssh-ed25519 AAAAcht" },
  server: { address: "172.18.0.3", user: "root", hostKey: "ssh-ed25519 AAAAserver" },
};
const settings = labSettings(machines, ".lab/id_ed25519");

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
