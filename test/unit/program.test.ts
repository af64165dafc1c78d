import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { readHostFile } from "../../components/host-files";
import { type Registered, type Run, replaceSecrets, runProgram, secretMark, signature, warned } from "./program";

const passphrase = "hunter2 in a passphrase of many words";
const alert = "tgram://hunter2-token/1";
const bucket = {
  name: "moh-backup-copy",
  endpoint: "https://s3.example.org",
  mode: "compliance",
  lockDays: 90,
  storageClass: "GLACIER_IR",
  schedule: "07:00",
  checkSchedule: "Thu 08:00",
  randomDelay: "3min",
  accessKeyId: "WRITER",
  secretAccessKey: "hunter2/secret",
  reader: { accessKeyId: "READER", secretAccessKey: "hunter2/reader" },
};

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
  "cht-backup:drill": JSON.stringify({ manageDocker: false, schedule: "Sat 12:00", randomDelay: "5min", keep: 3 }),
  "cht-backup:bucket": JSON.stringify(bucket),
};
const secretKeys = ["cht-backup:alerts", "cht-backup:passphrase", "cht-backup:bucket"];

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

  /** What a drill has wherever it is. */
  const onEveryMachine = [
    "drill-alert-service",
    "drill-cleanup-service",
    "drill-overdue-service",
    "drill-overdue-timer",
    "drill-service",
    "drill-settings",
    "drill-timer",
    "script-drill",
    "script-reports",
    "script-restore",
    "script-verify",
  ];

  it("registers exactly what a deployment gets, each in its component", () => {
    const tree: Record<string, string[]> = {};
    for (const [name, { parent }] of run.resources) tree[parent] = [...(tree[parent] ?? []), name];
    for (const names of Object.values(tree)) names.sort();
    assert.deepEqual(tree, {
      "": ["cht-backup-moh"],
      "cht-backup-moh": ["backup-repository", "bucket-copy", "cht-backup", "offsite-server", "restore-drill"],
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
      "restore-drill": onEveryMachine,
      "bucket-copy": [
        "bucket-alert-addresses",
        "bucket-alert-service",
        "bucket-check-service",
        "bucket-check-timer",
        "bucket-copy-path",
        "bucket-copy-service",
        "bucket-copy-timer",
        "bucket-credentials",
        "bucket-environment",
        "bucket-program-directory",
        "bucket-protection",
        "bucket-rclone",
        "bucket-script-alert",
        "bucket-script-bucket",
        "bucket-script-bucket-copy",
        "bucket-script-copy-plan",
        "bucket-script-directory",
        "bucket-script-snapshot",
        "bucket-settings",
        "bucket-settings-directory",
        "bucket-snapshot-directory",
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
      ownsContents: true,
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
      otherKeys: [],
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
    "drill-settings": { machine: "cht", path: "/etc/cht-backup/moh/drill.json" },
    "drill-alert-service": { machine: "cht", unit: "cht-drill-moh-failed.service" },
    "drill-cleanup-service": { machine: "cht", unit: "cht-drill-moh-cleanup.service", enabled: true },
    "drill-service": { machine: "cht", unit: "cht-drill-moh.service" },
    "drill-timer": { machine: "cht", unit: "cht-drill-moh.timer", enabled: true, active: true },
    "drill-overdue-service": { machine: "cht", unit: "cht-drill-moh-overdue.service" },
    "drill-overdue-timer": { machine: "cht", unit: "cht-drill-moh-overdue.timer", enabled: true, active: true },
    "bucket-rclone": { machine: "server", packages: ["python3-venv", "rclone"], minimum: { rclone: "1.60" } },
    "bucket-settings-directory": {
      machine: "server",
      path: "/etc/cht-backup-bucket/moh",
      mode: "0750",
      group: "cht-backup-moh",
    },
    "bucket-program-directory": { machine: "server", path: "/opt/cht-backup-bucket/moh" },
    "bucket-script-directory": { machine: "server", path: "/opt/cht-backup-bucket/moh/bin" },
    "bucket-environment": {
      machine: "server",
      path: "/opt/cht-backup-bucket/moh/venv",
      requirements: hosts("server/requirements.txt"),
    },
    "bucket-snapshot-directory": {
      machine: "server",
      path: "/mnt/backup/moh/snapshot",
      mode: "0700",
      owner: "cht-backup-moh",
      group: "cht-backup-moh",
      ownsContents: true,
    },
    "bucket-settings": { machine: "server", path: "/etc/cht-backup-bucket/moh/bucket.json" },
    "bucket-credentials": { machine: "server", path: "/etc/cht-backup-bucket/moh/credentials", mode: "0600" },
    "bucket-alert-addresses": { machine: "server", path: "/etc/cht-backup-bucket/moh/alerts", mode: "0600" },
    "bucket-alert-service": { machine: "server", unit: "cht-bucket-failed-moh.service" },
    "bucket-copy-service": { machine: "server", unit: "cht-bucket-copy-moh.service" },
    "bucket-copy-path": { machine: "server", unit: "cht-bucket-copy-moh.path", enabled: true, active: true },
    "bucket-copy-timer": { machine: "server", unit: "cht-bucket-copy-moh.timer", enabled: true, active: true },
    "bucket-check-service": { machine: "server", unit: "cht-bucket-check-moh.service" },
    "bucket-check-timer": { machine: "server", unit: "cht-bucket-check-moh.timer", enabled: true, active: true },
    "bucket-protection": {
      machine: "server",
      bucket: "moh-backup-copy",
      programs: "/opt/cht-backup-bucket/moh",
      settings: "/etc/cht-backup-bucket/moh/bucket.json",
      mode: "COMPLIANCE",
      days: 90,
    },
  };

  for (const [name, expected] of Object.entries(inputs)) {
    it(`gives ${name} exact inputs`, () => {
      const { content: _, ...others } = resource(name).inputs;
      assert.deepEqual(others, expected);
    });
  }

  it("lays down every script of the backup and of the drill as it is", () => {
    const scripts = [
      ...readdirSync(join(__dirname, "..", "..", "hosts", "cht"))
        .filter((file) => file.endsWith(".py"))
        .map((file) => `cht/${file}`),
      "restore/restore.py",
      "restore/verify.py",
      "drill/drill.py",
      "drill/reports.py",
    ];
    const laid = [...run.resources.values()].filter(
      ({ inputs }) => inputs.machine === "cht" && String(inputs.path).endsWith(".py"),
    );
    const path = (script: string) => `/opt/cht-backup/moh/bin/${basename(script)}`;
    assert.deepEqual(
      laid.map(({ inputs }) => inputs).sort((one, other) => (String(one.path) < String(other.path) ? -1 : 1)),
      scripts
        .sort((one, other) => (path(one) < path(other) ? -1 : 1))
        .map((script) => ({ machine: "cht", path: path(script), content: hosts(script) })),
    );
  });

  it("lays down every script of the copy to the bucket as it is", () => {
    const scripts = readdirSync(join(__dirname, "..", "..", "hosts", "server"))
      .filter((file) => file.endsWith(".py"))
      .map((file) => `server/${file}`);
    const laid = [...run.resources.values()].filter(
      ({ inputs }) => inputs.machine === "server" && String(inputs.path).endsWith(".py"),
    );
    assert.deepEqual(
      new Map(laid.map(({ inputs }) => [inputs.path, inputs.content])),
      new Map(
        [...scripts, "cht/alert.py"].map((file) => [`/opt/cht-backup-bucket/moh/bin/${basename(file)}`, hosts(file)]),
      ),
    );
  });

  it("writes the settings into the files of both machines", () => {
    assert.deepEqual(JSON.parse(text("bucket-settings")), {
      deployment: "moh",
      repository: "/mnt/backup/moh/repository",
      snapshot: "/mnt/backup/moh/snapshot",
      state: "/var/lib/cht-backup-bucket/moh",
      endpoint: "https://s3.example.org",
      region: "us-east-1",
      bucket: "moh-backup-copy",
      prefix: "moh/",
      pathStyle: true,
      credentials: "/etc/cht-backup-bucket/moh/credentials",
      mode: "COMPLIANCE",
      keepDays: 30,
      lockDays: 90,
      lockWait: 600,
      maxAge: 48,
      uploadRate: 0,
      storageClass: "GLACIER_IR",
      readBack: 20,
    });
    assert.equal(
      text("bucket-credentials"),
      "[default]\naws_access_key_id = WRITER\naws_secret_access_key = hunter2/secret\n",
    );
    assert.equal(text("bucket-alert-addresses"), `${alert}\n`);
    assert.deepEqual(JSON.parse(text("backup-settings")), {
      deployment: "moh",
      chtHome: "/srv/cht",
      composeProject: "cht",
      couchdbData: ["/srv/couchdb1", "/srv/couchdb2"],
      repository: "ssh://offsite/mnt/backup/moh/repository",
    });
    assert.deepEqual(JSON.parse(text("drill-settings")), {
      deployment: "moh",
      repository: "ssh://offsite/mnt/backup/moh/repository",
      scratch: "/var/lib/cht-backup/moh/drill",
      scratchGibibytes: 0,
      keep: 3,
      overdueAfterDays: 9,
      network: "cht-drill-moh",
      image: null,
      pull: true,
      memoryMebibytes: 2048,
      cpus: 1,
    });
    assert.equal(text("cht-known-hosts"), "offsite ssh-ed25519 AAAAserver\n");
    assert.equal(text("alert-addresses"), `${alert}\n`);
    const lines: [string, RegExp[]][] = [
      ["cht-ssh-config", [/^ +HostName 10\.0\.0\.2$/m, /^ +Port 2222$/m, /^ +User cht-backup-moh$/m]],
      ["nightly-backup-timer", [/^OnCalendar=\*-\*-\* 03:00:00$/m, /^RandomizedDelaySec=1h$/m, /^Persistent=true$/m]],
      ["nightly-backup-service", [/^OnFailure=cht-backup-moh-failed\.service$/m]],
      ["drill-timer", [/^OnCalendar=Sat 12:00$/m, /^RandomizedDelaySec=5min$/m]],
      [
        "drill-service",
        [/^OnFailure=cht-drill-moh-cleanup\.service cht-drill-moh-failed\.service$/m, /^ExecStart=.* run /m],
      ],
      ["drill-cleanup-service", [/^OnFailure=cht-drill-moh-failed\.service$/m, /^ExecStart=.* cleanup /m]],
      ["drill-overdue-service", [/^OnFailure=cht-drill-moh-failed\.service$/m, /^ExecStart=.* overdue /m]],
      ["drill-alert-service", [/^ExecStart=.*alert\.py --about drill \/etc\/cht-backup\/moh\/drill\.json$/m]],
      ["bucket-copy-path", [/^PathChanged=\/mnt\/backup\/moh\/repository\/transactions$/m]],
      ["bucket-copy-timer", [/^OnCalendar=07:00$/m, /^RandomizedDelaySec=3min$/m, /^Persistent=true$/m]],
      ["bucket-check-timer", [/^OnCalendar=Thu 08:00$/m, /^RandomizedDelaySec=3min$/m]],
      [
        "bucket-copy-service",
        [
          /^OnFailure=cht-bucket-failed-moh\.service$/m,
          /^User=cht-backup-moh$/m,
          /^ReadWritePaths=\/mnt\/backup\/moh$/m,
          /^LoadCredential=bucket:\/etc\/cht-backup-bucket\/moh\/credentials$/m,
          /^StateDirectory=cht-backup-bucket\/moh$/m,
        ],
      ],
      ["bucket-check-service", [/^OnFailure=cht-bucket-failed-moh\.service$/m, /^ExecStart=.*\.py check \/etc/m]],
      ["bucket-alert-service", [/^ExecStart=.*alert\.py --about bucket \/etc\/cht-backup-bucket\/moh\/bucket\.json$/m]],
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
    [
      "drill-timer",
      [
        "drill-service",
        "drill-alert-service",
        "drill-settings",
        "borgmatic-environment",
        "alert-addresses",
        "script-drill",
        "script-restore",
        "script-verify",
        "script-backup",
      ],
    ],
    ["drill-overdue-timer", ["drill-overdue-service", "drill-alert-service"]],
    ["bucket-credentials", ["bucket-settings-directory", "server-user"]],
    ["bucket-environment", ["bucket-rclone", "bucket-program-directory"]],
    ["bucket-script-snapshot", ["bucket-script-directory"]],
    ...["bucket-copy-path", "bucket-copy-timer", "bucket-check-timer"].map((trigger): [string, string[]] => [
      trigger,
      [
        trigger.replace(/-(path|timer)$/, "-service"),
        "bucket-alert-service",
        "bucket-settings",
        "bucket-credentials",
        "bucket-alert-addresses",
        "bucket-environment",
        "bucket-snapshot-directory",
        "bucket-script-bucket-copy",
        "bucket-script-alert",
        "server-borg",
      ],
    ]),
    ["bucket-protection", ["bucket-copy-path", "bucket-copy-timer", "bucket-check-timer"]],
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
      { passphrase, key: "BORG_KEY hunter2", hostKey: "ssh-ed25519 AAAAserver" },
    );
    assert.deepEqual(Object.keys(outputs).sort(), [
      "commands",
      "deployment",
      "kept",
      "monthlyCost",
      "repository",
      "schedule",
    ]);
    assert.equal(outputs.repository, "ssh://offsite/mnt/backup/moh/repository");
    const commands = outputs.commands as Record<string, string>;
    assert.equal(commands.backUpNow, "ssh ubuntu@cht.example.org 'sudo systemctl start cht-backup-moh.service'");
  });

  it("loads no SDK that its settings don't need", async () => {
    const cloud = /@pulumi\/(aws|command|docker)\//;
    // Tests before this one may have loaded the SDKs, and the parts of the program that use them.
    for (const path of Object.keys(require.cache)) {
      if (cloud.test(path) || /^(?!.*node_modules).*\/(components|docs)\//.test(path)) delete require.cache[path];
    }
    await warned(settings, secretKeys);
    assert.deepEqual(
      Object.keys(require.cache).filter((path) => cloud.test(path)),
      [],
    );
  });
});

describe("the first backup", function () {
  this.timeout(30_000);

  it("is made once everything is in place, where the settings say so", async () => {
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
      // It runs once for each repository, and for nothing else: then where the machine is by then, and by today's key.
      assert.equal(command.replacementTrigger, "f".repeat(64));
      assert.deepEqual(command.ignored, []);
      assert.deepEqual(others, {
        create: "sudo -n bash -s -- cht-backup-moh.service",
        stdin: readHostFile("cht/first_backup.sh"),
        update: "true",
        addPreviousOutputInEnv: false,
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

describe("the third copy", function () {
  this.timeout(30_000);

  const bucketIs = (value: object | "none") =>
    warned(
      { ...settings, "cht-backup:bucket": value === "none" ? value : JSON.stringify({ ...bucket, ...value }) },
      secretKeys,
    );

  it("that there isn't puts nothing anywhere, and each up says that 3-2-1 isn't met", async () => {
    const { resources, said, outputs } = await bucketIs("none");
    assert.deepEqual(
      [...resources].filter(([name, { inputs }]) => /bucket/.test(`${name} ${inputs.path} ${inputs.unit}`)),
      [],
    );
    assert.equal(said.filter((text) => /no third copy.*3-2-1 .* isn't met/.test(text)).length, 1, said.join());
    assert.equal((outputs.kept as Record<string, string>).bucket, undefined);
  });

  it("in compliance mode is said to be final before it is made", async () => {
    const { said } = await bucketIs({});
    assert.equal(
      said.filter((text) => /compliance, which is final: .* moh-backup-copy .* for 90 days/.test(text)).length,
      1,
      said.join(),
    );
  });

  it("in governance mode needs no warning, and says what a destroy would leave", async () => {
    const { said, outputs, resources } = await bucketIs({ mode: "governance", prefix: "country/moh/" });
    assert.deepEqual(
      said.filter((text) => /bucket/.test(text)),
      [],
    );
    assert.equal(resources.get("bucket-protection")?.inputs.mode, "GOVERNANCE");
    assert.match((outputs.kept as Record<string, string>).bucket ?? "", /^moh-backup-copy\/country\/moh\/, /);
  });

  it("gives its key to the server alone, and the reader's to no machine", async () => {
    const { resources } = await bucketIs({});
    const holders = (secret: string) =>
      [...resources].filter(([, { inputs }]) => JSON.stringify(inputs).includes(secret)).map(([name]) => name);
    assert.deepEqual(holders("hunter2/secret"), ["bucket-credentials"]);
    assert.deepEqual(holders("hunter2/reader"), []);
  });
});

describe("the drill", function () {
  this.timeout(30_000);

  const image = `couchdb@sha256:${"0f".repeat(32)}`;
  const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDchlaMSlsqghPIoqQnY3dW3bNcFuEd9egd7VQ/ugsoX";
  const third = {
    address: "2001:db8::3",
    user: "ops",
    port: 2222,
    identityFile: "~/.ssh/drill",
    jump: "admin@bastion.example.org",
    configFile: "./ssh_config",
    hostKey,
  };

  const drillOn = (drill: Record<string, unknown>) =>
    warned(
      {
        ...settings,
        "host:machines": JSON.stringify({ ...machines, third }),
        "cht-backup:drill": JSON.stringify(drill),
      },
      secretKeys,
    );
  const on = (run: Run, machine: string) =>
    [...run.resources].filter(([, { inputs }]) => inputs.machine === machine).map(([name]) => name);

  it("that is switched off puts nothing anywhere, and says at each up that nothing is proven", async () => {
    const { resources, said } = await drillOn({ enabled: false });
    assert.deepEqual(
      [...resources].filter(([name, { inputs }]) => /drill/.test(`${name} ${inputs.path} ${inputs.unit}`)),
      [],
    );
    assert.equal(said.filter((text) => /drill is switched off: nothing proves that/.test(text)).length, 1, said.join());
  });

  it("on the CHT machine brings no other machine a key or the passphrase", async () => {
    const run = await drillOn({ manageDocker: false });
    assert.deepEqual(on(run, "third"), []);
    const holders = [...run.resources].filter(([, { inputs }]) => String(inputs.path).endsWith("/passphrase"));
    assert.deepEqual(
      holders.map(([, { inputs }]) => inputs.machine),
      ["cht"],
    );
    assert.deepEqual(run.resources.get("server-authorized-key")?.inputs.otherKeys, []);
  });

  for (const machine of ["server", "third"]) {
    describe(`on the machine ${machine}`, () => {
      let run: Run;
      const resource = (name: string) => {
        const found = run.resources.get(name);
        assert.ok(found, `${name} isn't registered`);
        return found;
      };
      const own = (name: string) => resource(`drill-${machine}-${name}`);
      before(async () => {
        run = await drillOn({ machine, manageDocker: false, scratch: "/mnt/scratch" });
      });

      it("has everything that it needs there, and the CHT machine nothing of it", () => {
        const parts = [
          "alert-addresses",
          "borg",
          "borgmatic-environment",
          "docker-compose",
          "docker-engine",
          "known-hosts",
          "lock-cleanup",
          "passphrase",
          "program-directory",
          "python",
          "script-alert",
          "script-backup",
          "script-couch-files",
          "script-directory",
          "script-manifest",
          "script-plan",
          "settings-directory",
          "ssh-config",
          "ssh-key",
          "state-directory",
        ].map((part) => `drill-${machine}-${part}`);
        const units = [...run.resources].filter(([, { parent }]) => parent === "restore-drill").map(([name]) => name);
        assert.deepEqual(
          on(run, machine)
            .filter((name) => !/^(server|bucket)-/.test(name))
            .sort(),
          [...new Set([...parts, ...units])].sort(),
        );
        assert.ok(units.includes("drill-timer"));
        // Not the operator's own directory, whose mode it would change.
        assert.equal(resource("drill-scratch-directory").inputs.path, "/mnt/scratch/cht-backup-moh");
        const { scratch, pull } = JSON.parse(String(resource("drill-settings").inputs.content));
        assert.deepEqual({ scratch, pull }, { scratch: "/mnt/scratch/cht-backup-moh", pull: false });
        assert.match(
          String(resource("drill-service").inputs.content),
          /^ReadWritePaths=-\/mnt\/scratch\/cht-backup-moh$/m,
        );
      });

      it("gets the passphrase as a secret that only root reads there", () => {
        const { inputs, raw, retained } = own("passphrase");
        assert.deepEqual(inputs, {
          machine,
          path: "/etc/cht-backup/moh/passphrase",
          mode: "0600",
          content: `${passphrase}\n`,
        });
        assert.equal(retained, false, "it must go with the drill");
        const shown = [...run.resources.values()].map(({ raw }) => replaceSecrets(raw, () => ""));
        assert.doesNotMatch(JSON.stringify(shown), /hunter2/);
        assert.match(JSON.stringify(raw), /hunter2/);
      });

      it("has a key of its own, which the server lets in beside the CHT machine's, for the same command", () => {
        assert.deepEqual(own("ssh-key").inputs, {
          machine,
          path: "/etc/cht-backup/moh/ssh_key",
          comment: "cht-backup-moh",
        });
        const { otherKeys, command } = resource("server-authorized-key").inputs;
        assert.deepEqual(otherKeys, ["ssh-ed25519 AAAAclient cht-backup-moh"]);
        assert.match(String(command), /^\/usr\/bin\/borg serve --append-only --restrict-to-repository /);
        assert.ok(resource("server-authorized-key").dependencies.includes(`drill-${machine}-ssh-key`));
        assert.equal(own("known-hosts").inputs.content, "offsite ssh-ed25519 AAAAserver\n");
      });

      it("reaches the server by its own way", () => {
        const [address, port] = machine === "server" ? ["127.0.0.1", 2222] : ["10.0.0.2", 2222];
        const text = String(own("ssh-config").inputs.content);
        assert.match(text, new RegExp(`^ +HostName ${address}$`, "m"));
        assert.match(text, new RegExp(`^ +Port ${port}$`, "m"));
      });

      it("says what a destroy would leave there", () => {
        const { drills } = run.outputs.kept as Record<string, string>;
        assert.match(drills ?? "", new RegExp(`^${machine}: /var/lib/cht-backup/moh, reports of drills`));
      });

      it("starts when all of that is there", () => {
        const { dependencies } = resource("drill-alert-service");
        for (const part of [
          "borgmatic-environment",
          "script-backup",
          "alert-addresses",
          "passphrase",
          "docker-compose",
        ]) {
          assert.ok(dependencies.includes(`drill-${machine}-${part}`), part);
        }
      });
    });
  }

  it("keeps its network and its image by the Docker plugin, over the same way as everything else", async () => {
    const run = await drillOn({ machine: "third", couchdbImage: image });
    const { type, inputs } = run.resources.get("drill-third-docker") as Registered;
    assert.equal(type, "pulumi:providers:docker");
    assert.equal(inputs.host, "ssh://ops@[2001:db8::3]:2222");
    const sshOpts = JSON.parse(String(inputs.sshOpts)) as string[];
    const pairs = sshOpts.flatMap((word, index) => (/^-[oFiJ]$/.test(word) ? [`${word} ${sshOpts[index + 1]}`] : []));
    assert.equal(pairs.length * 2, sshOpts.length);
    for (const expected of [
      "-F ./ssh_config",
      "-J admin@bastion.example.org",
      "-o StrictHostKeyChecking=yes",
      "-o HostKeyAlias=pinned",
      "-o UserKnownHostsFile=/dev/null",
      `-o KnownHostsCommand=/bin/echo pinned ${hostKey}`,
      "-o BatchMode=yes",
    ]) {
      assert.ok(pairs.includes(expected), `${expected} isn't in ${pairs.join(", ")}`);
    }
    assert.ok(pairs.some((pair) => /^-i .*\/\.ssh\/drill$/.test(pair) && !pair.includes("~")));
    const provided = [...run.resources]
      .filter(([, resource]) => resource.type.startsWith("docker:"))
      .sort(([one], [other]) => (one < other ? 1 : -1));
    assert.deepEqual(
      provided.map(([name, { type, inputs, provider }]) => ({ name, type, inputs, provider })),
      [
        {
          name: "drill-third-network",
          type: "docker:index/network:Network",
          inputs: { name: "cht-drill-moh", internal: true },
          provider: "drill-third-docker",
        },
        {
          name: "drill-third-image",
          type: "docker:index/remoteImage:RemoteImage",
          inputs: { name: image, keepLocally: true },
          provider: "drill-third-docker",
        },
      ],
    );
    assert.ok(run.resources.get("drill-alert-service")?.dependencies.includes("drill-third-network"));
    assert.equal(JSON.parse(String(run.resources.get("drill-settings")?.inputs.content)).image, image);
  });

  it("on the CHT machine takes the engine that is there, and the image that the archive names", async () => {
    const run = await drillOn({});
    assert.equal(run.resources.get("drill-cht-docker")?.inputs.host, "ssh://ubuntu@cht.example.org");
    assert.match(String(run.resources.get("drill-cht-docker")?.inputs.sshOpts), /StrictHostKeyChecking=accept-new/);
    assert.deepEqual(run.resources.get("drill-cht-network")?.inputs, { name: "cht-drill-moh", internal: true });
    assert.equal(run.resources.get("drill-cht-image"), undefined);
    assert.deepEqual(
      [...run.resources].filter(([, { inputs }]) => /docker/.test(String(inputs.packages))),
      [],
    );
  });
});
