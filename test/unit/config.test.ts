import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { parse } from "yaml";
import { readSettings, type Settings, settingsSchema, withMade } from "../../config";
import {
  isCalendar,
  isChunker,
  isCompression,
  isEndpoint,
  isNetwork,
  isPinnedImage,
  isTimeSpan,
} from "../../config-formats";
import { reference, referenceFile } from "../../docs/generate";
import { sshCommandLine } from "../../provider/connection";
import { core, textsOf } from "../../provider/mistakes";
import { exampleForAws } from "../example";

const machines = { cht: { address: "cht.example.org", user: "ubuntu" }, server: { address: "backup.example.org" } };

/** A configuration as Pulumi hands it over: every value is a text, a structured one as JSON. */
function configuration(settings: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(
    Object.entries({ "host:machines": machines, "cht-backup:firstBackup": false, ...settings })
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
  );
}

function read(settings: Record<string, unknown>, secrets: string[] = [], stack = "moh"): Settings {
  return readSettings(configuration(settings), stack, secrets);
}

/** The lines of the error, without the first. */
function mistakes(settings: Record<string, unknown>, secrets: string[] = [], stack = "moh"): string[] {
  try {
    read(settings, secrets, stack);
  } catch (error) {
    assert.ok(pulumi.RunError.isInstance(error), String(error));
    const [first, ...lines] = (error as Error).message.split("\n  ");
    const count = lines.length === 1 ? "1 mistake" : `${lines.length} mistakes`;
    assert.equal(first, `${count} in the settings of stack ${stack} (docs/settings.md lists them all):`);
    return lines;
  }
  return [];
}

const host = "AAAAC3NzaC1lZDI1NTE5AAAAIDchlaMSlsqghPIoqQnY3dW3bNcFuEd9egd7VQ/ugsoX";
/** The beginning of a key: its type. */
const rsaKey = Buffer.from("\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01", "latin1").toString("base64");

const bucket = {
  name: "moh-backup-copy",
  mode: "governance",
  accessKeyId: "WRITER",
  secretAccessKey: "hunter2+secret/key=",
};

const operatorKey = `ssh-ed25519 ${host}`;
const aws = {
  region: "eu-west-1",
  operatorKeys: [operatorKey],
  operatorNetworks: ["203.0.113.7/32"],
  chtNetworks: ["198.51.100.20/32"],
};
/** Settings of a stack that makes its server. */
const made = (changes: Record<string, unknown>, others: Record<string, unknown> = {}) => ({
  "host:machines": { cht: machines.cht },
  "cht-backup:server": { aws: { ...aws, ...changes } },
  ...others,
});
const madeBucket = (changes: Record<string, unknown>) => ({
  "cht-backup:bucket": { name: "moh-backup-copy", region: "eu-west-1", mode: "governance", aws: {}, ...changes },
});

