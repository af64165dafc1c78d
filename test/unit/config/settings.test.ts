import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import type { Settings } from "../../../config";
import { project } from "../../../toolchain/paths";
import { exampleForAws } from "../../example";
import { machines, mistakes, read, wrongSettings } from "./settings";

wrongSettings([
  [
    "a misspelt setting",
    { "cht-backup:compresion": "lz4" },
    /^cht-backup:compresion: .*; did you mean cht-backup:compression\?$/,
  ],
  [
    "a setting in the wrong namespace",
    { "cht-backup:machines": {} },
    /^cht-backup:machines: .* did you mean host:machines\?$/,
  ],
  [
    "a path in place of a name",
    { "cht-backup:server.port": "22" },
    /^cht-backup:server.port: .* it belongs inside cht-backup:server, as `npm run pulumi -- config set --path 'cht-backup:server.port'/,
  ],
  [
    "an unknown setting",
    { "cht-backup:cloud": "hunter2" },
    /^cht-backup:cloud: there is no such setting; must be one of host:m/,
  ],
]);

describe("wrong settings", () => {
  it("are all told at once", () => {
    const lines = mistakes({
      "host:machines": { cht: { address: "a b", port: 0 }, server: { address: "c", sudo: "no" } },
      "cht-backup:schedule": "never",
      "cht-backup:uploadRate": "fast",
      "cht-backup:passphrase": " ",
      "cht-backup:what": "ever",
    });
    const paths = lines.map((line) => line.slice(0, line.indexOf(": ")));
    assert.deepEqual(paths, [
      "cht-backup:what",
      "host:machines.cht.address",
      "host:machines.cht.port",
      "host:machines.server.sudo",
      "cht-backup:schedule",
      "cht-backup:uploadRate",
      "cht-backup:passphrase",
      "cht-backup:passphrase",
    ]);
  });
});

describe("settings", () => {
  const limits = { commitsPerDay: 600, sessionDays: 45, quotaGibibytes: 0, idleHours: 48 };

  it("need nothing but the machines", () => {
    assert.deepEqual(read({}), {
      machines: {
        cht: { address: "cht.example.org", user: "ubuntu", sudo: true },
        server: { address: "backup.example.org", user: "root", sudo: false },
      },
      deployment: "moh",
      cht: { home: "/home/ubuntu/cht", composeProject: "cht", couchdbData: [] },
      server: {
        dataDirectory: "/srv/cht-backup",
        address: "backup.example.org",
        port: 22,
        reserveMebibytes: 1024,
        limits,
      },
      schedule: "*-*-* 00/4:17:00 UTC",
      randomDelay: "30min",
      compression: "zstd,3",
      chunker: "fixed,262144",
      uploadRate: 0,
      alerts: [],
      passphrase: undefined,
      firstBackup: false,
      recoveryKit: undefined,
      retention: {
        keepWithin: 7,
        daily: 14,
        weekly: 6,
        monthly: 4,
        yearly: 2,
        schedule: "Sat *-*-* 12:00:00",
        randomDelay: "1h",
      },
      watch: {
        diskFullDays: 30,
        retentionDays: 60,
        certificateDays: 14,
        metricsDirectory: "/var/lib/prometheus/node-exporter",
        pings: {},
      },
      drill: {
        machine: "cht",
        from: "server",
        schedule: "Sun *-*-* 10:00:00",
        randomDelay: "1h",
        overdueAfterDays: 9,
        keep: 12,
        scratch: "/var/lib/cht-backup/moh/drill",
        scratchGibibytes: 0,
        memoryMebibytes: 2048,
        cpus: 1,
        server: { address: "backup.example.org", port: 22 },
        docker: { address: "cht.example.org", user: "ubuntu", sudo: true },
      },
      bucket: undefined,
    } satisfies Settings);
  });

  it("take secrets that are secret, further machines, and other programs' settings", () => {
    const settings = read(
      {
        "cht-backup:alerts": ["tgram://token/1"],
        "cht-backup:passphrase": "a passphrase of many words",
        "host:machines": { ...machines, drill: { address: "drill.example.org" } },
        "aws:region": "eu-west-1",
      },
      ["cht-backup:alerts", "cht-backup:passphrase"],
    );
    assert.deepEqual(settings.alerts, ["tgram://token/1"]);
    assert.equal(settings.passphrase, "a passphrase of many words");
    assert.equal(settings.machines.drill?.user, "root");
  });

  it("of the example Pulumi.prod.yaml are refused as long as anything isn't filled in, in a line each", () => {
    const { config } = parse(readFileSync(join(project, "Pulumi.prod.yaml"), "utf8"));
    const lines = mistakes(config, [], "prod");
    assert.deepEqual(
      lines.map((line) => line.replace(/; must be .*$/, "")),
      [
        'host:machines.cht.address: found "<the CHT host\'s address>"',
        'cht-backup:server.aws.operatorKeys[0]: found "<ssh-ed25519 …>"',
        'cht-backup:server.aws.operatorNetworks[0]: found "<your address>/32"',
        'cht-backup:server.aws.chtNetworks[0]: found "<the CHT host\'s address>/32"',
        'cht-backup:bucket.name: found "<a name of your own>"',
      ],
    );
  });

  it("of the example Pulumi.prod.yaml are right once they are filled in", () => {
    const settings = read(exampleForAws(), [], "prod");
    assert.deepEqual([settings.deployment, settings.firstBackup, settings.drill?.from], ["prod", true, "alternating"]);
    assert.deepEqual([settings.server.aws?.region, settings.bucket?.mode], ["eu-west-1", "compliance"]);
  });

  it("of the example Pulumi.staging.yaml are right, those of the bucket too that need secrets first", () => {
    const text = readFileSync(join(project, "Pulumi.staging.yaml"), "utf8");
    const settings = read(parse(text).config, [], "staging");
    assert.equal(settings.deployment, "staging");
    assert.equal(settings.firstBackup, true);
    assert.equal(settings.bucket, undefined);
    const lines = text.split("\n");
    const example = lines.slice(
      lines.indexOf("  # cht-backup:bucket:"),
      lines.indexOf("  # Then, with the block in place, these ask for the secrets:"),
    );
    const given = parse(example.map((line) => line.replace(/^ {2}# /, "")).join("\n"))["cht-backup:bucket"];
    for (const key of [given, given.reader]) key.secretAccessKey = "hunter2-hunter2";
    const { bucket } = read({ "cht-backup:bucket": given }, ["cht-backup:bucket"]);
    assert.deepEqual([bucket?.mode, bucket?.endpoint], ["compliance", null]);
  });
});
