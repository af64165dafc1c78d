import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import jsQR from "jsqr";
import { kitDigest, kitReminder } from "../../components/recovery-kit";
import { type Bucket, readSettings } from "../../config";
import { htmlPage, type Kit, places, qrCode, textPage } from "../../operations/recovery-kit";
import { plainLines } from "../../toolchain/plain";

const line = "hqlhbGdvcml0aG2mc2hhMjU2pGRhdGHaAZ7l3sPnTp6NDo8YlWq1vJ4pR9xkXo0aBcDeF/";
const key = `BORG_KEY ${"5a".repeat(32)}\n${`${line}\n`.repeat(10)}9hXQCSndmVyc2lvbgE=\n`;
const former = `BORG_KEY ${"b6".repeat(32)}\n${`${line.toUpperCase()}\n`.repeat(10)}`;
// All that Markdown, HTML, shells and the template could take for theirs.
const passphrase = "it's <b>*$HOME*</b> & `\\n` @STACK@ _x_ ```";
const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII8nyxMn8svM1ThCPAgYniADvs7y5zvM1uSd7V2YtxyT";

const given = {
  "host:machines": JSON.stringify({
    cht: { address: "cht.example.org", user: "ubuntu" },
    server: { address: "backup.example.org", port: 2222 },
  }),
  "cht-backup:server": JSON.stringify({ address: "10.0.0.2", dataDirectory: "/mnt/backup" }),
  "cht-backup:cht": JSON.stringify({
    home: "/srv/cht",
    composeProject: "moh",
    couchdbData: ["/data/one", "/data/two"],
  }),
  "cht-backup:firstBackup": "false",
};
const settings = readSettings(given, "prod", []);
const kit: Kit = {
  stack: "prod",
  made: new Date("2026-11-22T03:04:05Z"),
  version: "1.2.3",
  deployment: { settings, passphrase, key, hostKey, formerKeys: { ["b6".repeat(32)]: former } },
};

const readerSecret = "r3ad/er+secret=";
const bucket = {
  name: "moh-copy",
  endpoint: "https://s3.example.org",
  mode: "governance",
  accessKeyId: "WRITER",
  secretAccessKey: "writers.secret",
  reader: { accessKeyId: "READER", secretAccessKey: readerSecret },
};
const withBucket = readSettings({ ...given, "cht-backup:bucket": JSON.stringify(bucket) }, "prod", [
  "cht-backup:bucket",
]);
const bucketKit: Kit = { ...kit, deployment: { ...kit.deployment, settings: withBucket } };

const unescaped = (html: string) =>
  html
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#39;", "'")
    .replaceAll("&amp;", "&");
const framesOf = (html: string, kind: string) =>
  [
    ...html.matchAll(new RegExp(`<figure class="${kind}"><figcaption>.*?</figcaption><pre>([\\s\\S]*?)\n</pre>`, "g")),
  ].map(([, body = ""]) => unescaped(body));
const framesOfText = (text: string, title: string) =>
  [...text.matchAll(new RegExp(`^={8} ${title}.*\n([\\s\\S]*?)\n={78}$`, "gm"))].map(([, body]) => body);

/** What a scanner reads from an SVG of dark squares. */
function scan(svg: string): string | undefined {
  const size = Number(/viewBox="0 0 (\d+) /.exec(svg)?.[1]);
  const [, path = ""] = / d="([^"]*)"/.exec(svg) ?? [];
  const scale = 4;
  const width = size * scale;
  const pixels = new Uint8ClampedArray(width * width * 4).fill(255);
  let [x, y] = [0, 0];
  for (const [, move, first, second] of path.matchAll(/([Mm])(-?[\d.]+)[ ,]?(-?[\d.]+)h1v1/g)) {
    [x, y] = move === "M" ? [Number(first), Number(second)] : [x + Number(first), y + Number(second)];
    for (let row = y * scale; row < (y + 1) * scale; row++)
      for (let column = x * scale; column < (x + 1) * scale; column++)
        pixels.fill(0, (row * width + column) * 4, (row * width + column) * 4 + 3);
  }
  return jsQR(pixels, width, width)?.data;
}

