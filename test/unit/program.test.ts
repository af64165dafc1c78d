import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { MockMonitor } from "@pulumi/pulumi/runtime/mocks";

const passphrase = "hunter2 in a passphrase of many words";
const alert = "tgram://hunter2-token/1";

/** A resource as the program registers it with the engine. */
interface Registered {
  type: string;
  /** Inputs with secrets unwrapped. */
  inputs: Record<string, unknown>;
  /** Inputs as they go to the engine, secrets marked. */
  raw: unknown;
  parent: string;
  dependencies: string[];
  retained: boolean;
}

interface Run {
  resources: Map<string, Registered>;
  /** The stack's outputs as they go to the engine, secrets marked. */
  outputs: Record<string, unknown>;
}

const lastPart = (urn: string) => urn.slice(urn.lastIndexOf("::") + 2);

/** Marks of a secret in what goes to the engine (`specialSigKey` and `specialSecretSig` in the SDK's `rpc.ts`). */
const signature = "4dabf18193072939515e22adb298388d";
const secretMark = "1b47061264138c4ac30d75fd1eb44270";

/** A value as it goes to the engine, secrets replaced by what `secret` makes of them. */
function replaceSecrets(value: unknown, secret: (inner: unknown) => unknown): unknown {
  if (Array.isArray(value)) return value.map((element) => replaceSecrets(element, secret));
  if (typeof value !== "object" || value === null) return value;
  const object = value as Record<string, unknown>;
  if (object[signature] === secretMark) return secret(object.value);
  return Object.fromEntries(Object.entries(object).map(([key, inner]) => [key, replaceSecrets(inner, secret)]));
}

/** Runs the program, index.ts, as Pulumi would, and waits until everything is registered. */
async function runProgram(settings: Record<string, string>, secretKeys: string[] = []): Promise<Run> {
  const resources = new Map<string, Registered>();
  let outputs: Record<string, unknown> = {};
  const { registerResource, registerResourceOutputs } = MockMonitor.prototype;
  const environment = process.env.PULUMI_CONFIG_SECRET_KEYS;
  const answers: Record<string, Record<string, unknown>> = {
    "host:index:SshKey": { publicKey: "ssh-ed25519 AAAAclient cht-backup-moh" },
    "host:index:SshHostKey": { publicKey: "ssh-ed25519 AAAAserver" },
    "host:index:BorgRepository": { repositoryId: "f".repeat(64), exportedKey: "BORG_KEY hunter2" },
  };
  // The mocks don't hand over what a registration says about dependencies and about what is kept.
  MockMonitor.prototype.registerResource = async function (request, callback) {
    const raw = request.getObject().toJavaScript();
    resources.set(request.getName(), {
      type: request.getType(),
      inputs: replaceSecrets(raw, (inner) => inner) as Record<string, unknown>,
      raw,
      parent: lastPart(request.getParent()),
      dependencies: request.getDependenciesList().map(lastPart),
      retained: request.getRetainondelete(),
    });
    return registerResource.call(this, request, callback);
  };
  MockMonitor.prototype.registerResourceOutputs = function (request, callback) {
    if (request.getUrn().includes("pulumi:pulumi:Stack")) outputs = request.getOutputs().toJavaScript();
    registerResourceOutputs.call(this, request, callback);
  };
  try {
    await pulumi.runtime.setMocks(
      {
        newResource: ({ type, name, inputs }) => ({
          id: `${name}-id`,
          state: {
            ...inputs,
            ...(type === "host:index:Passphrase" ? { passphrase: inputs.value ?? "made on the machine" } : {}),
            ...answers[type],
          },
        }),
        call: ({ inputs }) => inputs,
      },
      "cht-backup",
      "moh",
    );
    pulumi.runtime.setAllConfig(settings, secretKeys);
    process.env.PULUMI_CONFIG_SECRET_KEYS = JSON.stringify(secretKeys);
    await pulumi.runtime.runInPulumiStack(async () => {
      delete require.cache[require.resolve("../../index")];
      return { ...require("../../index") };
    });
    await pulumi.runtime.disconnect();
    return { resources, outputs };
  } finally {
    Object.assign(MockMonitor.prototype, { registerResource, registerResourceOutputs });
    if (environment === undefined) delete process.env.PULUMI_CONFIG_SECRET_KEYS;
    else process.env.PULUMI_CONFIG_SECRET_KEYS = environment;
  }
}

