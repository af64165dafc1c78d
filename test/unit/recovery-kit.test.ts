import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import jsQR from "jsqr";
import { recoverProgram } from "../../components/recover-program";
import { kitDigest, kitReminder } from "../../components/recovery-kit";
import { type Bucket, isLocated, readSettings } from "../../config";
import { places } from "../../operations/recovery-kit";
import { factsOf, htmlPage, type Kit, qrCode, textPage } from "../../operations/recovery-kit/page";
import { project } from "../../toolchain/paths";
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
assert.ok(isLocated(settings));
const kit: Kit = {
  stack: "prod",
  made: new Date("2026-11-22T03:04:05Z"),
  version: "1.2.3",
  program: { name: "recover-0123456789ab.pyz", sha256: `0123456789ab${"c".repeat(52)}` },
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
assert.ok(isLocated(withBucket));
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

/** What Python code prints that has the package at hand. */
function python(code: string, input = ""): string {
  const done = spawnSync("python3", ["-B", "-c", code], {
    input: Buffer.from(input),
    cwd: join(project, "hosts"),
  });
  assert.equal(done.status, 0, String(done.stderr));
  return done.stdout.toString("latin1");
}

describe("the program that the recovery kit's page names", () => {
  it("is byte for byte what machines make of the same package", () => {
    const made = python(
      "import sys; from chtbackup.base import pack; made = pack.program();" +
        "print(made.name); sys.stdout.flush(); sys.stdout.buffer.write(made.content)",
    );
    const { name, content, sha256 } = recoverProgram();
    assert.ok(made === `${name}\n${content.toString("latin1")}`);
    assert.equal(name, `recover-${sha256.slice(0, 12)}.pyz`);
  });
});

describe("the recovery kit's page", () => {
  const html = htmlPage(kit);
  const text = textPage(kit);

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

  it("holds passphrase, key and former keys exactly, as text and as QR codes that a scanner reads", () => {
    const facts = factsOf(kit.deployment);
    assert.ok(facts.split("\n").includes(`passphrase ${passphrase}`));
    const secrets = [facts, key.trimEnd(), former.trimEnd()];
    assert.deepEqual(framesOfText(text, "secret"), secrets);
    assert.deepEqual(framesOf(html, "text"), secrets);
    assert.deepEqual(
      [...html.matchAll(/<svg[\s\S]*?<\/svg>/g)].map(([svg]) => scan(svg)),
      secrets,
    );
    assert.equal(scan(qrCode("a code that isn't the passphrase")), "a code that isn't the passphrase");
  });

  it("tells the program all that it must know, in lines that it reads", () => {
    for (const { deployment } of [kit, bucketKit]) {
      const read =
        "import json, sys; from chtbackup.recover import paper; of = paper.read(sys.stdin.buffer.read().decode());" +
        "print(json.dumps([of.facts, of.earlier]))";
      const [facts, earlier] = JSON.parse(python(read, factsOf(deployment)));
      const { bucket, reader, ...rest } = facts;
      assert.deepEqual(rest, {
        deployment: "prod",
        server: "10.0.0.2 2222 cht-backup-prod",
        "host-key": hostKey,
        repository: "/mnt/backup/prod/repository",
        id: "5a".repeat(32),
        passphrase,
      });
      assert.deepEqual(earlier, ["b6".repeat(32)]);
      const known = deployment.settings.bucket
        ? ["moh-copy us-east-1 path https://s3.example.org prod/", `READER ${readerSecret}`]
        : [undefined, undefined];
      assert.deepEqual([bucket, reader], known);
    }
    const wrong = factsOf(kit.deployment).replace("10.0.0.2", "10.0.0.3");
    const told = python(
      "import sys; from chtbackup.recover import paper\ntry: paper.read(sys.stdin.read())\nexcept paper.Mistyped as error: print(error)",
      wrong,
    );
    assert.match(told, /^line 3 \(`server`\) isn't what the page has/);
  });

  it("has the sum of the key by which the program knows it", () => {
    const sum = python(
      "import sys; from chtbackup.recover import key; print(key.sum_of(key.typed(sys.stdin.read())))",
      key,
    ).trim();
    assert.equal(sum.length, 16);
    assert.equal(text.split(sum).length - 1, 2);
  });

  it("has the same frames in both forms, of commands that the shell reads", () => {
    const frames = framesOf(html, "new");
    assert.equal(frames.length, 8);
    assert.deepEqual(framesOfText(text, "NEW MACHINE, as root"), frames);
    for (const frame of frames) {
      const parsed = spawnSync("bash", ["-n"], { input: frame, encoding: "utf8" });
      assert.equal(parsed.status, 0, `${frame}\n${parsed.stderr}`);
    }
  });

  it("has the program checked before it is run: by the sum of this page, and no other", () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-kit-"));
    try {
      const { content, ...program } = recoverProgram();
      const frames = framesOf(htmlPage({ ...kit, program }), "new");
      const fetched = frames.findIndex((frame) => frame.includes(`/mnt/backup/prod/recovery/${program.name}`));
      const checked = frames.findIndex((frame) => frame.includes("sha256sum -c"));
      const run = frames.findIndex((frame) => frame.includes("python3 recover.pyz"));
      assert.ok(0 <= fetched && fetched < checked && checked < run, `${fetched} ${checked} ${run}`);
      for (const [bytes, said] of [
        [content, "recover.pyz: OK\n"],
        [Buffer.concat([content, Buffer.from(" ")]), "recover.pyz: FAILED\n"],
      ] as const) {
        writeFileSync(join(folder, "recover.pyz"), bytes);
        const done = spawnSync("bash", ["-c", frames[checked] ?? ""], { cwd: folder, encoding: "utf8" });
        assert.equal(done.stdout, said);
        assert.equal(done.status === 0, said.endsWith("OK\n"));
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("has room on three pages of paper, by what Chromium prints on them", () => {
    // 192 lines and 9,600 letters before part A are two pages with an eighth of one left; parts A and B are the third.
    for (const of of [kit, bucketKit]) {
      const [page = ""] = textPage(of).split(/^## A\. /m);
      assert.ok(page.split("\n").length <= 198, String(page.split("\n").length));
      assert.ok(page.length <= 9800, String(page.length));
    }
    // Each code as it is printed, side by side: 182 mm are the page's width.
    const codes = [...htmlPage(bucketKit).matchAll(/<svg width="([\d.]+)mm"/g)].map(([, width]) => Number(width));
    assert.ok((codes[0] ?? 0) + (codes[1] ?? 0) <= 168.1, String(codes));
    assert.ok(Math.min(...codes) >= 50, String(codes));
  });

  it("has a last resort with borg alone, and says that it proves nothing", () => {
    const section = /^## The last resort: borg alone\n([\s\S]*?)^## A\. /m.exec(text)?.[1] ?? "";
    assert.match(section, /^\*\*Unproven\*\*/m);
    assert.match(section, /^borg extract --numeric-ids ::NAME$/m);
    assert.ok((framesOfText(section, "NEW MACHINE, as root")[0] ?? "").split("\n").length <= 10);
  });

  it("fits on paper: no line of a frame is wider than 78 characters", () => {
    const long = framesOf(html, "new").flatMap((frame) => frame.split("\n").filter((each) => each.length > 78));
    assert.deepEqual(long, []);
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

  it("says where the bucket is, and how the program is fetched from it by one signed request", () => {
    for (const word of ["in the bucket moh-copy", "https://s3.example.org", "us-east-1", "prod/"])
      assert.ok(text.includes(word) && unescaped(html).includes(word), word);
    const frames = framesOf(html, "new");
    assert.deepEqual(framesOfText(text, "NEW MACHINE, as root"), frames);
    assert.equal(frames.length, framesOf(htmlPage(kit), "new").length + 1);
    const frame = frames.find((each) => each.includes("--aws-sigv4")) ?? "";
    assert.ok(frame.includes("https://s3.example.org/moh-copy/prod/recover-0123456789ab.pyz"), frame);
    assert.ok(!frame.includes(readerSecret));
    assert.equal(spawnSync("bash", ["-n"], { input: frame }).status, 0);
    assert.doesNotMatch(text.replaceAll(passphrase, ""), /@[A-Z_]+@|\[bucket\.md\]/);
  });

  it("names the object as the server of each bucket wants it", () => {
    const urlIn = (change: Partial<Bucket>) => {
      const settings = { ...withBucket, bucket: { ...(withBucket.bucket as Bucket), ...change } };
      const page = textPage({ ...bucketKit, deployment: { ...bucketKit.deployment, settings } });
      return /^ {2}(https?:\S+)$/m.exec(page)?.[1];
    };
    const file = "prod/recover-0123456789ab.pyz";
    assert.equal(urlIn({ pathStyle: false }), `https://moh-copy.s3.example.org/${file}`);
    const aws = { endpoint: null, region: "eu-west-1", pathStyle: false };
    assert.equal(urlIn(aws), `https://moh-copy.s3.eu-west-1.amazonaws.com/${file}`);
    assert.equal(urlIn({ ...aws, name: "moh.copy" }), `https://s3.eu-west-1.amazonaws.com/moh.copy/${file}`);
    assert.equal(
      urlIn({ endpoint: "http://10.0.0.9:9000", prefix: "" }),
      "http://10.0.0.9:9000/moh-copy/recover-0123456789ab.pyz",
    );
  });

  it("holds the reader's secret in part A, as text and in a QR code, and the writer's nowhere", () => {
    const facts = factsOf(bucketKit.deployment);
    assert.ok(facts.split("\n").includes(`reader READER ${readerSecret}`));
    const secrets = [facts, key.trimEnd(), former.trimEnd()];
    assert.deepEqual(framesOfText(text, "secret"), secrets);
    assert.deepEqual(
      [...html.matchAll(/<svg[\s\S]*?<\/svg>/g)].map(([svg]) => scan(svg)),
      secrets,
    );
    assert.ok(!text.includes("writers.secret") && !html.includes("writers.secret"));
  });

  it("says so where there is none", () => {
    assert.match(textPage(kit), /^- There is no copy of it in a bucket: the server's is the only one\.$/m);
    assert.doesNotMatch(textPage(kit), /aws-sigv4|^bucket |^reader |\[bucket\.md\]/m);
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
