import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { oldestCopy } from "../../components/restore-drill";
import { readSettings } from "../../config";
import { type Run, replaceSecrets, warned } from "./program";

const bucket = {
  name: "moh-backup-copy",
  endpoint: "https://s3.example.org",
  mode: "governance",
  maxAgeHours: 30,
  accessKeyId: "WRITER",
  secretAccessKey: "hunter2/writer",
  reader: { accessKeyId: "READER", secretAccessKey: "hunter2/reader" },
};

const machines = {
  cht: { address: "cht.example.org", user: "ubuntu" },
  server: { address: "backup.example.org" },
  third: { address: "drill.example.org" },
};

function settings(drill: Record<string, unknown>, changes: Record<string, unknown> = {}): Record<string, string> {
  const all = {
    "host:machines": machines,
    "cht-backup:drill": { manageDocker: false, ...drill },
    "cht-backup:bucket": bucket,
    ...changes,
  };
  const texts = Object.entries(all).map(([key, value]) => [key, JSON.stringify(value)]);
  return { ...Object.fromEntries(texts), "cht-backup:firstBackup": "false" };
}

/** What the program registers, by name. */
const registered = async (values: Record<string, string>) => (await warned(values, ["cht-backup:bucket"])).resources;

const hosts = (name: string) => readFileSync(join(__dirname, "..", "..", "hosts", name), "utf8");

describe("the settings of a drill from the bucket", () => {
  const mistakes = (drill: Record<string, unknown>, changes: Record<string, unknown> = {}) => {
    try {
      readSettings(settings(drill, changes), "moh", ["cht-backup:bucket"]);
      return [];
    } catch (error) {
      return (error as Error).message.split("\n  ").slice(1);
    }
  };
  const { reader: _, ...withoutReader } = bucket;

  it("need a bucket, and a key for reading alone", () => {
    assert.deepEqual(mistakes({ from: "bucket" }), []);
    assert.deepEqual(mistakes({ from: "alternating" }), []);
    for (const none of ["none", undefined]) {
      assert.deepEqual(mistakes({ from: "bucket" }, { "cht-backup:bucket": none }), [
        'cht-backup:drill.from: found "bucket" without a bucket; must be server, or cht-backup:bucket must say where the ' +
          "copies are (docs/bucket.md)",
      ]);
    }
    assert.deepEqual(mistakes({ from: "alternating" }, { "cht-backup:bucket": withoutReader }), [
      "cht-backup:bucket.reader: missing with cht-backup:drill.from alternating; must be a key for reading alone: the " +
        "writer's stays on the server",
    ]);
    assert.match(
      mistakes({ from: "tape" }).join(),
      /^cht-backup:drill.from: found "tape"; must be `server`, `bucket` or/,
    );
  });

  it("need neither for a drill from the server, or none", () => {
    assert.deepEqual(mistakes({}, { "cht-backup:bucket": "none" }), []);
    assert.deepEqual(mistakes({ from: "server" }, { "cht-backup:bucket": withoutReader }), []);
    assert.deepEqual(mistakes({ from: "bucket", enabled: false }, { "cht-backup:bucket": "none" }), []);
  });

  it("allow the newest copy a day more than the server's own alarm does", () => {
    assert.equal(oldestCopy(30), 54);
  });
});

describe("a drill from the bucket", function () {
  this.timeout(30_000);

  for (const machine of ["cht", "third"]) {
    describe(`on the machine ${machine}`, () => {
      let resources: Run["resources"];
      const inputs = (name: string) => {
        const found = resources.get(name);
        assert.ok(found, `${name} isn't registered`);
        return found.inputs;
      };
      before(async () => {
        resources = await registered(settings({ machine, from: "bucket" }));
      });

      it("brings the key for reading there, as a secret in a file of root's, and nowhere else", () => {
        const name = `drill-${machine}-bucket-credentials`;
        assert.deepEqual(inputs(name), {
          machine,
          path: "/etc/cht-backup/moh/bucket-credentials",
          mode: "0600",
          content: "[default]\naws_access_key_id = READER\naws_secret_access_key = hunter2/reader\n",
        });
        const shown = (of: unknown) => JSON.stringify(replaceSecrets(of, () => "(secret)"));
        assert.match(shown(resources.get(name)?.raw), /"content":"\(secret\)"/);
        const holders = (secret: string) =>
          [...resources].filter(([, of]) => JSON.stringify(of.inputs).includes(secret)).map(([holder]) => holder);
        assert.deepEqual(holders("hunter2/reader"), [name]);
        assert.deepEqual(holders("hunter2/writer"), ["bucket-credentials"]);
        for (const { raw } of resources.values()) assert.ok(!shown(raw).includes("hunter2"));
      });

      it("tells the drill where the bucket is, whose copies count and how old they may be", () => {
        const { from, bucket: place } = JSON.parse(String(inputs("drill-settings").content));
        assert.equal(from, "bucket");
        assert.deepEqual(place, {
          bucket: "moh-backup-copy",
          prefix: "moh/",
          region: "us-east-1",
          endpoint: "https://s3.example.org",
          pathStyle: true,
          credentials: "/etc/cht-backup/moh/bucket-credentials",
          repositories: ["f".repeat(64)],
          maxAgeHours: 54,
          python: "/opt/cht-backup/moh/bucket-venv/bin/python",
        });
      });

      it("has what the program that fetches needs", () => {
        assert.deepEqual(inputs(`drill-${machine}-bucket-environment`), {
          machine,
          path: "/opt/cht-backup/moh/bucket-venv",
          requirements: hosts("server/requirements.txt"),
        });
      });

      it("lets the daily look at what is overdue ask the bucket", () => {
        const content = String(inputs("drill-overdue-service").content);
        assert.match(content, /^PrivateNetwork=no$/m);
        assert.match(content, /^RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK$/m);
      });
    });
  }

  it("gives a machine of its own no key of the server's, and lets none in there", async () => {
    const own = async (from: string) => {
      const resources = await registered(settings({ machine: "third", from }));
      const names = [...resources.keys()].filter((name) => /^drill-third-(ssh|known)/.test(name)).sort();
      return [names, resources.get("server-authorized-key")?.inputs.otherKeys];
    };
    assert.deepEqual(await own("bucket"), [[], []]);
    assert.deepEqual(await own("alternating"), [
      ["drill-third-known-hosts", "drill-third-ssh-config", "drill-third-ssh-key"],
      ["ssh-ed25519 AAAAclient cht-backup-moh"],
    ]);
  });

  it("is the only one that brings the key for reading to a machine, and its look back the only one with a network", async () => {
    const resources = await registered(settings({ machine: "third" }));
    assert.ok(![...resources.values()].some((of) => JSON.stringify(of.inputs).includes("hunter2/reader")));
    const content = String(resources.get("drill-overdue-service")?.inputs.content);
    assert.match(content, /^PrivateNetwork=yes$/m);
    assert.match(content, /^RestrictAddressFamilies=AF_UNIX$/m);
    assert.deepEqual(
      [...resources.keys()].filter((name) => /bucket/.test(name) && resources.get(name)?.inputs.machine !== "server"),
      ["bucket-copy"],
    );
  });
});
