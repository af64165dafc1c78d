import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSettings, type Settings } from "../../config";
import { table } from "../../operations/archives";
import { readOptions } from "../../operations/main";
import { parseDestination, printable, quote } from "../../operations/remote";
import { bucketOf, bucketRequest, writeFiles } from "../../operations/repository";
import { asOf, partOf, sourceOf } from "../../operations/restore";
import { adviceFor } from "../../operations/stack";

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
    assert.equal(adviceFor("prod", "error: passphrase must be set"), undefined);
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
    const recovery = { passphrase: "", key: `BORG_KEY ${"5a".repeat(32)}\nx\n`, formerKeys: { b6: "y" } };
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
      ],
      more: 4,
    });
    assert.match(text, /^t-2 {2}2 files, 2\.8 MB, 422 documents\n {4}medic 419, _users 3\n/);
    assert.match(
      text,
      /INCOMPLETE: the certificate is missing\nt-0 {2}UNFINISHED.*\nt-- {2}DAMAGED: a part can't be read\nt-x {2}UNREADABLE: it may be hostile\n/,
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
    assert.doesNotMatch(text, /[^\P{Cc}\n]|\u202e/u);
    assert.equal(text.match(/\n/g)?.length, 5);
    assert.match(text, /^ {4}a\ufffd\[2J\ufffd31mb c d\ufffde 7$/m);
  });

  it("leaves what people write as it is, in any language, with its lines", () => {
    const text = "Größe:\t3 Ⓜ 文字 ሰላም 👩🏽‍⚕️\n  two\n";
    assert.equal(printable(text), text);
    assert.equal(printable("one\r\ntwo\r"), "one\ntwo");
    assert.equal(printable("one\rtwo\u0000\u007f"), "one\ufffdtwo\ufffd\ufffd");
  });
});

describe("what is sent to a machine", () => {
  it("is quoted for its shell", () => {
    assert.equal(quote("/var/lib/x-1.py"), "/var/lib/x-1.py");
    assert.equal(quote("it's $HOME"), `'it'\\''s $HOME'`);
    assert.equal(quote(""), "''");
  });

  it("arrives as it was, for nobody else to read", () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-files-"));
    try {
      const text = 'it\'s\n"$HOME" \\ `x` ü\n';
      execFileSync("sh", ["-s"], { input: writeFiles(folder, { "bin/a.py": text, b: "" }) });
      assert.equal(readFileSync(join(folder, "bin", "a.py"), "utf8"), text);
      assert.equal(statSync(join(folder, "bin", "a.py")).mode & 0o777, 0o600);
      assert.equal(readFileSync(join(folder, "b"), "utf8"), "");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
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
