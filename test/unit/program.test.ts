import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { borgPackage } from "../../components/borg";
import { adopted, withoutAnswer } from "../../components/drill-docker";
import { readHostFile } from "../../components/host-files";
import { loginLimitsHold } from "../../components/login-limits";
import { recoverProgram } from "../../components/recover-program";
import { serveCommand } from "../../components/repository-guard";
import { clearing } from "../../operations/left-behind";
import {
  answers,
  type Registered,
  type Run,
  replaceSecrets,
  runProgram,
  secretMark,
  signature,
  warned,
} from "./program";

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
  ];

  it("leaves nothing on a machine that had the CHT before which the command for clearing it doesn't name", () => {
    const command = clearing("moh", true);
    const removed = [...(/rm -rf ([^;]*);/.exec(command)?.[1] ?? "").split(" ")];
    for (const [name, { inputs }] of run.resources) {
      if (inputs.machine !== "cht") continue;
      const path = inputs.unit === undefined ? inputs.path : `/etc/systemd/system/${inputs.unit}`;
      if (typeof path !== "string" || path.startsWith("/mnt/backup/")) continue; // the server's
      assert.ok(
        removed.some((of) => path === of || String(path).startsWith(`${of}/`)),
        `${name}: ${path}`,
      );
      const starts = /\[Install\]/.test(String(inputs.content));
      if (inputs.unit !== undefined && starts) assert.match(command, new RegExp(`disable --now [^;]*${inputs.unit}`));
    }
  });

  it("registers exactly what a deployment gets, each in its component", () => {
    const tree: Record<string, string[]> = {};
    for (const [name, { parent }] of run.resources) tree[parent] = [...(tree[parent] ?? []), name];
    for (const names of Object.values(tree)) names.sort();
    assert.deepEqual(tree, {
      "": ["cht-backup-moh"],
      "cht-backup-moh": [
        "backup-repository",
        "backups-so-far",
        "bucket-copy",
        "cht-backup",
        "cht-watch",
        "offsite-server",
        "restore-drill",
        "server-watch",
      ],
      "offsite-server": [
        "repository-guard",
        "server-borg",
        "server-host-key",
        "server-lock-cleanup",
        "server-login-limits",
        "server-repository-directory",
        "server-space-reserve",
        "server-user",
      ],
      "repository-guard": [
        "repository-alert-later-path",
        "repository-alert-later-service",
        "repository-alert-service",
        "repository-audit-path",
        "repository-audit-service",
        "repository-audit-timer",
        "repository-seal",
        "repository-seal-path",
        "repository-seal-service",
        "server-alert-addresses",
        "server-alert-environment",
        "server-program-directory",
        "server-programs",
        "server-python",
        "server-repository-settings",
        "server-settings-directory",
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
        "alert-later-path",
        "alert-later-service",
        "backup-settings",
        "borgmatic-environment",
        "cht-lock-cleanup",
        "cht-program-directory",
        "cht-programs",
        "cht-python",
        "failure-alert-service",
        "nightly-backup-service",
        "nightly-backup-timer",
      ],
      "restore-drill": onEveryMachine,
      "cht-watch": ["watch-pings", "watch-service", "watch-settings", "watch-timer"],
      "server-watch": ["server-watch-pings", "server-watch-service", "server-watch-settings", "server-watch-timer"],
      "bucket-copy": [
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
        "bucket-settings",
        "bucket-settings-directory",
        "bucket-snapshot-directory",
      ],
    });
  });

  /** Exact inputs; a file's text is looked at below. */
  const inputs: Record<string, Record<string, unknown>> = {
    "backups-so-far": {
      machine: "server",
      deployment: "moh",
      path: "/mnt/backup/moh/repository",
      account: "cht-backup-moh",
      note: "/var/lib/cht-backup-server/moh/adopted.json",
      client: "cht",
      clientSettings: "/etc/cht-backup/moh",
      baseDirectory: "/var/lib/cht-backup/moh/borg",
      home: "/srv/cht",
      chunker: "fixed,1048576",
      bucket: "moh-backup-copy/moh/ at https://s3.example.org",
      bucketFile: "/etc/cht-backup-bucket/moh/bucket.json",
      passphrase,
    },
    "server-borg": { machine: "server", ...borgPackage("/opt/cht-backup-server/moh") },
    "server-user": { machine: "server", user: "cht-backup-moh", home: "/mnt/backup/moh" },
    "server-repository-directory": {
      machine: "server",
      path: "/mnt/backup/moh/repository",
      mode: "1770",
      group: "cht-backup-moh",
    },
    "server-python": { machine: "server", packages: ["python3-venv"] },
    "server-settings-directory": { machine: "server", path: "/etc/cht-backup-server/moh" },
    "server-program-directory": { machine: "server", path: "/opt/cht-backup-server/moh" },
    "server-programs": {
      machine: "server",
      path: "/opt/cht-backup-server/moh/chtbackup",
      source: "hosts/chtbackup",
      validate: "/usr/bin/python3 -I -B /opt/cht-backup-server/moh/chtbackup guard --check",
    },
    "server-alert-environment": {
      machine: "server",
      path: "/opt/cht-backup-server/moh/venv",
      requirements: hosts("server/alert-requirements.txt"),
    },
    "server-alert-addresses": { machine: "server", path: "/etc/cht-backup-server/moh/alerts", mode: "0600" },
    "server-repository-settings": { machine: "server", path: "/etc/cht-backup-server/moh/repository.json" },
    "repository-alert-later-service": { machine: "server", unit: "cht-repository-alert-later-moh.service" },
    "repository-alert-later-path": {
      machine: "server",
      unit: "cht-repository-alert-later-moh.path",
      enabled: true,
      active: true,
    },
    "repository-alert-service": { machine: "server", unit: "cht-repository-failed-moh.service" },
    "repository-seal-service": { machine: "server", unit: "cht-repository-seal-moh.service" },
    "repository-seal-path": {
      machine: "server",
      unit: "cht-repository-seal-moh.path",
      enabled: true,
      active: true,
    },
    "repository-audit-service": { machine: "server", unit: "cht-repository-audit-moh.service" },
    "repository-audit-path": {
      machine: "server",
      unit: "cht-repository-audit-moh.path",
      enabled: true,
      active: true,
    },
    "repository-audit-timer": {
      machine: "server",
      unit: "cht-repository-audit-moh.timer",
      enabled: true,
      active: true,
    },
    "repository-seal": {
      machine: "server",
      path: "/mnt/backup/moh/repository",
      program: "/opt/cht-backup-server/moh/chtbackup",
      settings: "/etc/cht-backup-server/moh/repository.json",
      recover: recoverProgram().sha256,
    },
    "server-login-limits": {
      machine: "server",
      path: "/etc/ssh/sshd_config.d/50-cht-backup-moh.conf",
      validate: loginLimitsHold("cht-backup-moh", serveCommand("moh")),
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
      command:
        "/usr/bin/python3 -I /opt/cht-backup-server/moh/chtbackup guard /etc/cht-backup-server/moh/repository.json",
    },
    "cht-borg": { machine: "cht", ...borgPackage("/opt/cht-backup/moh") },
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
      borg: "/opt/cht-backup/moh/borg/bin/borg",
      passphrase,
      encryption: "repokey-blake2",
    },
    "cht-python": { machine: "cht", packages: ["python3-venv"] },
    "cht-program-directory": { machine: "cht", path: "/opt/cht-backup/moh" },
    "cht-programs": { machine: "cht", path: "/opt/cht-backup/moh/chtbackup", source: "hosts/chtbackup" },
    "borgmatic-environment": {
      machine: "cht",
      path: "/opt/cht-backup/moh/venv",
      requirements: hosts("cht/requirements.txt"),
    },
    "backup-settings": { machine: "cht", path: "/etc/cht-backup/moh/settings.json" },
    "alert-addresses": { machine: "cht", path: "/etc/cht-backup/moh/alerts", mode: "0600" },
    "cht-lock-cleanup": { machine: "cht", path: "/etc/tmpfiles.d/cht-backup-moh.conf" },
    "alert-later-service": { machine: "cht", unit: "cht-alert-later-moh.service" },
    "alert-later-path": { machine: "cht", unit: "cht-alert-later-moh.path", enabled: true, active: true },
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
    "watch-pings": { machine: "cht", path: "/etc/cht-backup/moh/pings.json", mode: "0600" },
    "server-watch-pings": { machine: "server", path: "/etc/cht-backup-server/moh/pings.json", mode: "0600" },
    "watch-settings": { machine: "cht", path: "/etc/cht-backup/moh/watch.json" },
    "watch-service": { machine: "cht", unit: "cht-watch-moh.service" },
    "watch-timer": { machine: "cht", unit: "cht-watch-moh.timer", enabled: true, active: true },
    "server-watch-settings": { machine: "server", path: "/etc/cht-backup-server/moh/watch.json" },
    "server-watch-service": { machine: "server", unit: "cht-repository-watch-moh.service" },
    "server-watch-timer": { machine: "server", unit: "cht-repository-watch-moh.timer", enabled: true, active: true },
    "bucket-rclone": { machine: "server", packages: ["python3-venv"] },
    "bucket-settings-directory": {
      machine: "server",
      path: "/etc/cht-backup-bucket/moh",
      mode: "0750",
      group: "cht-backup-moh",
    },
    "bucket-program-directory": { machine: "server", path: "/opt/cht-backup-bucket/moh" },
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
      program: "/opt/cht-backup-server/moh/chtbackup",
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
      leastInterval: 1800,
      maxAge: 48,
      uploadRate: 0,
      storageClass: "GLACIER_IR",
      readBack: 20,
    });
    assert.equal(
      text("bucket-credentials"),
      "[default]\naws_access_key_id = WRITER\naws_secret_access_key = hunter2/secret\n",
    );
    assert.equal(text("server-alert-addresses"), `${alert}\n`);
    assert.deepEqual(JSON.parse(text("server-repository-settings")), {
      deployment: "moh",
      user: "cht-backup-moh",
      repository: "/mnt/backup/moh/repository",
      state: "/var/lib/cht-backup-server/moh",
      spool: "/var/lib/cht-backup-server/moh/spool",
      nonce: "/var/lib/cht-backup-server/moh/nonce",
      sealer: 0,
      sealWait: 60,
      commitsPerDay: 600,
      quotaGibibytes: 0,
      sessionDays: 45,
      idleHours: 48,
    });
    assert.deepEqual(JSON.parse(text("backup-settings")), {
      deployment: "moh",
      chtHome: "/srv/cht",
      composeProject: "cht",
      couchdbData: ["/srv/couchdb1", "/srv/couchdb2"],
      repository: "ssh://offsite/mnt/backup/moh/repository",
      compression: "zstd,9",
      chunker: "fixed,1048576",
      uploadRate: 512,
      lockWait: 600,
      checkpointInterval: 300,
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
      from: "server",
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
      ["drill-alert-service", [/^ExecStart=.*chtbackup alert --about drill \/etc\/cht-backup\/moh\/drill\.json$/m]],
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
      [
        "bucket-check-service",
        [/^OnFailure=cht-bucket-failed-moh\.service$/m, /^ExecStart=.*chtbackup bucket check \/etc/m],
      ],
      [
        "bucket-alert-service",
        [/^ExecStart=.*chtbackup alert --about bucket \/etc\/cht-backup-server\/moh\/repository\.json$/m],
      ],
      ["alert-later-path", [/^DirectoryNotEmpty=\/var\/lib\/cht-backup\/moh\/alerts$/m]],
      ["alert-later-service", [/^ExecStart=.*chtbackup alert --later \/etc\/cht-backup\/moh\/alerts$/m]],
      ["repository-alert-later-path", [/^DirectoryNotEmpty=\/var\/lib\/cht-backup-server\/moh\/alerts$/m]],
      [
        "repository-alert-later-service",
        [/^ExecStart=.*chtbackup alert --later \/etc\/cht-backup-server\/moh\/alerts$/m],
      ],
      [
        "server-login-limits",
        [
          /^Match User cht-backup-moh$/m,
          /^ +ForceCommand \/usr\/bin\/python3 -I \/opt\/cht-backup-server\/moh\/chtbackup guard \/etc\/cht-backup-server\/moh\/repository\.json$/m,
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
      "repository-seal",
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
    ...["server-user", "server-borg", "server-space-reserve", "cht-borg", "cht-settings-directory"].map(
      (name): [string, string[]] => [name, ["backups-so-far"]],
    ),
    [
      "server-login-limits",
      ["server-user", "server-borg", "server-programs", "server-repository-settings", "repository-seal"],
    ],
    ["repository-seal", ["server-repository-directory", "repository-seal-path", "server-programs"]],
    ["repository-seal-path", ["repository-seal-service", "repository-alert-service", "server-repository-settings"]],
    ["repository-alert-service", ["server-alert-environment", "server-alert-addresses", "server-programs"]],
    ["repository-alert-later-path", ["repository-alert-later-service", "server-alert-addresses", "server-programs"]],
    ["alert-later-path", ["alert-later-service", "alert-addresses", "cht-programs", "borgmatic-environment"]],
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
    ["cht-programs", ["cht-program-directory"]],
    ["alert-addresses", ["cht-settings-directory"]],
    [
      "nightly-backup-timer",
      [
        "nightly-backup-service",
        "failure-alert-service",
        "borg-repository",
        "borgmatic-environment",
        "backup-settings",
        "alert-addresses",
        "cht-programs",
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
        "cht-programs",
      ],
    ],
    ["drill-overdue-timer", ["drill-overdue-service", "drill-alert-service"]],
    ["bucket-credentials", ["bucket-settings-directory", "server-user"]],
    ["bucket-environment", ["bucket-rclone", "bucket-program-directory"]],
    ...["bucket-copy-path", "bucket-copy-timer", "bucket-check-timer"].map((trigger): [string, string[]] => [
      trigger,
      [
        trigger.replace(/-(path|timer)$/, "-service"),
        "bucket-alert-service",
        "bucket-settings",
        "bucket-credentials",
        "server-alert-addresses",
        "server-alert-environment",
        "bucket-environment",
        "bucket-snapshot-directory",
        "server-programs",
        "server-borg",
      ],
    ]),
    [
      "watch-timer",
      ["watch-service", "watch-settings", "nightly-backup-timer", "drill-overdue-timer", "alert-addresses"],
    ],
    [
      "server-watch-timer",
      [
        "server-watch-service",
        "server-watch-settings",
        "repository-audit-timer",
        "bucket-check-timer",
        "repository-seal",
      ],
    ],
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

  it("has as many resources as README.md shows of the lab, whose stack is the same but for values", () => {
    const readme = readFileSync(join(__dirname, "..", "..", "README.md"), "utf8");
    assert.match(readme, new RegExp(`~ 1 to update\n    ${run.resources.size - 1} unchanged\n`));
  });

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
      "recoveryKitDigest",
      "repository",
      "schedule",
    ]);
    assert.equal(outputs.repository, "ssh://offsite/mnt/backup/moh/repository");
    const commands = outputs.commands as Record<string, string>;
    assert.equal(commands.backUpNow, "ssh ubuntu@cht.example.org 'sudo systemctl start cht-backup-moh.service'");
    assert.match(commands.listArchives ?? "", / 'sudo python3 -I \/opt\/cht-backup\/moh\/chtbackup borg list'$/);
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
    const run = await runProgram({ "host:machines": JSON.stringify(machines) });
    const command = run.resources.get("first-backup");
    assert.ok(command);
    assert.equal(command.type, "command:local:Command");
    assert.equal(command.parent, "cht-backup");
    assert.ok(command.dependencies.includes("nightly-backup-timer"));
    const { environment, ...others } = command.inputs;
    assert.deepEqual(command.ignored, []);
    assert.deepEqual(others, {
      create: "node --require ./toolchain/typescript.cjs operations/script.ts",
      stdin: readHostFile("cht/first_backup.sh"),
      // A plugin that writes to a command that doesn't read fails at random.
      update: "cat > /dev/null",
      addPreviousOutputInEnv: false,
      // It runs once for each repository, and for nothing else.
      triggers: ["f".repeat(64)],
    });
    assert.equal(
      command.replacementTrigger,
      undefined,
      "the engine loses it where the program runs before the refresh",
    );
    const order = JSON.parse((environment as Record<string, string>).CHT_BACKUP_SCRIPT ?? "");
    assert.deepEqual(order, {
      name: "cht",
      machine: { ...machines.cht, sudo: true },
      words: [
        "cht-backup-moh.service",
        "1200",
        "/var/lib/cht-backup/moh/last-backup.json",
        // With the borg that backups take: it may be built for them, and the login finds none.
        "python3 -I /opt/cht-backup/moh/chtbackup borg list --json",
      ],
    });
  });

  it("is the same for every operator: by a home, an agent, a key nothing of it changes, and the state has no key", async () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-home-"));
    const environment = { ...process.env };
    try {
      mkdirSync(join(folder, ".ssh"));
      writeFileSync(join(folder, ".ssh", "key"), "hunter2, a private key");
      const cht = { ...machines.cht, identityFile: "~/.ssh/key", jump: "bastion" };
      const registered = async (home: string, agent: string | undefined) => {
        Object.assign(process.env, { HOME: home, SSH_AUTH_SOCK: agent });
        if (agent === undefined) delete process.env.SSH_AUTH_SOCK;
        const { resources } = await runProgram({
          "host:machines": JSON.stringify({ ...machines, cht }),
          "cht-backup:drill": JSON.stringify({}),
        });
        return ["first-backup", "drill-cht-docker"].map((name) => resources.get(name)?.raw);
      };
      const here = await registered(folder, undefined);
      assert.ok(here.every((each) => each !== undefined));
      assert.deepEqual(await registered("/home/somebody-else", "/run/agent"), here);
      assert.doesNotMatch(JSON.stringify(here), /hunter2/);
      assert.ok(!JSON.stringify(here).includes(folder));
    } finally {
      process.env = environment;
      rmSync(folder, { recursive: true });
    }
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

describe("alarms", function () {
  this.timeout(30_000);

  const aboutAlerts = (said: string[]) => said.filter((text) => text.includes("cht-backup:alerts"));

  it("that nobody gets are told in each preview and up, with the command that sets an address", async () => {
    const { "cht-backup:alerts": _, ...without } = settings;
    const nobody = [without, { ...without, "cht-backup:alerts": "[]" }];
    for (const values of nobody) {
      const [line = "", ...others] = aboutAlerts((await warned(values, secretKeys)).said);
      assert.match(
        line,
        /^cht-backup:alerts names nobody: .*config set --stack moh --secret --path 'cht-backup:alerts\[0\]'$/,
      );
      assert.deepEqual(others, []);
    }
    assert.deepEqual(aboutAlerts((await warned(settings, secretKeys)).said), []);
  });

  it("run in no environment, so none that fails takes them away, and all keep what they can't deliver", async () => {
    const { resources } = await runProgram(settings, secretKeys);
    const units = [...resources.values()].map(({ inputs }) => String(inputs.content));
    const alerting = units.filter((text) => /^ExecStart=.*chtbackup alert/m.test(text));
    assert.equal(alerting.length, 6);
    for (const text of alerting) {
      assert.match(text, /^ExecStart=\/usr\/bin\/python3 -sEB /m);
      assert.match(text, /^StateDirectory=cht-backup(-server)?\/moh\/alerts$/m);
    }
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

  describe("whose machine is trusted with retention", () => {
    const retentionOn = (machine: string, drill: object = {}) =>
      warned(
        {
          ...settings,
          "host:machines": JSON.stringify({ ...machines, third }),
          "cht-backup:drill": JSON.stringify({ machine, manageDocker: false, couchdbImage: image, ...drill }),
          "cht-backup:retention": JSON.stringify({ machine, monthly: 12 }),
        },
        secretKeys,
      );
    const ofRetention = (run: Run, machine: string) => on(run, machine).filter((name) => name.startsWith("retention-"));

    it("gets a key that lets the server do this by its own policy, and nothing else", async () => {
      const run = await retentionOn("third", { from: "bucket" });
      const own =
        "/usr/bin/python3 -I -B /opt/cht-backup-server/moh/chtbackup retention scheduled " +
        "/etc/cht-backup-server/moh/repository.json";
      const { inputs, dependencies } = run.resources.get("retention-authorized-key") as Registered;
      assert.deepEqual(inputs, {
        machine: "server",
        user: "cht-prune-moh",
        publicKey: "ssh-ed25519 AAAAclient cht-backup-moh",
        command: `sudo -n ${own}`,
      });
      assert.ok(["retention-sudoers", "retention-login-limits"].every((name) => dependencies.includes(name)));
      const text = (name: string) => String(run.resources.get(name)?.inputs.content);
      assert.match(text("retention-sudoers"), new RegExp(`^cht-prune-moh ALL=\\(root\\) NOPASSWD: ${own}$`, "m"));
      assert.match(text("retention-login-limits"), new RegExp(`^ +ForceCommand sudo -n ${own}$`, "m"));
      assert.deepEqual(JSON.parse(text("retention-policy")), {
        repository: "f".repeat(64),
        overdueAfterDays: 9,
        policy: { within: 7, daily: 14, weekly: 6, monthly: 12, yearly: 2 },
      });
      assert.deepEqual(JSON.parse(text("retention-settings")), {
        deployment: "moh",
        repository: "f".repeat(64),
        command: ["ssh", "-F", "/etc/cht-backup/moh/retention_ssh_config", "offsite", "retention"],
      });
      assert.match(text("retention-ssh-config"), /^ {4}User cht-prune-moh$/m);
      assert.match(text("retention-ssh-config"), /^ {4}IdentityFile \/etc\/cht-backup\/moh\/retention_ssh_key$/m);
      assert.deepEqual(ofRetention(run, "cht"), []);
      // Drills from the bucket ask the server nothing, so this is the machine's only key there.
      assert.deepEqual(run.resources.get("server-authorized-key")?.inputs.otherKeys, []);
    });

    it("needs no key where it is the server itself", async () => {
      const run = await retentionOn("server");
      assert.deepEqual(ofRetention(run, "server").sort(), [
        "retention-alert-service",
        "retention-policy",
        "retention-service",
        "retention-settings",
        "retention-timer",
      ]);
    });

    it("is never the CHT's, nor one that doesn't drill", async () => {
      const refused = (machine: string, retention: string) =>
        assert.rejects(
          runProgram({
            ...settings,
            "host:machines": JSON.stringify({ ...machines, third }),
            "cht-backup:drill": JSON.stringify({ machine, manageDocker: false, couchdbImage: image }),
            "cht-backup:retention": JSON.stringify({ machine: retention }),
          }),
          /cht-backup:retention.machine: found "\w+", .*; must be the machine in cht-backup:drill.machine, other than cht/,
        );
      await refused("cht", "cht");
      await refused("third", "server");
    });
  });

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
          "alert-later-path",
          "alert-later-service",
          "borg",
          "borgmatic-environment",
          "docker-compose",
          "docker-engine",
          "known-hosts",
          "lock-cleanup",
          "passphrase",
          "program-directory",
          "python",
          "programs",
          "settings-directory",
          "ssh-config",
          "ssh-key",
          "state-directory",
          "watch-pings",
          "watch-service",
          "watch-settings",
          "watch-timer",
        ].map((part) => `drill-${machine}-${part}`);
        const units = [...run.resources].filter(([, { parent }]) => parent === "restore-drill").map(([name]) => name);
        assert.deepEqual(
          on(run, machine)
            .filter((name) => !/^(server|bucket|repository|backups)-/.test(name))
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
        assert.match(String(command), /^\/usr\/bin\/python3 -I \/opt\/cht-backup-server\/moh\/chtbackup guard /);
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
        for (const part of ["borgmatic-environment", "programs", "alert-addresses", "passphrase", "docker-compose"]) {
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
      // ssh itself knows whose home that is; another operator's would be drift.
      "-i ~/.ssh/drill",
      // A connection of the operator's own that is open already may be older than the login's groups.
      "-o ControlPath=none",
    ]) {
      assert.ok(pairs.includes(expected), `${expected} isn't in ${pairs.join(", ")}`);
    }
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

  it("takes over a network that is there, lets a login that may use sudo use Docker where the stack installs it, and tells who may not", async () => {
    const withNetwork = async (answer: Record<string, unknown>, machine = "third") => {
      answers["docker:index/getNetwork:getNetwork"] = answer;
      try {
        return await drillOn({ machine, couchdbImage: image });
      } finally {
        delete answers["docker:index/getNetwork:getNetwork"];
      }
    };
    const { resources } = await withNetwork({ id: "0123abcd", name: "cht-drill-moh", internal: true });
    assert.equal(resources.get("drill-third-network")?.imported, "0123abcd");
    assert.deepEqual(resources.get("drill-third-docker-user")?.inputs, {
      machine: "third",
      user: "ops",
      group: "docker",
    });
    assert.ok(resources.get("drill-third-docker")?.dependencies.includes("drill-third-docker-user"));
    const none = await withNetwork({ fails: "Could not find docker network: Error response from daemon: not found" });
    assert.equal(none.resources.get("drill-third-network")?.imported, "");
    assert.throws(
      () => adopted("third", { id: "0123abcd", name: "cht-drill-moh", internal: false }),
      /third: the Docker network cht-drill-moh is there already, and leads out .*`docker network rm cht-drill-moh`/,
    );
    assert.throws(
      () =>
        withoutAnswer(
          "cht",
          { ...machines.cht, sudo: true },
          // As the plugin says it of a login that isn't in the group.
          "failed to create Docker client: Error pinging Docker server, please make sure that ssh://… is reachable",
        ),
      /cht: Docker can't be used there by ubuntu.*`ssh ubuntu@cht\.example\.org 'docker version'`.*`sudo usermod --append --groups docker ubuntu`.* or set manageDocker to false/,
    );
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