/** Wrong settings, each with the one line that it is answered with. */
const wrong: [what: string, settings: Record<string, unknown>, line: RegExp, secrets?: string[]][] = [
  [
    "no machines",
    { "host:machines": undefined },
    /^host:machines: missing; must be a mapping .* for instance \{ cht: /,
  ],
  ["machines that aren't JSON", { "host:machines": "{cht: x" }, /^host:machines: found "\{cht: x"; must be a mapping /],
  ["no server", { "host:machines": { cht: machines.cht } }, /^host:machines.server: missing; must be a mapping with /],
  [
    "a region that doesn't exist",
    made({ region: "eu-west1" }),
    /^cht-backup:server.aws.region: found "eu-west1", which is no region of AWS; the nearest: eu-west-1/,
  ],
  [
    "a zone for a region",
    made({ region: "eu-west-1a" }),
    /^cht-backup:server.aws.region: found "eu-west-1a", which is an availability zone; its region is eu-west-1$/,
  ],
  [
    "a zone of another region",
    made({ availabilityZone: "us-east-1a" }),
    /^cht-backup:server.aws.availabilityZone: found "us-east-1a" in the region eu-west-1; must be one of that region/,
  ],
  [
    "no key of an operator",
    made({ operatorKeys: undefined }),
    /^cht-backup:server.aws.operatorKeys: missing; must be a list of public keys/,
  ],
  [
    "an operator's key that was cut",
    made({ operatorKeys: [operatorKey.slice(0, -4)] }),
    /^cht-backup:server.aws.operatorKeys\[0\]: found "ssh-ed25519 [^"]*"; must be a public key/,
  ],
  [
    "SSH for everybody",
    made({ operatorNetworks: ["0.0.0.0/0"] }),
    /^cht-backup:server.aws.operatorNetworks\[0\]: found "0\.0\.0\.0\/0"; must be a network in CIDR notation/,
  ],
  [
    "an address for a network",
    made({ operatorNetworks: ["203.0.113.7"] }),
    /^cht-backup:server.aws.operatorNetworks\[0\]: found "203\.0\.113\.7"; must be a network/,
  ],
  [
    "nothing that says where the CHT machine sends from",
    made({ chtNetworks: undefined }),
    /^cht-backup:server.aws.chtNetworks: missing, and host:machines.cht.address is no IP address; must be a list/,
  ],
  [
    "an address of a server that the stack makes",
    made({}, { "host:machines": machines }),
    /^host:machines.server.address: found "backup.example.org" with cht-backup:server.aws; must be left out/,
  ],
  [
    "a drill by the Docker plugin on a server that the stack makes",
    made({}, { "cht-backup:drill": { machine: "server", couchdbImage: `c@sha256:${"0".repeat(64)}` } }),
    /^cht-backup:drill.manageDocker: must be false for the machine server with cht-backup:server.aws/,
  ],
  [
    "another volume than AWS has",
    made({ volumeId: "/dev/sdf" }),
    /^cht-backup:server.aws.volumeId: found "\/dev\/sdf"; must be `vol-` and its id/,
  ],
  [
    "a bucket that is made nowhere",
    madeBucket({ region: undefined }),
    /^cht-backup:bucket.region: missing with aws; must be a region of AWS, for instance eu-west-1/,
  ],
  [
    "a bucket in a region that doesn't exist",
    madeBucket({ region: "europe" }),
    /^cht-backup:bucket.region: found "europe", which is no region of AWS/,
  ],
  [
    "a bucket elsewhere that AWS would make",
    madeBucket({ endpoint: "https://s3.example.org" }),
    /^cht-backup:bucket.endpoint: found "https:\/\/s3.example.org" with aws; must be left out/,
  ],
  [
    "a key for a bucket that the stack makes",
    madeBucket({ accessKeyId: "WRITER" }),
    /^cht-backup:bucket.accessKeyId: found a value that isn't shown with aws; must be left out/,
  ],
  [
    "a name with dots for a bucket at AWS",
    madeBucket({ name: "moh.backup.copy" }),
    /^cht-backup:bucket.name: found "moh.backup.copy" with aws; must have no dots there/,
  ],
  [
    "a zone beside a subnet",
    made({
      availabilityZone: "eu-west-1b",
      vpc: { id: "vpc-0123456789abcdef0", subnetId: "subnet-0123456789abcdef0" },
    }),
    /^cht-backup:server.aws.availabilityZone: found "eu-west-1b" with vpc; must be left out/,
  ],
  [
    "an address of the office's own network",
    made({ chtNetworks: ["192.168.1.20/32"] }),
    /^cht-backup:server.aws.chtNetworks: found "192.168.1.20\/32", which no server on the internet ever sees; must be /,
  ],
  [
    "a CHT machine that is reached inside a network, and nothing that says what the internet sees",
    made({ chtNetworks: undefined }, { "host:machines": { cht: { address: "10.0.0.5" } } }),
    /^cht-backup:server.aws.chtNetworks: found "10.0.0.5\/32", which no server on the internet ever sees/,
  ],
  [
    "operators that come by IPv6 alone",
    made({ operatorNetworks: ["2001:db8::/48"] }),
    /^cht-backup:server.aws.operatorNetworks: found networks of IPv6 alone; must have one of IPv4, too/,
  ],
  [
    "a region of another partition",
    made({ region: "cn-north-1" }),
    /^cht-backup:server.aws.region: found "cn-north-1", which isn't in AWS' public partition/,
  ],
  [
    "a bucket that exists without a key",
    { "cht-backup:bucket": { ...bucket, accessKeyId: undefined } },
    /^cht-backup:bucket.accessKeyId: missing; must be 3 to 128 letters/,
    ["cht-backup:bucket"],
  ],
  [
    "a tag of AWS' own",
    made({ tags: { "aws:x": "y" } }),
    /^cht-backup:server.aws.tags.aws:x: the name must be 1 to 128 letters/,
  ],
  [
    "no address",
    { "host:machines": { ...machines, cht: {} } },
    /^host:machines.cht.address: missing; must be a host name/,
  ],
  [
    "an address that ssh takes for an option",
    { "host:machines": { ...machines, cht: { address: "-oProxyCommand=reboot" } } },
    /^host:machines.cht.address: found "-oProxyCommand=reboot"; must be /,
  ],
  [
    "a user in the address",
    { "host:machines": { ...machines, cht: { address: "ubuntu@cht.example.org" } } },
    /^host:machines.cht.address: found "ubuntu@cht.example.org"; must be a host name/,
  ],
  [
    "a port out of range",
    { "host:machines": { ...machines, cht: { address: "a", port: 99999 } } },
    /^host:machines.cht.port: found 99999; must be a port, a number from 1 to 65535, for instance 2222$/,
  ],
  [
    "a misspelt setting of a machine",
    { "host:machines": { ...machines, cht: { adress: "cht.example.org" } } },
    /^host:machines.cht.adress: there is no such setting; did you mean host:machines.cht.address\?$/,
  ],
  [
    "a host key that was cut",
    { "host:machines": { ...machines, server: { address: "b", hostKey: `ssh-ed25519 ${host.slice(0, -8)}` } } },
    /^host:machines.server.hostKey: found "ssh-ed25519 AAAA.*…"; must be a public key on one line/,
  ],
  [
    "a private key in place of a host key",
    {
      "host:machines": { ...machines, server: { address: "b", hostKey: "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl" } },
    },
    /^host:machines.server.hostKey: found a text that isn't shown; must be a public key/,
  ],
  [
    "a name of a machine with a capital",
    { "host:machines": { ...machines, Drill: { address: "c" } } },
    /^host:machines.Drill: the name must be lower-case letters/,
  ],
  [
    "one machine for both",
    { "host:machines": { cht: { address: "one" }, server: { address: "one", port: 22 } } },
    /^host:machines.server.address: found "one", which is the machine cht; must be another machine: /,
  ],
  [
    "a deployment with a capital",
    { "cht-backup:deployment": "MoH" },
    /^cht-backup:deployment: found "MoH"; must be lower/,
  ],
  [
    "a deployment too long for a user's name",
    { "cht-backup:deployment": "m".repeat(22) },
    /^cht-backup:deployment: found/,
  ],
  [
    "a deployment whose units would be another one's",
    { "cht-backup:deployment": "moh-failed" },
    /^cht-backup:deployment: found "moh-failed"; must be .* not ending in `-failed`/,
  ],
  [
    "a deployment whose units would be another one's drill",
    { "cht-backup:deployment": "moh-overdue" },
    /^cht-backup:deployment: found "moh-overdue"; must be .* `-overdue` or `-cleanup`/,
  ],
  [
    "a relative home",
    { "cht-backup:cht": { home: "cht" } },
    /^cht-backup:cht.home: found "cht"; must be an absolute path/,
  ],
  [
    "a path with ..",
    { "cht-backup:server": { dataDirectory: "/srv/../etc" } },
    /^cht-backup:server.dataDirectory: found "\/srv\/..\/etc"; must be an absolute path without/,
  ],
  [
    "a data directory given twice",
    { "cht-backup:cht": { couchdbData: ["/srv/a", "/srv/a"] } },
    /^cht-backup:cht.couchdbData\[1\]: found "\/srv\/a" a second time; must be another directory$/,
  ],
  [
    "a text in place of a list",
    { "cht-backup:cht": { couchdbData: "/srv/a" } },
    /^cht-backup:cht.couchdbData: found "\/srv\/a"; must be a list of absolute paths/,
  ],
  [
    "a text in place of a mapping",
    { "cht-backup:server": "backup.example.org" },
    /^cht-backup:server: found "backup.example.org"; must be a mapping of `dataDirectory`/,
  ],
  [
    "a schedule in words",
    { "cht-backup:schedule": "at night" },
    /^cht-backup:schedule: found "at night"; must be a calendar/,
  ],
  [
    "a delay without a unit",
    { "cht-backup:randomDelay": "30" },
    /^cht-backup:randomDelay: found "30"; must be a time span/,
  ],
  [
    "a compression that borg doesn't know",
    { "cht-backup:compression": "zstd,23" },
    /^cht-backup:compression: found "zstd,23"; must be one of .* for instance zstd,3$/,
  ],
  [
    "a chunker without a size",
    { "cht-backup:chunker": "fixed" },
    /^cht-backup:chunker: found "fixed"; must be `default`/,
  ],
  [
    "a rate in words",
    { "cht-backup:uploadRate": "2 MB" },
    /^cht-backup:uploadRate: found "2 MB"; must be a whole number/,
  ],
  ["a rate below zero", { "cht-backup:uploadRate": -1 }, /^cht-backup:uploadRate: found -1; must be a whole number/],
  [
    "alerts in clear",
    { "cht-backup:alerts": ["tgram://hunter2/1"] },
    /^cht-backup:alerts: found in clear; must be secret, for instance `npm run pulumi -- config set --secret --path /,
  ],
  [
    "an alert that is no address",
    { "cht-backup:alerts": ["hunter2@example.org"] },
    /^cht-backup:alerts\[0\]: found a value that isn't shown; must be an address as apprise takes it/,
    ["cht-backup:alerts"],
  ],
  [
    "a passphrase in clear",
    { "cht-backup:passphrase": "hunter2 hunter2 hunter2" },
    /^cht-backup:passphrase: found in clear; must be secret, for instance `npm run pulumi -- config set --secret cht-backup:passphrase`$/,
  ],
  [
    "a passphrase with a space at its end",
    { "cht-backup:passphrase": "hunter2 hunter2 hunter2 " },
    /^cht-backup:passphrase: found a value that isn't shown; must be one line of 16 characters or more/,
    ["cht-backup:passphrase"],
  ],
  [
    "yes in place of true",
    { "cht-backup:firstBackup": "yes" },
    /^cht-backup:firstBackup: found "yes"; must be true or false/,
  ],
  [
    "a tag whose value IAM refuses, for a server",
    made({ tags: { owner: "Ministry of Health (Kenya)" } }),
    /^cht-backup:server.aws.tags.owner: found "Ministry of Health \(Kenya\)"; must be at most 256 letters, digits, spaces and/,
  ],
  [
    "tags that are one to IAM",
    made({ tags: { owner: "moh", Owner: "cht" } }),
    /^cht-backup:server.aws.tags: has the names owner and Owner, which are the same to IAM; must have one$/,
  ],
  [
    "a tag that is the stack's own to IAM",
    made({ tags: { name: "moh" } }),
    /^cht-backup:server.aws.tags: has the names Name and name, which are the same to IAM/,
  ],
  [
    "more tags than AWS takes",
    made({ tags: Object.fromEntries(Array.from({ length: 49 }, (_, index) => [`tag${index}`, ""])) }),
    /^cht-backup:server.aws.tags: found 49 tags; must be 48 at most/,
  ],
  [
    "a drill on a machine that nobody knows",
    { "cht-backup:drill": { machine: "third" } },
    /^cht-backup:drill.machine: found "third", which isn't in host:machines; must be one of cht, server$/,
  ],
  [
    "false in place of a drill",
    { "cht-backup:drill": false },
    /^cht-backup:drill: found false; must be a mapping of `enabled`, /,
  ],
  [
    "a way to the server for a drill that goes the backup's way",
    { "cht-backup:drill": { serverAddress: "10.0.0.2" } },
    /^cht-backup:drill.serverAddress: found "10.0.0.2" for the machine cht; must be left out there/,
  ],
  [
    "a drill now and then",
    { "cht-backup:drill": { schedule: "now and then" } },
    /^cht-backup:drill.schedule: found "now and then"; must be a calendar expression/,
  ],
  [
    "a drill that is never overdue",
    { "cht-backup:drill": { overdueAfterDays: 0 } },
    /^cht-backup:drill.overdueAfterDays: found 0; must be a whole number of days from 1/,
  ],
  [
    "a drill in a directory of everybody's",
    { "cht-backup:drill": { scratch: "/scratch" } },
    /^cht-backup:drill.scratch: found "\/scratch"; must be an absolute path .* not directly below `\/`/,
  ],
  [
    "a drill in a /tmp that Docker doesn't see",
    { "cht-backup:drill": { scratch: "/var/tmp/drill" } },
    /^cht-backup:drill.scratch: found "\/var\/tmp\/drill"; must be an absolute path .* nor below `\/tmp` or/,
  ],
  [
    "a drill in the CHT's own directory",
    { "cht-backup:drill": { scratch: "/home/ubuntu/cht/couchdb" } },
    /^cht-backup:drill.scratch: found "\/home\/ubuntu\/cht\/couchdb", where the drill's own directory would be in \/home\/ubuntu\/cht or hold it; must be elsewhere/,
  ],
  [
    "the CHT's data in the drill's own directory",
    {
      "cht-backup:cht": { couchdbData: ["/srv/data/cht-backup-moh/couchdb"] },
      "cht-backup:drill": { scratch: "/srv/data" },
    },
    /^cht-backup:drill.scratch: found "\/srv\/data", where .* would be in \/srv\/data\/cht-backup-moh\/couchdb or hold it;/,
  ],
  [
    "a drill among the server's repositories",
    { "cht-backup:drill": { machine: "server", manageDocker: false, scratch: "/srv/cht-backup/drill" } },
    /^cht-backup:drill.scratch: found "\/srv\/cht-backup\/drill", where .* would be in \/srv\/cht-backup or hold it;/,
  ],
  [
    "a drill on another machine with whatever image an archive names",
    { "cht-backup:drill": { machine: "server" } },
    /^cht-backup:drill.couchdbImage: missing for the machine server; must be the CHT's image with its digest there, /,
  ],
  [
    "a bucket without a name",
    { "cht-backup:bucket": { ...bucket, name: undefined } },
    /^cht-backup:bucket.name: missing; must be 3 to 63 lower-case letters/,
    ["cht-backup:bucket"],
  ],
  [
    "a bucket in no mode",
    { "cht-backup:bucket": { ...bucket, mode: undefined } },
    /^cht-backup:bucket.mode: missing; must be `compliance` or `governance`/,
    ["cht-backup:bucket"],
  ],
  [
    "a bucket that is switched on",
    { "cht-backup:bucket": true },
    /^cht-backup:bucket: found true; must be `none`, or a mapping of `name`, /,
  ],
  [
    "a bucket's secret in clear",
    { "cht-backup:bucket": bucket },
    /^cht-backup:bucket.secretAccessKey: found in clear; must be secret, for instance `npm run pulumi -- config set --secret --path 'cht-backup:bucket.secretAccessKey'`$/,
  ],
  [
    "a bucket's secret cut off",
    { "cht-backup:bucket": { ...bucket, secretAccessKey: "hunter2" } },
    /^cht-backup:bucket.secretAccessKey: found a value that isn't shown; must be 8 to 128 letters/,
    ["cht-backup:bucket"],
  ],
  [
    "a reader without a secret",
    { "cht-backup:bucket": { ...bucket, reader: { accessKeyId: "READER" } } },
    /^cht-backup:bucket.reader.secretAccessKey: missing; must be 8 to 128 letters/,
    ["cht-backup:bucket"],
  ],
  [
    "an endpoint with a path",
    { "cht-backup:bucket": { ...bucket, endpoint: "https://s3.example.org/moh" } },
    /^cht-backup:bucket.endpoint: found a value that isn't shown; must be an address of `https:\/\/`/,
    ["cht-backup:bucket"],
  ],
  [
    "a prefix that doesn't end",
    { "cht-backup:bucket": { ...bucket, prefix: "moh" } },
    /^cht-backup:bucket.prefix: found .*; must be letters, digits .*, ending in `\/`, for instance/,
    ["cht-backup:bucket"],
  ],
  [
    "locks that are lengthened every day",
    { "cht-backup:bucket": { ...bucket, keepDays: 60 } },
    /^cht-backup:bucket.lockDays: found 60 with keepDays 60; must be more: locks are lengthened in the days between$/,
    ["cht-backup:bucket"],
  ],
  [
    "copies so seldom that each is too old",
    { "cht-backup:bucket": { ...bucket, leastIntervalMinutes: 120, maxAgeHours: 2 } },
    /^cht-backup:bucket.leastIntervalMinutes: found 120 with maxAgeHours 2; must be less than these hours, or .* alarm/,
    ["cht-backup:bucket"],
  ],
  [
    "a check that reads back most of it",
    { "cht-backup:bucket": { ...bucket, readBack: "most" } },
    /^cht-backup:bucket.readBack: found .*; must be a whole number from 0 to 1000000, or `all`/,
    ["cht-backup:bucket"],
  ],
  [
    "an image whose tag may lead elsewhere tomorrow",
    { "cht-backup:drill": { couchdbImage: "couchdb:3.5.0" } },
    /^cht-backup:drill.couchdbImage: found "couchdb:3.5.0"; must be NAME@sha256: and 64/,
  ],
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
];

describe("wrong settings", () => {
  for (const [what, settings, line, secrets] of wrong) {
    it(`${what} is one clear line`, () => {
      const lines = mistakes(settings, secrets);
      assert.equal(lines.length, 1, lines.join("\n"));
      assert.match(lines[0] ?? "", line);
      assert.doesNotMatch(lines[0] ?? "", /hunter2/);
    });
  }

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

  it("include a stack whose name can't be the deployment's", () => {
    const lines = mistakes({}, [], "Prod_2");
    assert.match(
      lines.join(),
      /^cht-backup:deployment: missing, and the stack's name "Prod_2" can't stand in; must be /,
    );
    assert.equal(read({ "cht-backup:deployment": "prod" }, [], "Prod_2").deployment, "prod");
  });
});

describe("settings", () => {
  const limits = { commitsPerDay: 600, sessionDays: 45, idleHours: 48 };

  it("let a machine be reached over a jump host, by an ssh configuration, with a host key of RSA: the first backup, too, and a server's first boot", () => {
    const cht = { address: "a", jump: "bastion", configFile: "./ssh_config", hostKey: `ssh-rsa ${rsaKey}` };
    assert.deepEqual(mistakes({ "cht-backup:firstBackup": true, "host:machines": { ...machines, cht } }), []);
    const server = { jump: "bastion", configFile: "./ssh_config" };
    assert.deepEqual(mistakes(made({}, { "host:machines": { cht: machines.cht, server } })), []);
  });

  it("take what IAM takes as a tag's value", () => {
    const tags = { owner: "Wizara ya Afya", place: "Région de Dakar" };
    assert.deepEqual(mistakes(made({ tags: { ...tags, empty: "", mail: "a_b@c.org:1/2=3+4-5" } })), []);
  });

  it("turn networks into the form in which AWS reads them back", () => {
    const operatorNetworks = ["2001:DB8:7:0:0:0:0:0/48", "203.0.113.7/032", "2001:db8:0:0:1:0:0:1/128"];
    const chtNetworks = ["2001:DB8::9/128", "203.0.113.9/32"];
    const { aws } = read(made({ operatorNetworks: [...operatorNetworks, "198.51.100.0/24"], chtNetworks })).server;
    assert.deepEqual(aws?.operatorNetworks, [
      "2001:db8:7::/48",
      "203.0.113.7/32",
      "2001:db8::1:0:0:1/128",
      "198.51.100.0/24",
    ]);
    assert.deepEqual(aws?.chtNetworks, ["2001:db8::9/128", "203.0.113.9/32"]);
  });

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
      schedule: "*-*-* 02:00:00",
      randomDelay: "30min",
      compression: "zstd,3",
      chunker: "fixed,262144",
      uploadRate: 0,
      alerts: [],
      passphrase: undefined,
      firstBackup: false,
      recoveryKit: undefined,
      retention: { keepWithin: 7, daily: 14, weekly: 6, monthly: 4, yearly: 2 },
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

  it("lead the drill to the server by the way of its own machine", () => {
    const server = { address: "backup.example.org", port: 2222 };
    const way = (drill: Record<string, unknown>) =>
      read({
        "host:machines": { ...machines, server, third: { address: "c" } },
        "cht-backup:server": { address: "10.0.0.2", port: 23 },
        "cht-backup:drill": { manageDocker: false, ...drill },
      }).drill?.server;
    assert.deepEqual(way({ machine: "third" }), { address: "10.0.0.2", port: 23 });
    assert.deepEqual(way({ machine: "server" }), { address: "127.0.0.1", port: 2222 });
    const own = { serverAddress: "10.9.0.2", serverPort: 24 };
    assert.deepEqual(way({ machine: "third", ...own }), { address: "10.9.0.2", port: 24 });
    assert.deepEqual(way({ machine: "server", ...own }), { address: "10.9.0.2", port: 24 });
  });

  it("give the drill a directory of its own, wherever there is room", () => {
    const { drill } = read({ "cht-backup:drill": { scratch: "/home/ubuntu" } });
    assert.equal(drill?.scratch, "/home/ubuntu/cht-backup-moh");
  });

  it("can switch the drill off", () => {
    assert.equal(read({ "cht-backup:drill": { enabled: false, machine: "server" } }).drill, undefined);
  });

  it("lead to no bucket where they say so, or nothing", () => {
    assert.equal(read({ "cht-backup:bucket": "none" }).bucket, undefined);
  });

  it("need little for a bucket at AWS", () => {
    const writer = { accessKeyId: "WRITER", secretAccessKey: "hunter2+secret/key=" };
    assert.deepEqual(read({ "cht-backup:bucket": bucket }, ["cht-backup:bucket"]).bucket, {
      name: "moh-backup-copy",
      region: "us-east-1",
      endpoint: null,
      pathStyle: false,
      prefix: "moh/",
      mode: "governance",
      keepDays: 30,
      lockDays: 60,
      uploadRate: 0,
      storageClass: null,
      schedule: "*-*-* 06:00:00",
      leastIntervalMinutes: 30,
      checkSchedule: "Wed *-*-* 12:00:00",
      randomDelay: "30min",
      readBack: 20,
      maxAgeHours: 48,
      writer,
      reader: writer,
    });
  });

  it("take a bucket elsewhere, by its path, and another key for reading", () => {
    const reader = { accessKeyId: "READER", secretAccessKey: "hunter2-reader" };
    const elsewhere = {
      ...bucket,
      endpoint: "http://storage.lan:8333",
      reader,
      readBack: "all",
      prefix: "country/moh/",
    };
    const found = read({ "cht-backup:bucket": elsewhere }, ["cht-backup:bucket"]).bucket;
    assert.deepEqual(
      [found?.endpoint, found?.pathStyle, found?.reader, found?.readBack, found?.prefix],
      ["http://storage.lan:8333", true, reader, "all", "country/moh/"],
    );
  });

  it("take the server's address and port from its machine, unless the CHT machine has another way", () => {
    const server = { address: "a", port: 2222 };
    const taken = read({ "host:machines": { ...machines, server } }).server;
    assert.deepEqual([taken.address, taken.port], ["a", 2222]);
    const own = { address: "10.0.0.2", port: 23 };
    const given = read({ "host:machines": { ...machines, server }, "cht-backup:server": own }).server;
    assert.deepEqual([given.address, given.port], ["10.0.0.2", 23]);
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

  it("take what ssh takes", () => {
    const cht = {
      address: "2001:db8::1",
      user: "first.last",
      port: 2222,
      identityFile: "~/.ssh/id_ed25519",
      jump: "admin@bastion.example.org:2222,[2001:db8::2]",
      configFile: "./ssh config",
      hostKey: `ssh-ed25519 ${host}`,
      sudo: false,
    };
    const settings = read({ "host:machines": { ...machines, cht } });
    assert.deepEqual(settings.machines.cht, cht);
    assert.equal(
      sshCommandLine(settings.machines.cht, "uptime"),
      "ssh -F './ssh config' -i ~/.ssh/id_ed25519 -J 'admin@bastion.example.org:2222,[2001:db8::2]' -p 2222 " +
        "first.last@2001:db8::1 uptime",
    );
  });

  it("of the example Pulumi.prod.yaml are refused as long as anything isn't filled in, in a line each", () => {
    const { config } = parse(readFileSync(join(__dirname, "..", "..", "Pulumi.prod.yaml"), "utf8"));
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
    const text = readFileSync(join(__dirname, "..", "..", "Pulumi.staging.yaml"), "utf8");
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

const digest = `sha256:${"0f".repeat(32)}`;

/** Texts that the program which reads them takes, and others that it refuses. Tried with systemd 252; read in borg 1.4. */
const formats: [what: string, is: (text: string) => boolean, right: string[], wrong: string[]][] = [
  [
    "calendar expressions",
    isCalendar,
    [
      "*-*-* 02:00:00",
      "daily",
      "weekly Asia/Tokyo",
      "Mon",
      "Mon..Fri 02:00",
      "Sat,Sunday 4:30",
      "*:0/15",
      "02:00,14:00",
      "*-*-1..7 18:00:00",
      "*-*~1 2:00",
      "Mon *-05~07/1",
      "02:00 Europe/Berlin",
      "0/2:00",
    ],
    [
      "",
      "nightly",
      "*-*-* 24:00",
      "2:60",
      "2",
      "*",
      "Mon 02",
      "*-13-1",
      "12..4:00",
      "*/2:00",
      "Sat..Mon 1:0",
      "1:00 Mon",
      "02:00 Mars/X",
    ],
  ],
  [
    "time spans",
    isTimeSpan,
    ["0", "30min", "1h 30min", "1h30min", "5 seconds", "1.5h"],
    ["", "30", "1fortnight", "-1s", "1h "],
  ],
  [
    "compressions",
    isCompression,
    [
      "none",
      "lz4",
      "zstd",
      "zstd,1",
      "zstd,22",
      "zlib,0",
      "lzma,9",
      "auto,lzma",
      "auto,zstd,7",
      "obfuscate,110,zstd,3",
    ],
    [
      "",
      "gzip",
      "lz4,1",
      "zstd,0",
      "zstd,23",
      "zlib,10",
      "zstd,",
      "auto",
      "auto,auto,lz4",
      "obfuscate,7,lz4",
      "zstd,3,4",
    ],
  ],
  [
    "pinned images",
    isPinnedImage,
    [
      `couchdb@${digest}`,
      `couchdb:3.5.0@${digest}`,
      `public.ecr.aws/medic/cht-couchdb:4.21.1@${digest}`,
      `localhost:5000/a__b/c.d@${digest}`,
    ],
    [
      "",
      "couchdb:3.5.0",
      digest,
      `@${digest}`,
      `Couchdb@${digest}`,
      `couchdb@${digest}0`,
      `couch db@${digest}`,
      `-couchdb@${digest}`,
      `couchdb@${digest.toUpperCase()}`,
      `http://registry/couchdb@${digest}`,
    ],
  ],
  [
    "networks",
    isNetwork,
    ["203.0.113.7/32", "10.0.0.0/8", "198.51.100.0/24", "2001:db8::/32", "2001:db8::1/128", "2001::/16"],
    [
      "",
      "203.0.113.7",
      "203.0.113.7/24",
      "0.0.0.0/0",
      "128.0.0.0/1",
      "::/0",
      "2000::/3",
      "2001:db8::1/64",
      "fe80::1%eth0/128",
      "::ffff:203.0.113.7/128",
      "a/8",
      "10.0.0.0/8/8",
    ],
  ],
  [
    "endpoints",
    isEndpoint,
    ["https://s3.example.org", "http://storage:8333", "https://10.0.0.2:9000", "https://[2001:db8::3]:9000"],
    [
      "",
      "s3.example.org",
      "https://",
      "https://s3.example.org/",
      "https://user@s3.example.org",
      "ftp://s3",
      "https://a b",
    ],
  ],
  [
    "chunkers",
    isChunker,
    ["default", "fixed,262144", "fixed,4194304,512", "fixed,64", "buzhash,19,23,21,4095", "buzhash,16,20,18,4095"],
    [
      "",
      "fixed",
      "fixed,63",
      "fixed,20971480",
      "buzhash,19,23,24,4095",
      "buzhash,5,20,18,4095",
      "buzhash,16,20,18,4096",
      "fastcdc",
    ],
  ],
];

