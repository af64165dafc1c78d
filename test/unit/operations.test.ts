import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostFile, readHostFile } from "../../components/host-files";
import { readSettings, type Settings, withMade } from "../../config";
import { table } from "../../operations/archives";
import { afterRestore } from "../../operations/left-behind";
import { readOptions } from "../../operations/main";
import { parseDestination, type Remote, type RemoteOptions } from "../../operations/remote";
import { bucketOf, bucketRequest, type ReadableBucket, throughBucket, writeFiles } from "../../operations/repository";
import { asOf, partOf, sourceOf } from "../../operations/restore";
import { adviceFor, located, withServer } from "../../operations/stack";
import { filesIn } from "../../provider/tree";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { plainLines } from "../../toolchain/plain";
import { operatorKey } from "./config/settings";

describe("a stack that can't be read", () => {
  it("is told what to do: to deploy, to log in, to look for its name", () => {
    assert.match(
      adviceFor("prod", "error: current stack does not have output property 'recovery'") ?? "",
      /never been deployed to its end: run `npm run pulumi -- up --stack prod`/,
    );
    assert.match(
      adviceFor("prod", "error: PULUMI_ACCESS_TOKEN must be set for login") ?? "",
      /isn't logged in to where the state is: `npm run pulumi -- login --local`/,
    );
    assert.match(
      adviceFor("prod", "error: no stack named 'prod' found") ?? "",
      /there is no stack prod: .*recovery kit/,
    );
    assert.equal(adviceFor("prod", "error: something else"), undefined);
  });

  it("is told by which variable it gets its passphrase where no terminal is there to ask on", () => {
    const words =
      "error: passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE environment";
    assert.match(
      adviceFor("prod", words) ?? "",
      /the passphrase of the stack prod, .* isn't in the environment: set PULUMI_CONFIG_PASSPHRASE_FILE to the path of a file/,
    );
    assert.match(adviceFor("prod", "error: incorrect passphrase") ?? "", /that isn't the passphrase of the stack prod/);
    assert.match(
      adviceFor("prod", "error: unable to read PULUMI_CONFIG_PASSPHRASE_FILE: open /no: no such file") ?? "",
      /^PULUMI_CONFIG_PASSPHRASE_FILE: open \/no: no such file; must be the path/,
    );
  });
});

describe("a server that the stack makes and hasn't made", () => {
  const given = {
    "host:machines": JSON.stringify({ cht: { address: "203.0.113.30" } }),
    "cht-backup:server": JSON.stringify({
      aws: { region: "eu-west-1", operatorKeys: [operatorKey], operatorNetworks: ["203.0.113.7/32"] },
    }),
  };
  const deployment = { settings: readSettings(given, "moh", []), passphrase: "", key: "" };
  const reason = /^Error: the stack makes the machine server, and doesn't know where it is: run `npm run pulumi -- up`/;

  it("is said in one line to whoever needs it, before any machine is asked", () => {
    assert.throws(() => withServer(deployment), reason);
    assert.throws(() => located("server", deployment.settings.machines.server), reason);
  });

  it("is nothing to who goes by the other machines", () => {
    assert.equal(located("cht", deployment.settings.machines.cht).address, "203.0.113.30");
    const made = { ...deployment, settings: withMade(deployment.settings, { serverAddress: "192.0.2.9" }) };
    assert.equal(withServer(made).settings.machines.server.address, "192.0.2.9");
  });
});

describe("an SSH destination", () => {
  it("is user, host and port, with ssh's defaults", () => {
    const { address, user, port, sudo } = parseDestination("ubuntu@new.example.org:2222");
    assert.deepEqual(
      { address, user, port, sudo },
      { address: "new.example.org", user: "ubuntu", port: 2222, sudo: true },
    );
    assert.deepEqual(
      ["host", "ssh://root@host", "root@[2001:db8::1]"].map((text) => {
        const machine = parseDestination(text);
        return [machine.address, machine.user, machine.port, machine.sudo];
      }),
      [
        ["host", "root", undefined, false],
        ["host", "root", undefined, false],
        ["2001:db8::1", "root", undefined, false],
      ],
    );
  });

  it("that is none is refused in one line", () => {
    for (const wrong of ["", "-oProxyCommand=x", "a b", "root@host:99999", "root@-x"]) {
      assert.throws(
        () => parseDestination(wrong),
        /^Error: .* is no SSH destination.*\[user@\]host\[:port\][^\n]*$/,
        wrong,
      );
    }
  });
});

describe("the time of --as-of", () => {
  it("is UTC in the archives' form; a date alone is its end", () => {
    assert.equal(asOf("2026-11-21"), "2026-11-21T23:59:59Z");
    assert.equal(asOf("2026-11-21T14:00Z"), "2026-11-21T14:00:00Z");
    assert.equal(asOf("2026-11-21 14:00+03:00"), "2026-11-21T11:00:00Z");
    for (const wrong of ["yesterday", "2026-13-45", "21.11.2026", "5"])
      assert.throws(() => asOf(wrong), /it must be a time/);
  });
});

describe("a part of an archive", () => {
  it("is what --database and --path name; without them it is the whole", () => {
    assert.equal(partOf({ start: true }), undefined);
    assert.deepEqual(partOf({ database: ["medic", "_users"], into: "/srv/out" }), {
      databases: ["medic", "_users"],
      paths: [],
      into: "/srv/out",
    });
  });

  it("excludes what only a whole CHT has, and needs absolute paths", () => {
    const path = ["/home/ubuntu/cht/compose"];
    for (const [options, reason] of [
      [{ path, start: true }, /^Error: --start is for a whole CHT/],
      [{ path, replace: true }, /--replace is for/],
      [{ database: ["medic"], "install-docker": true }, /--install-docker is for/],
      [{ into: "/srv/out" }, /--into goes with --database or --path/],
      [{ path: ["compose"] }, /--path compose: it must be an absolute path/],
      [{ path, into: "out" }, /--into out: it must be an absolute path/],
      [{ path: ["/x/.."] }, /that is the whole CHT/],
      [{ database: [""] }, /--database is empty/],
      [{ database: ["medic"], "repository-only": true }, /--database is for what is in an archive/],
      [{ start: true, "repository-only": true }, /--start is for what is in an archive: it can't go with --rep/],
    ] as const) {
      assert.throws(() => partOf(options as Parameters<typeof partOf>[0]), reason);
    }
  });
});

describe("the copy to restore from", () => {
  it("is the server's or the bucket's; the bucket's newest, or that of a time", () => {
    assert.deepEqual(sourceOf({ from: "server" }), { from: "server", copyAsOf: undefined, into: undefined });
    assert.deepEqual(sourceOf({ from: "bucket", "copy-as-of": "2026-11-21", "fetch-into": "/mnt/repository" }), {
      from: "bucket",
      copyAsOf: "2026-11-21T23:59:59Z",
      into: "/mnt/repository",
    });
  });

  it("that is none, or has options of another one, is refused in one line", () => {
    for (const [options, reason] of [
      [{}, /^Error: --from is missing: it must be `server`, the offsite server, or `bucket`, [^\n]*$/],
      [{ from: "tape" }, /--from tape: it must be/],
      [{ from: "server", "copy-as-of": "2026-11-21" }, /--copy-as-of goes with --from bucket only/],
      [{ from: "server", "fetch-into": "/mnt/x" }, /--fetch-into goes with --from bucket only/],
      [{ from: "server", "repository-only": true }, /--repository-only goes with --from bucket only/],
      [{ from: "bucket", "fetch-into": "x" }, /--fetch-into x: it must be an absolute path/],
      [{ from: "bucket", "fetch-into": "/x/.." }, /it must be an absolute path/],
      [{ from: "bucket", "copy-as-of": "yesterday" }, /--copy-as-of yesterday: it must be a time/],
    ] as const) {
      assert.throws(() => sourceOf(options), reason);
    }
  });

  it("is read with the reader's key, and only a copy of this deployment's repositories counts", () => {
    const settings = readSettings(
      {
        "host:machines": JSON.stringify({ cht: { address: "a" }, server: { address: "b" } }),
        "cht-backup:bucket": JSON.stringify({
          name: "moh-backup",
          mode: "governance",
          accessKeyId: "WRITER",
          secretAccessKey: "writers.secret",
          reader: { accessKeyId: "READER", secretAccessKey: "readers.secret" },
        }),
      },
      "moh",
      ["cht-backup:bucket"],
    );
    const bucket = bucketOf(settings, "moh");
    const recovery = { passphrase: "", key: `BORG_KEY ${"5a".repeat(32)}\nx\n`, formerKeys: { b6: "y", "b6 2": "z" } };
    assert.deepEqual(bucketRequest(bucket, recovery, undefined), {
      bucket: "moh-backup",
      region: "us-east-1",
      endpoint: null,
      pathStyle: false,
      prefix: "moh/",
      accessKeyId: "READER",
      secretAccessKey: "readers.secret",
      asOf: undefined,
      repositories: ["5a".repeat(32), "b6"],
    });
  });

  it("in the bucket of a stack without one is refused", () => {
    assert.throws(
      () => bucketOf({ bucket: undefined } as Settings, "prod"),
      /^Error: the stack prod has no copy in a bucket \(cht-backup:bucket\): restore with --from server$/,
    );
  });
});

describe("after a restore elsewhere", () => {
  const deployed = {
    "host:machines": { cht: { address: "cht.example.org", user: "ubuntu" }, server: { address: "backup.example.org" } },
  };
  const settings = (more: object = {}) => {
    const all = { ...deployed, ...more };
    const texts = Object.entries(all).map(([name, value]) => [name, JSON.stringify(value)]);
    return readSettings(Object.fromEntries(texts), "prod", []);
  };

  it("is said what the machine before still holds, with the command that clears it, and whom to log in as", () => {
    const [next = "", before = ""] = afterRestore("prod", settings(), parseDestination("root@new.example.org:2222"));
    assert.match(
      next,
      /host:machines\.cht must be \{ address: new\.example\.org, user: root, port: 2222 \}.* up --stack prod/,
    );
    assert.match(
      before,
      /^cht\.example\.org, which had this CHT before, still has the passphrase .*\/etc\/cht-backup\/prod/,
    );
    assert.match(before, /three timers/);
    const command = /as root: (.*)$/.exec(before)?.[1] ?? "";
    for (const timer of ["cht-backup-prod.timer", "cht-drill-prod.timer", "cht-drill-prod-overdue.timer"]) {
      assert.match(command, new RegExp(`disable --now [^;]*${timer}`));
    }
    for (const path of ["/etc/cht-backup/prod", "/opt/cht-backup/prod", "/var/lib/cht-backup/prod"]) {
      assert.match(command, new RegExp(`rm -rf [^;]*${path}( |;)`));
    }
    assert.doesNotMatch(command, /[*?$`]/, "it must touch this deployment's alone");
  });

  it("is asked for another user only where it is another, and another machine is only supposed where there may be one", () => {
    const [only = "", ...more] = afterRestore("prod", settings(), parseDestination("ubuntu@cht.example.org"));
    assert.deepEqual(more, []);
    assert.match(only, /^a machine that had this CHT before, if it is another one,/);
    const [next = ""] = afterRestore("prod", settings(), parseDestination("root@cht.example.org"));
    assert.match(next, /user: root/);
    const elsewhere = settings({ "cht-backup:drill": { enabled: false } });
    const [, alone = ""] = afterRestore("prod", elsewhere, parseDestination("new"));
    assert.match(alone, /the backup's timer/);
    assert.doesNotMatch(alone, /cht-drill/);
  });
});

describe("the list of archives", () => {
  it("names counts, what is missing, and what can't be restored", () => {
    const whole = { finished: true, files: 2, size: 2_800_000, documents: { medic: 419, _users: 3 }, problems: [] };
    const text = table({
      archives: [
        { name: "t-2", time: null, ...whole },
        { name: "t-1", time: null, ...whole, problems: ["the certificate is missing"] },
        { name: "t-0", time: null, finished: false },
        { name: "t--", time: null, finished: false, damaged: "a part can't be read" },
        { name: "t-x", time: null, finished: false, unreadable: "it may be hostile" },
        { name: "cht-2026-11-21", time: null, finished: true, byHand: true, files: 7, size: 1_500_000 },
      ],
      more: 4,
    });
    assert.match(text, /^t-2 {2}2 files, 2\.8 MB, 422 documents\n {4}medic 419, _users 3\n/);
    assert.match(
      text,
      /INCOMPLETE: the certificate is missing\nt-0 {2}UNFINISHED.*\nt-- {2}DAMAGED: a part can't be read\nt-x {2}UNREADABLE: it may be hostile\n/,
    );
    assert.match(
      text,
      /^cht-2026-11-21 {2}BY HAND: 7 files, 1\.5 MB; without a manifest, so nothing proves that it is complete .*\n/m,
    );
    assert.match(text, /and 4 older/);
    assert.match(table({ archives: [], more: 0 }), /holds no archive/);
  });

  it("shows no control characters of an archive's own words", () => {
    const evil = "a\u001b[2J\u009b31mb\nc\rd\u202ee";
    const [time, base] = [null, { finished: true, files: 1, size: 1 }];
    const text = table({
      archives: [
        { name: evil, time, finished: false },
        { name: evil, time, finished: true, damaged: evil },
        { name: evil, time, ...base, documents: { [evil]: 7 }, problems: [evil] },
      ],
      more: 0,
    });
    assert.equal(text, plainLines(text));
    assert.equal(text.match(/\n/g)?.length, 5);
    assert.match(text, /^ {4}a\\x1b\[2J\\x9b31mb\\nc\\rd\\u202ee 7$/m);
  });
});

describe("what is sent to a machine", () => {
  it("arrives as it was, for nobody else to read", () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-files-"));
    try {
      const text = 'it\'s\n"$HOME" \\ `x` ü\n';
      execFileSync("sh", ["-s"], { input: writeFiles(folder, { a: text, b: "" }) });
      assert.equal(readFileSync(join(folder, "a"), "utf8"), text);
      assert.equal(statSync(join(folder, "a")).mode & 0o777, 0o600);
      assert.equal(readFileSync(join(folder, "b"), "utf8"), "");
      assert.deepEqual(filesIn(join(folder, "chtbackup")), filesIn(hostFile("chtbackup")));
      assert.equal(statSync(join(folder, "chtbackup")).mode & 0o777, 0o700);
      assert.equal(statSync(join(folder, "chtbackup", "__main__.py")).mode & 0o077, 0);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("a restore on a machine where borg was built", () => {
  const settings = readSettings(
    { "host:machines": JSON.stringify({ cht: { address: "a" }, server: { address: "b" } }) },
    "moh",
    [],
  );
  const deployment = { settings, passphrase: "", key: `BORG_KEY ${"5a".repeat(32)}\nx\n` };
  const digest = "7b".repeat(32);

  it("runs by the system's Python, and doesn't build what an earlier run has built", async () => {
    const sent: string[] = [];
    const remote = {
      script: async (text: string) => {
        sent.push(text);
        return /^packages_built /m.test(text) ? `built ${digest} eA==\n` : "/run/x\n";
      },
    } as unknown as Remote;
    const { signal } = new AbortController();
    const options = { installDocker: true, dryRun: false, say: () => undefined, signal };
    const bucket = { name: "b", reader: {} } as ReadableBucket;
    await throughBucket(remote, bucket, deployment, options, async ({ python }) => {
      const folder = mkdtempSync(join(tmpdir(), "cht-backup-python-"));
      try {
        // As a built one's directory is first in the search path: with a Python of its own.
        writeFileSync(join(folder, "python3"), "#!/bin/sh\necho the built one\n", { mode: 0o755 });
        const [env = "", ...words] = python.map((word) => word.replace(/^PATH=[^:]*/, `PATH=${folder}`));
        const { stdout } = await run(env, [...words, "-c", "import sys; print(sys.prefix)"]);
        assert.equal(stdout, "/usr\n");
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
    assert.ok(
      sent.some((text) =>
        text.split("\n").some((line) => /^packages_apply_or_build '/.test(line) && line.includes(digest)),
      ),
      "what is there is to be kept",
    );
  });
});

describe("a dry run of a restore", () => {
  const settings = readSettings(
    {
      "host:machines": JSON.stringify({ cht: { address: "a" }, server: { address: "b" } }),
      "cht-backup:bucket": "none",
    },
    "moh",
    [],
  );
  const deployment = { settings, passphrase: "", key: `BORG_KEY ${"5a".repeat(32)}\nx\n` };

  async function scripts(dryRun: boolean) {
    const sent: string[] = [];
    const remote = {
      script: async (text: string) => {
        sent.push(text);
        return "/var/tmp/x\nssh-ed25519 AAAA\n";
      },
    } as unknown as Remote;
    const { signal } = new AbortController();
    const options = { installDocker: true, dryRun, say: () => undefined, signal };
    const bucket = { name: "b", reader: {} } as ReadableBucket;
    await throughBucket(remote, bucket, deployment, options, async () => 0);
    return sent;
  }

  it("makes no directory on the machine but its own, and installs no borg", async () => {
    const changes = /^packages_apply\w* '|mkdir -p "\$1"; mktemp/m;
    assert.equal(
      (await scripts(true)).find((text) => changes.test(text)),
      undefined,
    );
    assert.equal((await scripts(false)).filter((text) => changes.test(text)).length, 2);
  });

  it("says what it fetches, and leaves what it refuses to the error, so that it is told once", async () => {
    const said: string[] = [];
    const lines = ["fetching borgbackup for the time of the dry run", "this machine has no Python"];
    const remote = {
      script: async (_text: string, _words: string[], { onError }: RemoteOptions = {}) => {
        for (const line of lines) onError?.(line);
        return "/var/tmp/x\nssh-ed25519 AAAA\n";
      },
    } as unknown as Remote;
    const { signal } = new AbortController();
    const options = { installDocker: false, dryRun: true, say: (line: string) => said.push(line), signal };
    await throughBucket(remote, { name: "b", reader: {} } as ReadableBucket, deployment, options, async () => 0);
    assert.deepEqual(said, lines.slice(0, 1));
  });

  it("installs no package, whatever is missing and asked for: it is fetched into its own directory", async () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-prepare-"));
    try {
      const program = (name: string, text: string) => {
        writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
      };
      program("apt-get", `echo "$*" >> ${folder}/asked`);
      program("apt-cache", "echo 'borgbackup | 1.4.0-5 | mirror'");
      program("dpkg-query", "exit 1");
      for (const name of ["borg", "docker", "python3"]) program(name, "exit 1");
      const words = ["-", `${folder}/own`, "yes", "bucket", "yes", "1.2.8"];
      mkdirSync(`${folder}/own`);
      const env = { PATH: `${folder}:/usr/bin:/bin` };
      const { code, stderr } = await run("sh", ["-c", readHostFile("restore/prepare.sh"), ...words], { env });
      assert.equal(code, 0, stderr);
      const asked = readFileSync(`${folder}/asked`, "utf8").trim().split("\n");
      assert.equal(asked.length, 2);
      for (const line of asked) {
        assert.ok(
          line.includes(`-o Dir::State::Lists=${folder}/own/`) && line.includes(`-o Dir::Cache=${folder}/own/`),
          line,
        );
      }
      assert.match(String(asked[1]), / --download-only install borgbackup=1\.4\.0-5( |$)/);
      assert.doesNotMatch(asked.join("\n"), /docker/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("a reader of a command's output that has seen enough", () => {
  for (const file of ["operations/status.ts", "campaign/run.ts"]) {
    it(`is no error to ${file}`, async () => {
      // The reader has gone before Node has started.
      const script = `{ node --require ./toolchain/typescript.cjs ${file} --help; echo "exit code $?" >&2; } | true`;
      const { stderr } = await run("sh", ["-c", script], { cwd: project });
      assert.equal(stderr, "exit code 0\n");
    });
  }
});

describe("an operator's wrong option", () => {
  it("is one line that names it", () => {
    assert.throws(
      () => readOptions({ stack: { type: "string" } }, ["--stak", "x"]),
      /^Error: Unknown option '--stak'.*--help/,
    );
    assert.throws(() => readOptions({ stack: { type: "string" } }, ["x"]), /'x'/);
  });
});