/** Text of a file in hosts/. */
const hosts = (name: string) => readFileSync(join(__dirname, "..", "..", "hosts", name), "utf8");

const machines = {
  cht: { address: "cht.example.org", user: "ubuntu" },
  server: { address: "backup.example.org", port: 2222 },
};

const settings = {
  "host:machines": JSON.stringify(machines),
  "cht-backup:cht": JSON.stringify({ home: "/srv/cht", couchdbData: ["/srv/couchdb1", "/srv/couchdb2"] }),
  "cht-backup:server": JSON.stringify({ dataDirectory: "/mnt/backup", address: "10.0.0.2", reserveMebibytes: 64 }),
  "cht-backup:schedule": "*-*-* 03:00:00",
  "cht-backup:randomDelay": "1h",
  "cht-backup:compression": "zstd,9",
  "cht-backup:chunker": "fixed,1048576",
  "cht-backup:uploadRate": "512",
  "cht-backup:alerts": JSON.stringify([alert]),
  "cht-backup:passphrase": passphrase,
  "cht-backup:firstBackup": "false",
};
const secretKeys = ["cht-backup:alerts", "cht-backup:passphrase"];

describe("the program", function () {
  this.timeout(30_000);

  let run: Run;
  const resource = (name: string) => {
    const found = run.resources.get(name);
    assert.ok(found, `${name} isn't registered`);
    return found;
  };
  const text = (name: string) => String(resource(name).inputs.content);

  before(async () => {
    run = await runProgram(settings, secretKeys);
  });

  it("registers exactly what a deployment gets, each in its component", () => {
    const tree: Record<string, string[]> = {};
    for (const [name, { parent }] of run.resources) tree[parent] = [...(tree[parent] ?? []), name];
    for (const names of Object.values(tree)) names.sort();
    assert.deepEqual(tree, {
      "": ["cht-backup-moh"],
      "cht-backup-moh": ["backup-repository", "cht-backup", "offsite-server"],
      "offsite-server": [
        "server-borg",
        "server-host-key",
        "server-lock-cleanup",
        "server-login-limits",
        "server-repository-directory",
        "server-space-reserve",
        "server-user",
      ],
      "backup-repository": [
        "backup-passphrase",
        "borg-repository",
        "cht-borg",
        "cht-known-hosts",
        "cht-settings-directory",
        "cht-ssh-config",
        "cht-ssh-key",
        "cht-state-directory",
        "server-authorized-key",
      ],
      "cht-backup": [
        "alert-addresses",
        "backup-settings",
        "borgmatic-configuration",
        "borgmatic-environment",
        "cht-lock-cleanup",
        "cht-program-directory",
        "cht-python",
        "cht-script-directory",
        "failure-alert-service",
        "nightly-backup-service",
        "nightly-backup-timer",
        "script-alert",
        "script-backup",
        "script-couch-files",
        "script-manifest",
        "script-plan",
      ],
    });
  });

  /** Exact inputs; a file's text is looked at below. */
  const inputs: Record<string, Record<string, unknown>> = {
    "server-borg": { machine: "server", packages: ["borgbackup"], minimum: { borgbackup: "1.2.8" } },
    "server-user": { machine: "server", user: "cht-backup-moh", home: "/mnt/backup/moh" },
    "server-repository-directory": {
      machine: "server",
      path: "/mnt/backup/moh/repository",
      mode: "0700",
      owner: "cht-backup-moh",
      group: "cht-backup-moh",
    },
    "server-login-limits": {
      machine: "server",
      path: "/etc/ssh/sshd_config.d/50-cht-backup-moh.conf",
      validate:
        "/usr/sbin/sshd -t && { /usr/sbin/sshd -T -C user=cht-backup-moh,host=x,addr=192.0.2.1 | " +
        "grep -qixF 'forcecommand /usr/bin/borg serve --append-only --restrict-to-repository /mnt/backup/moh/repository' || " +
        "{ echo 'another setting of sshd takes the forced command from cht-backup-moh'; false; }; }",
      reload: "ssh.service",
    },
    "server-lock-cleanup": { machine: "server", path: "/etc/tmpfiles.d/cht-backup-moh.conf" },
    "server-space-reserve": { machine: "server", path: "/mnt/backup/moh/reserve", mebibytes: 64 },
    "server-host-key": { machine: "server" },
    "server-authorized-key": {
      machine: "server",
      user: "cht-backup-moh",
      publicKey: "ssh-ed25519 AAAAclient cht-backup-moh",
      command: "/usr/bin/borg serve --append-only --restrict-to-repository /mnt/backup/moh/repository",
    },
    "cht-borg": { machine: "cht", packages: ["borgbackup"], minimum: { borgbackup: "1.2.8" } },
    "cht-settings-directory": { machine: "cht", path: "/etc/cht-backup/moh", mode: "0700" },
    "cht-state-directory": { machine: "cht", path: "/var/lib/cht-backup/moh", mode: "0700" },
    "cht-ssh-key": { machine: "cht", path: "/etc/cht-backup/moh/ssh_key", comment: "cht-backup-moh" },
    "cht-known-hosts": { machine: "cht", path: "/etc/cht-backup/moh/known_hosts" },
    "cht-ssh-config": { machine: "cht", path: "/etc/cht-backup/moh/ssh_config" },
    "backup-passphrase": { machine: "cht", path: "/etc/cht-backup/moh/passphrase", value: passphrase },
    "borg-repository": {
      machine: "cht",
      location: "ssh://offsite/mnt/backup/moh/repository",
      server: "server",
      path: "/mnt/backup/moh/repository",
      rsh: "ssh -F /etc/cht-backup/moh/ssh_config",
      baseDirectory: "/var/lib/cht-backup/moh/borg",
      passphrase,
      encryption: "repokey-blake2",
    },
    "cht-python": { machine: "cht", packages: ["python3-venv"] },
    "cht-program-directory": { machine: "cht", path: "/opt/cht-backup/moh" },
    "cht-script-directory": { machine: "cht", path: "/opt/cht-backup/moh/bin" },
    "borgmatic-environment": {
      machine: "cht",
      path: "/opt/cht-backup/moh/venv",
      requirements: hosts("cht/requirements.txt"),
    },
    "backup-settings": { machine: "cht", path: "/etc/cht-backup/moh/settings.json" },
    "borgmatic-configuration": { machine: "cht", path: "/etc/cht-backup/moh/borgmatic.yaml" },
    "alert-addresses": { machine: "cht", path: "/etc/cht-backup/moh/alerts", mode: "0600" },
    "cht-lock-cleanup": { machine: "cht", path: "/etc/tmpfiles.d/cht-backup-moh.conf" },
    "failure-alert-service": { machine: "cht", unit: "cht-backup-moh-failed.service" },
    "nightly-backup-service": { machine: "cht", unit: "cht-backup-moh.service" },
    "nightly-backup-timer": { machine: "cht", unit: "cht-backup-moh.timer", enabled: true, active: true },
  };

  for (const [name, expected] of Object.entries(inputs)) {
    it(`gives ${name} exact inputs`, () => {
      const { content: _, ...others } = resource(name).inputs;
      assert.deepEqual(others, expected);
    });
  }

  it("lays down every script of hosts/cht as it is", () => {
    const scripts = readdirSync(join(__dirname, "..", "..", "hosts", "cht")).filter((file) => file.endsWith(".py"));
    const laid = [...run.resources.values()].filter(({ inputs }) => String(inputs.path).endsWith(".py"));
    assert.deepEqual(
      laid.map(({ inputs }) => inputs).sort((one, other) => (String(one.path) < String(other.path) ? -1 : 1)),
      scripts
        .sort()
        .map((file) => ({ machine: "cht", path: `/opt/cht-backup/moh/bin/${file}`, content: hosts(`cht/${file}`) })),
    );
  });

  it("writes the settings into the files of both machines", () => {
    assert.deepEqual(JSON.parse(text("backup-settings")), {
      deployment: "moh",
      chtHome: "/srv/cht",
      composeProject: "cht",
      couchdbData: ["/srv/couchdb1", "/srv/couchdb2"],
      repository: "ssh://offsite/mnt/backup/moh/repository",
    });
    assert.equal(text("cht-known-hosts"), "offsite ssh-ed25519 AAAAserver\n");
    assert.equal(text("alert-addresses"), `${alert}\n`);
    const lines: [string, RegExp[]][] = [
      ["cht-ssh-config", [/^ +HostName 10\.0\.0\.2$/m, /^ +Port 2222$/m, /^ +User cht-backup-moh$/m]],
      ["nightly-backup-timer", [/^OnCalendar=\*-\*-\* 03:00:00$/m, /^RandomizedDelaySec=1h$/m, /^Persistent=true$/m]],
      ["nightly-backup-service", [/^OnFailure=cht-backup-moh-failed\.service$/m]],
      ["borgmatic-configuration", [/zstd,9/, /fixed,1048576/, /^upload_rate_limit: 512$/m]],
      [
        "server-login-limits",
        [
          /^Match User cht-backup-moh$/m,
          /^ +ForceCommand \/usr\/bin\/borg serve --append-only --restrict-to-repository \/mnt\/backup\/moh\/repository$/m,
        ],
      ],
    ];
    for (const [name, expected] of lines) for (const line of expected) assert.match(text(name), line);
    for (const { inputs } of run.resources.values()) {
      assert.doesNotMatch(JSON.stringify(inputs.content ?? ""), /@[A-Z][A-Z0-9_]*@/, String(inputs.path));
    }
  });

  it("keeps exactly what must outlive the stack", () => {
    const kept = [...run.resources].filter(([, { retained }]) => retained).map(([name]) => name);
    assert.deepEqual(kept.sort(), [
      "backup-passphrase",
      "borg-repository",
      "server-repository-directory",
      "server-user",
    ]);
  });

  it("tells the engine every secret as one", () => {
    const withoutSecrets = JSON.stringify(
      [...run.resources.values(), run.outputs].map((value) =>
        replaceSecrets("raw" in value ? value.raw : value, () => ""),
      ),
    );
    assert.doesNotMatch(withoutSecrets, /hunter2/);
    assert.match(JSON.stringify([...run.resources.values()]), /hunter2/, "the secrets aren't where this test looks");
  });

  /** What must be there before another thing, and go after it. */
  const order: [later: string, earlier: string[]][] = [
    ["server-login-limits", ["server-user", "server-borg"]],
    ["server-repository-directory", ["server-user"]],
    ["server-authorized-key", ["server-login-limits", "server-repository-directory", "cht-ssh-key"]],
    ["cht-known-hosts", ["cht-settings-directory"]],
    ["backup-passphrase", ["cht-settings-directory"]],
    [
      "borg-repository",
      [
        "server-authorized-key",
        "cht-known-hosts",
        "cht-ssh-config",
        "backup-passphrase",
        "cht-borg",
        "server-borg",
        "cht-state-directory",
      ],
    ],
    ["cht-python", ["cht-borg"]],
    ["borgmatic-environment", ["cht-python", "cht-program-directory"]],
    ["script-backup", ["cht-script-directory"]],
    ["alert-addresses", ["cht-settings-directory"]],
    [
      "nightly-backup-timer",
      [
        "nightly-backup-service",
        "failure-alert-service",
        "borg-repository",
        "borgmatic-environment",
        "borgmatic-configuration",
        "backup-settings",
        "alert-addresses",
        "script-backup",
        "script-alert",
      ],
    ],
  ];

  for (const [later, earlier] of order) {
    it(`makes ${later} after what it needs`, () => {
      const before = new Set<string>();
      const collect = (name: string) => {
        for (const dependency of resource(name).dependencies) {
          if (!before.has(dependency)) {
            before.add(dependency);
            collect(dependency);
          }
        }
      };
      collect(later);
      assert.deepEqual(
        earlier.filter((name) => !before.has(name)),
        [],
      );
    });
  }

  it("tells the operator what to know", () => {
    const { recovery, repositoryId, ...outputs } = run.outputs;
    assert.equal(repositoryId, "f".repeat(64));
    assert.equal((recovery as Record<string, unknown>)[signature], secretMark);
    assert.deepEqual(
      replaceSecrets(recovery, (inner) => inner),
      { passphrase, key: "BORG_KEY hunter2" },
    );
    assert.deepEqual(Object.keys(outputs).sort(), ["commands", "deployment", "kept", "repository", "schedule"]);
    assert.equal(outputs.repository, "ssh://offsite/mnt/backup/moh/repository");
    const commands = outputs.commands as Record<string, string>;
    assert.equal(commands.backUpNow, "ssh ubuntu@cht.example.org 'sudo systemctl start cht-backup-moh.service'");
  });

  it("loads no SDK that its settings don't need", () => {
    const loaded = Object.keys(require.cache).filter((path) => /@pulumi\/(aws|command|docker)\//.test(path));
    assert.deepEqual(loaded, []);
  });
});

describe("the first backup", function () {
  this.timeout(30_000);

  it("is started once everything is in place, where the settings say so", async () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-key-"));
    try {
      const identityFile = join(folder, "key");
      writeFileSync(identityFile, "hunter2, a private key");
      const run = await runProgram({
        "host:machines": JSON.stringify({ ...machines, cht: { ...machines.cht, identityFile } }),
      });
      const command = run.resources.get("first-backup");
      assert.ok(command);
      assert.equal(command.type, "command:remote:Command");
      assert.equal(command.parent, "cht-backup");
      assert.ok(command.dependencies.includes("nightly-backup-timer"));
      assert.doesNotMatch(JSON.stringify(replaceSecrets(command.raw, () => "")), /hunter2/);
      const { connection, ...others } = command.inputs;
      assert.deepEqual(others, {
        create: "sudo -n systemctl start --no-block cht-backup-moh.service",
        triggers: ["f".repeat(64)],
      });
      const { host, port, user, privateKey } = connection as Record<string, unknown>;
      assert.deepEqual([host, port, user, privateKey], ["cht.example.org", 22, "ubuntu", "hunter2, a private key"]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("needs the key that the settings name", async () => {
    const cht = { ...machines.cht, identityFile: "/nowhere/key" };
    await assert.rejects(runProgram({ "host:machines": JSON.stringify({ ...machines, cht }) }), (error: Error) => {
      assert.ok(pulumi.RunError.isInstance(error));
      return /^host:machines.cht.identityFile: \/nowhere\/key can't be read \(ENOENT\); must be /.test(error.message);
    });
  });

  it("is left to the schedule where the settings say so; passphrase and alerts may be missing", async () => {
    const run = await runProgram({ "host:machines": JSON.stringify(machines), "cht-backup:firstBackup": "false" });
    assert.deepEqual(run.resources.get("backup-passphrase")?.inputs, {
      machine: "cht",
      path: "/etc/cht-backup/moh/passphrase",
    });
    assert.equal(run.resources.get("alert-addresses")?.inputs.content, "");
    assert.equal(run.resources.get("first-backup"), undefined);
  });
});