describe("formats", () => {
  for (const [what, is, right, wrong] of formats) {
    it(`of ${what} are told apart`, () => {
      assert.deepEqual([...right, ...wrong].filter(is), right);
    });
  }
});

describe("settings of a stack that makes its server", () => {
  it("need a region, keys and networks; the machine is logged in to as the one that its first boot makes", () => {
    const { region, operatorKeys, operatorNetworks } = aws;
    const settings = read({
      "host:machines": { cht: { address: "198.51.100.20" }, server: { identityFile: "~/.ssh/backup" } },
      "cht-backup:server": { aws: { region, operatorKeys, operatorNetworks } },
    });
    assert.deepEqual(settings.server.aws, {
      ...{ region, operatorKeys, operatorNetworks },
      chtNetworks: ["198.51.100.20/32"],
      instanceType: "t4g.small",
      image: "debian-13",
      dataGibibytes: 100,
      tags: {},
    });
    const { server } = settings.machines;
    assert.deepEqual(server, { address: "", user: "cht-admin", sudo: true, identityFile: "~/.ssh/backup" });
    assert.deepEqual([settings.server.address, settings.server.port], ["", 22]);
  });

  it("are completed by what the stack has made, where nothing else is said", () => {
    const reader = { accessKeyId: "READER", secretAccessKey: "hunter2/reader" };
    const before = read({ ...made({}), ...madeBucket({}) }, ["cht-backup:bucket"]);
    const after = withMade(before, { serverAddress: "192.0.2.9", bucketReader: reader });
    assert.equal(after.machines.server.address, "192.0.2.9");
    assert.equal(after.server.address, "192.0.2.9");
    assert.deepEqual(after.bucket?.reader, reader);
    const own = { "cht-backup:server": { address: "10.0.0.2", aws } };
    assert.equal(withMade(read({ ...made({}), ...own }), { serverAddress: "192.0.2.9" }).server.address, "10.0.0.2");
    const existing = read({});
    assert.deepEqual(withMade(existing, {}), existing);
  });
});

describe("docs/settings.md", () => {
  it("is what `npm run docs` writes", () => {
    assert.equal(readFileSync(referenceFile, "utf8"), reference(), "stale: npm run docs");
  });

  it("has texts for every setting", () => {
    const check = (schema: unknown, name: string): void => {
      const setting = schema as Parameters<typeof textsOf>[0];
      const { description, allowed } = textsOf(setting);
      assert.ok(description?.endsWith(".") && allowed !== undefined, name);
      const { shape, valueType } = core(setting) as { shape?: object; valueType?: unknown };
      for (const [key, inner] of Object.entries(shape ?? {})) check(inner, `${name}.${key}`);
      if (valueType !== undefined) check(valueType, `${name}.NAME`);
    };
    for (const [key, schema] of Object.entries(settingsSchema.shape)) check(schema, key);
  });
});