describe("the recovery kit's page", () => {
  const html = htmlPage(kit);
  const text = textPage(kit);
  /** The Python program in the frame for the new machine that has these words. */
  const programWith = (words: string) => {
    const frame = framesOf(html, "new").find((each) => each.includes(words)) ?? "";
    return /<<'END'\n([\s\S]*?\n)END\n/.exec(frame)?.[1] ?? "";
  };

  it("opens our repository, whatever the new machine's environment says about another one", () => {
    const [, page = ""] = /^cat > settings <<'END'\n([\s\S]*?)^END$/m.exec(textPage(kit)) ?? [];
    assert.match(page, /^BORG_REPO=/m);
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-kit-"));
    try {
      writeFileSync(join(folder, "repository"), "ssh://offsite/ours\n");
      writeFileSync(join(folder, "settings"), page.replace(/^KIT=.*$/m, `KIT=${folder}`));
      const foreign = { BORG_PASSPHRASE: "theirs\nBORG_X=1", BORG_KEY_FILE: "/theirs", BORG_REPO: "/theirs" };
      const { stdout, stderr } = spawnSync("sh", ["-eu", "-c", `. ${folder}/settings; env | grep ^BORG_ | sort`], {
        encoding: "utf8",
        env: { PATH: process.env.PATH, ...foreign },
      });
      assert.equal(stderr, "");
      assert.match(stdout, /^BORG_REPO=ssh:\/\/offsite\/ours$/m);
      assert.doesNotMatch(stdout, /theirs|BORG_PASSPHRASE|BORG_KEY_FILE/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("says for which deployment, when and by what it was made, and where the copies are", () => {
    for (const page of [text, unescaped(html.replace(/<\/?(?:code|strong)>/g, ""))]) {
      for (const word of [
        "CHT recovery kit: prod",
        "2026-11-22 03:04 UTC by cht-backup 1.2.3",
        "10.0.0.2",
        "SSH on port 2222 (from where this page was made: backup.example.org)",
        "cht-backup-prod",
        "/mnt/backup/prod/repository",
        "5a".repeat(32),
        "/data/one, /data/two",
        "/srv/cht",
      ])
        assert.ok(page.includes(word), word);
    }
  });

  it("shows the fingerprint of the server's key as ssh does", () => {
    const { stdout } = spawnSync("ssh-keygen", ["-lf", "-"], { input: hostKey, encoding: "utf8" });
    const [fingerprint = "none"] = /SHA256:\S+/.exec(stdout) ?? [];
    assert.ok(text.includes(fingerprint), stdout);
  });

  it("says which key is of an earlier repository, and which an earlier one of this", () => {
    const formerKeys = { ["b6".repeat(32)]: former, ["5a".repeat(32)]: key, [`${"5a".repeat(32)} 2`]: key };
    const page = textPage({ ...kit, deployment: { ...kit.deployment, formerKeys } });
    const titles = [...page.matchAll(/^## [A-Z]\. (.*)$/gm)].map(([, title]) => title);
    const earlier = "An earlier key of this repository";
    assert.deepEqual(titles.slice(2), ["The key of an earlier repository", earlier, earlier]);
  });

  it("has a frame for the server's root that puts the key back, whatever became of it, and nothing into another one", function () {
    this.timeout(20_000);
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-test-"));
    try {
      const head = `[repository]\nversion = 1\nappend_only = 1\nid = ${"5a".repeat(32)}\n`;
      const [body = ""] = framesOfText(text.slice(text.indexOf("## 6a")), "BACKUP SERVER");
      const config = join(folder, "config");
      const put = (input: string) =>
        spawnSync("bash", ["-c", body.replace("/mnt/backup/prod/repository", folder)], { input, encoding: "utf8" });
      for (const damage of ["", "\n", `key = ${line}\n\t${line}\n\n`, "key = x\rid = 00\n\n"]) {
        writeFileSync(config, head + damage, { mode: 0o640 });
        const { stdout, stderr } = put(`${key}\n`);
        assert.match(stdout, /^DONE/m, stderr);
        assert.equal(readFileSync(config, "utf8"), `${head}key = ${key.trimEnd().split("\n").slice(1).join("\n\t")}\n`);
      }
      assert.match(put(former).stdout, /^STOP: this is not the key of this page/m);
      writeFileSync(config, head.replaceAll("5a", "b6"));
      assert.match(put(key).stdout, /^STOP: this is another repository/m);
      assert.equal(readFileSync(config, "utf8"), head.replaceAll("5a", "b6"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("holds passphrase, key and former keys exactly, as text and as QR codes that a scanner reads", () => {
    const secrets = [passphrase, key.trimEnd(), former.trimEnd()];
    assert.deepEqual(framesOfText(text, "secret"), secrets);
    assert.deepEqual(framesOf(html, "text"), secrets);
    assert.deepEqual(
      [...html.matchAll(/<svg[\s\S]*?<\/svg>/g)].map(([svg]) => scan(svg)),
      secrets,
    );
    assert.equal(scan(qrCode("a code that isn't the passphrase")), "a code that isn't the passphrase");
  });

  it("has the same frames in both forms, each a group that the shell reads whole before it begins", () => {
    const frames = framesOf(html, "new");
    assert.ok(frames.length >= 13);
    assert.deepEqual(framesOfText(text, "NEW MACHINE, as root"), frames);
    assert.deepEqual(framesOfText(text, "BACKUP SERVER, as root"), framesOf(html, "server"));
    for (const frame of [...frames, ...framesOf(html, "server")]) {
      assert.match(frame, /^\( set -e\n[\s\S]*\necho "DONE: [\s\S]*\n\)$/);
      const parsed = spawnSync("bash", ["-n"], { input: frame, encoding: "utf8" });
      assert.equal(parsed.status, 0, `${frame}\n${parsed.stderr}`);
    }
  });

  it("fits on paper: no line of a frame is wider than 78 characters", () => {
    const long = [...framesOf(html, "new"), ...framesOf(html, "server")].flatMap((frame) =>
      frame.split("\n").filter((each) => each.length > 78),
    );
    assert.deepEqual(long, []);
  });

  it("lets the new machine do on the server what the CHT machine may, and nothing else", () => {
    const [frame = ""] = framesOf(html, "server");
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-kit-"));
    try {
      const here = frame.replaceAll("/mnt/backup/prod/.ssh", `${folder}/.ssh`).replace('[ -d "$repository" ]', "true");
      for (const _ of [1, 2]) {
        const done = spawnSync("bash", ["-c", here], { input: "ssh-ed25519 AAAAnew cht-recovery\n", encoding: "utf8" });
        assert.equal(done.status, 0, done.stderr);
      }
      const { stdout } = spawnSync("cat", [join(folder, ".ssh", "authorized_keys")], { encoding: "utf8" });
      // borg's own: a server that was made anew has nothing of this project. On one that has, sshd puts the guard before it.
      const command = "/usr/bin/borg serve --append-only --restrict-to-repository /mnt/backup/prod/repository";
      const shape = /^restrict,expiry-time="\d{8}",command="(.*)" ssh-ed25519 AAAAnew cht-recovery\n$/;
      assert.equal(shape.exec(stdout)?.[1], command);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("stops before anything is put in its place when the archive is of a CHT with another home", () => {
    const program = programWith('"environment", "certificate"');
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-kit-"));
    try {
      const collect = join(folder, "run/cht-backup/prod/collect");
      mkdirSync(collect, { recursive: true });
      const check = (home: string) => {
        const places = {
          environment: "/srv/cht/upgrade-service/.env",
          certificate: "c",
          key: "k",
          couchdb: [],
          volumes: {},
        };
        for (const part of ["before", "after"])
          writeFileSync(join(collect, `manifest-${part}.json`), JSON.stringify({ part, files: {}, places }));
        return spawnSync("python3", ["-", join(folder, "places"), home], {
          cwd: folder,
          input: program,
          encoding: "utf8",
        });
      };
      const other = check("/srv/other");
      assert.equal(other.status, 1);
      assert.match(
        other.stderr,
        /^STOP: in this archive \.env is \/srv\/cht\/upgrade-service\/\.env,\nso .* isn't \/srv\/other: /,
      );
      assert.ok(!existsSync(join(folder, "places")));
      assert.equal(check("/srv/cht").status, 0);
      assert.equal(readFileSync(join(folder, "places"), "utf8"), "directory /srv/cht\n");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("takes for right what CouchDB does to its files while they are backed up, as a restore does, and nothing else", () => {
    const program = programWith('"environment", "certificate"');
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-kit-"));
    try {
      const collect = join(folder, "run/cht-backup/prod/collect");
      const shard = "data/one/shards/00000000-7fffffff";
      for (const path of [collect, join(folder, shard)]) mkdirSync(path, { recursive: true });
      for (const path of [`${shard}/medic.17.couch`, "cert"]) writeFileSync(join(folder, path), "");
      const other = { kind: "file", mode: "0611", uid: 5984, gid: 5984, size: 0 };
      const wrong = (path: string, unsteady: string[]) => {
        const files = { [path]: other };
        const places = { environment: null, certificate: "c", key: "k", couchdb: ["/data/one"], volumes: {} };
        for (const part of ["before", "after"])
          writeFileSync(join(collect, `manifest-${part}.json`), JSON.stringify({ part, files, places, unsteady }));
        return spawnSync("python3", ["-", join(folder, "places"), "/srv/cht"], {
          cwd: folder,
          input: program,
          encoding: "utf8",
        }).stdout;
      };
      const swapped = wrong(`/${shard}/medic.17.couch`, []);
      assert.doesNotMatch(swapped, /owner or mode/);
      assert.match(swapped, /^1 files and directories are right/m);
      assert.match(wrong("/cert", []), /WRONG: \/cert has another owner or mode/);
      assert.match(wrong(`/${shard}/gone.18.couch`, []), /WRONG: .*gone\.18\.couch is missing/);
      assert.doesNotMatch(wrong(`/${shard}/gone.18.couch`, ["gone"]), /is missing/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("logs in with the password as Docker read it, whatever .env looks like", () => {
    const program = programWith("Config.Env");
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-kit-"));
    try {
      const password = "pa$s'w or#d é=x";
      writeFileSync(join(folder, "env.json"), JSON.stringify(["PATH=/bin", `COUCHDB_PASSWORD=${password}`]));
      writeFileSync(join(folder, "docker"), `#!/bin/sh\ncat '${folder}/env.json'\n`, { mode: 0o755 });
      const input = `${program.split("direct = ")[0]}\nprint(login.decode())\n`;
      const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
      const done = spawnSync("python3", ["-", "address", "container"], { input, env, encoding: "utf8" });
      assert.equal(done.stdout, `medic:${password}\n`, done.stderr);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("puts back the modes that directories had, through no link, and names what was outside the home", () => {
    const program = programWith('"environment", "certificate"');
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-kit-"));
    try {
      const collect = join(folder, "run/cht-backup/prod/collect");
      for (const path of [collect, join(folder, "srv/cht/compose")]) mkdirSync(path, { recursive: true });
      symlinkSync("/etc", join(folder, "srv/cht/link"));
      const places = {
        ...{
          environment: "/srv/cht/upgrade-service/.env",
          certificate: "c",
          key: "k",
          couchdb: ["/data"],
          volumes: {},
        },
        ...{ elsewhere: { "/data/shards": "/big/shards" }, outside: ["/etc/cht/env\u001b"] },
      };
      const own = { mode: "0700", uid: 5, gid: 6 };
      const parents = { "/srv/cht": own, "/srv/cht/link": own, "/srv/cht/link/cron.d": own, "/srv/gone": own };
      for (const part of ["before", "after"])
        writeFileSync(join(collect, `manifest-${part}.json`), JSON.stringify({ part, files: {}, places, parents }));
      const done = spawnSync("python3", ["-", join(folder, "places"), "/srv/cht"], {
        cwd: folder,
        input: program,
        encoding: "utf8",
      });
      assert.equal(done.status, 0, done.stderr);
      assert.deepEqual(readFileSync(join(folder, "places"), "utf8").split("\n"), [
        ...["directory /srv/cht", "directory /data", "directory /big/shards", "above 0700 5:6 /srv/cht"],
        ...["outside /etc/cht/env\\x1b", ""],
      ]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("shows what a hostile machine made of its keys as it is, and does nothing by it", () => {
    const evil = "<script>alert(1)</script>\u001b[2J\u202e";
    const deployment = { ...kit.deployment, key: `${key}${evil}\n`, hostKey: `ssh-ed25519${evil} AAAA${evil}` };
    const pages = [textPage({ ...kit, deployment }), htmlPage({ ...kit, deployment })];
    for (const page of pages) assert.equal(page, plainLines(page));
    assert.ok(pages[0]?.includes("alert(1)</script>\\x1b[2J\\u202e"));
    assert.doesNotMatch(pages[1] ?? "", /<script/);
  });

  it("needs nothing from elsewhere, and runs nothing", () => {
    assert.doesNotMatch(html, /<script|<link|<img|<iframe|src=|href=|@import|url\(|\son\w+=/);
    assert.match(html, /^<!doctype html>\n<!-- cht-backup recovery kit -->\n/);
  });

  it("leaves no placeholder open", () => {
    assert.doesNotMatch(text.replaceAll(passphrase, ""), /@[A-Z_]+@/);
  });
});

describe("the recovery kit's page of a deployment with a bucket", () => {
  const html = htmlPage(bucketKit);
  const text = textPage(bucketKit);

  it("says where the bucket is, and how the repository is fetched from it", () => {
    for (const word of ["in the bucket moh-copy", "https://s3.example.org", "us-east-1", "prod/", "READER"])
      assert.ok(text.includes(word) && unescaped(html).includes(word), word);
    const frames = framesOf(html, "new");
    assert.deepEqual(framesOfText(text, "NEW MACHINE, as root"), frames);
    assert.equal(frames.length, framesOf(htmlPage(kit), "new").length + 1);
    const frame = frames.find((each) => each.includes("list_object_versions")) ?? "";
    assert.match(frame, /^\( set -e\n[\s\S]*\necho "DONE: [\s\S]*\n\)$/);
    assert.deepEqual(
      frame.split("\n").filter((each) => each.length > 78),
      [],
    );
    assert.equal(spawnSync("bash", ["-n"], { input: frame }).status, 0);
    const [, program = ""] = /<<'END'\n([\s\S]*?\n)END\n/.exec(frame) ?? [];
    const parsed = spawnSync("python3", ["-c", "import ast, sys; ast.parse(sys.stdin.read())"], { input: program });
    assert.equal(parsed.status, 0, String(parsed.stderr));
    assert.doesNotMatch(text.replaceAll(passphrase, ""), /@[A-Z_]+@|\[bucket\.md\]/);
  });

  it("holds the reader's secret as part C, as text and as a QR code, and the writer's nowhere", () => {
    const secrets = [passphrase, key.trimEnd(), readerSecret, former.trimEnd()];
    assert.deepEqual(framesOfText(text, "secret"), secrets);
    assert.deepEqual(
      [...html.matchAll(/<svg[\s\S]*?<\/svg>/g)].map(([svg]) => scan(svg)),
      secrets,
    );
    assert.match(text, /^## C\. The secret of the bucket's key$/m);
    assert.ok(!text.includes("writers.secret") && !html.includes("writers.secret"));
  });

  it("says so where there is none", () => {
    assert.match(textPage(kit), /^- There is no copy of it in a bucket: the server's is the only one\.$/m);
    assert.doesNotMatch(textPage(kit), /boto3|part C|\[bucket\.md\]/);
  });
});

describe("the recovery kit's files", () => {
  let folder: string;
  beforeEach(() => {
    folder = realpathSync(mkdtempSync(join(tmpdir(), "cht-backup-kit-")));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it("go where the user says, seen from where the user is; an older kit makes room", () => {
    const expected = { html: join(folder, "kit.html"), text: join(folder, "kit.txt") };
    assert.deepEqual(places("kit.html", folder), expected);
    writeFileSync(expected.html, htmlPage(kit));
    writeFileSync(expected.text, textPage(kit));
    assert.deepEqual(places(expected.html, "/"), expected);
  });

  it("are refused inside a git work tree, by whatever way one comes there", () => {
    const tree = join(folder, "tree");
    mkdirSync(join(tree, ".git"), { recursive: true });
    mkdirSync(join(tree, "deep"));
    symlinkSync(join(tree, "deep"), join(folder, "link"));
    for (const output of ["tree/kit.html", "tree/deep/kit.html", "link/kit.html"])
      assert.throws(
        () => places(output, folder),
        /is inside the git work tree \S+\/tree: give a place outside/,
        output,
      );
  });

  it("are refused in one line where they can't be", () => {
    writeFileSync(join(folder, "notes.html"), "my notes");
    writeFileSync(join(folder, "other.txt"), "my notes");
    for (const [output, reason] of [
      ["kit.pdf", /its name must end in \.html/],
      [".html", /its name must end in \.html/],
      ["nowhere/kit.html", /there is no directory \S+\/nowhere$/],
      ["notes.html", /notes\.html is there already and is no recovery kit/],
      ["other.html", /other\.txt is there already and is no recovery kit/],
    ] as const)
      assert.throws(() => places(output, folder), reason, output);
  });
});

describe("the reminder of the recovery kit", () => {
  const digest = kitDigest(settings, key, hostKey);

  it("comes while none has been made, and ends with it", () => {
    assert.match(kitReminder(undefined, digest, "prod") ?? "", /^no recovery kit has been made: .*--stack prod$/);
    assert.equal(kitReminder(`2026-11-22 ${digest}`, digest, "prod"), undefined);
  });

  it("comes again when key or passphrase, the server's key, its place, the bucket's or the CHT's have changed", () => {
    const changed = [
      kitDigest(settings, former, hostKey),
      kitDigest(settings, key, `${hostKey}A`),
      kitDigest({ ...settings, server: { ...settings.server, address: "10.0.0.3" } }, key, hostKey),
      kitDigest({ ...settings, server: { ...settings.server, port: 22 } }, key, hostKey),
      kitDigest({ ...settings, server: { ...settings.server, dataDirectory: "/mnt/other" } }, key, hostKey),
      kitDigest({ ...settings, machines: { ...settings.machines, server: settings.machines.cht } }, key, hostKey),
      ...[{ home: "/srv/other" }, { composeProject: "other" }, { couchdbData: ["/data/one"] }].map((change) =>
        kitDigest({ ...settings, cht: { ...settings.cht, ...change } }, key, hostKey),
      ),
      kitDigest(withBucket, key, hostKey),
      ...[
        { name: "other" },
        { endpoint: null },
        { region: "x" },
        { pathStyle: false },
        { prefix: "x/" },
        { reader: { accessKeyId: "NEW" } },
      ].map((change) =>
        kitDigest({ ...withBucket, bucket: { ...(withBucket.bucket as Bucket), ...change } }, key, hostKey),
      ),
    ];
    assert.equal(new Set([digest, ...changed]).size, changed.length + 1);
    for (const now of changed)
      assert.match(
        kitReminder(`2026-11-22 ${digest}`, now, "prod") ?? "",
        /^the recovery kit of 2026-11-22 is out of date: /,
      );
  });
});
