import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import * as messages from "@pulumi/pulumi/proto/provider_pb";
import { backupsSoFar, lookAndJudge } from "../../provider/backups-so-far";
import { type BackupsSoFarInputs, bucketPlace } from "../../provider/backups-so-far-judgement";
import { openKey, wrapKey } from "../../provider/borg-key";
import { observeRepository } from "../../provider/borg-repository";
import { toStruct } from "../../provider/plugin";
import type { Inputs, Machines } from "../../provider/resource";
import { handlers } from "../../provider/server";
import { actionScript, batchScript, parseBatch, type ShellCall } from "../../provider/shell";

const fixture: { passphrase: string; exports: Record<string, string> } = JSON.parse(
  readFileSync(join(__dirname, "../fixtures/borg-keys.json"), "utf8"),
);
const { passphrase } = fixture;
const exported = fixture.exports["repokey-blake2 of borg 1.4.5"] ?? "";
const other = fixture.exports["repokey-blake2 of borg 1.2.8"] ?? "";
const idIn = (text: string) => text.slice(9, 73);

const configOf = (text: string, withKey = true) =>
  `[repository]\nversion = 1\nsegments_per_dir = 1000\nmax_segment_size = 524288000\nappend_only = 1\n` +
  `storage_quota = 0\nadditional_free_space = 0\nid = ${idIn(text)}\n` +
  `${withKey ? `key = ${text.split("\n").slice(1, -1).join("\n\t")}\n` : ""}\n`;

/** A segment that begins with a PUT of something encrypted with this kind of key. */
const segment = (type: number) =>
  Buffer.concat([
    Buffer.from("BORG_SEG"),
    Buffer.alloc(8),
    Buffer.from([0]),
    Buffer.alloc(32),
    Buffer.from([type, 1, 2]),
  ]);

/** Both machines in one folder, looked at by the very scripts that the plugin sends. */
class Machine {
  readonly folder = mkdtempSync(join(tmpdir(), "cht-backup-test-"));
  /** Home of the account on the server; empty: there is none. */
  accountHome = "";
  account = "cht-backup-moh";

  in(...words: string[]): string {
    return join(this.folder, ...words);
  }

  inputs(change: Record<string, unknown> = {}): Inputs {
    return backupsSoFar.inputs.parse({
      machine: "server",
      deployment: "moh",
      path: this.in("srv/moh/repository"),
      account: this.account,
      note: this.in("state/moh/adopted.json"),
      client: "cht",
      clientSettings: this.in("etc/moh"),
      baseDirectory: this.in("base"),
      home: "/srv/cht",
      chunker: "fixed,262144",
      bucket: "",
      bucketFile: this.in("bucket/moh/bucket.json"),
      ...change,
    }) as Inputs;
  }

  store(path: string, config = configOf(exported), type = 5): void {
    mkdirSync(join(path, "data", "0"), { recursive: true });
    writeFileSync(join(path, "data", "0", "7"), segment(type));
    writeFileSync(join(path, "config"), config, { mode: 0o600 });
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(this.in(path)), { recursive: true });
    writeFileSync(this.in(path), text);
  }

  /** The client has backed up into a repository. */
  knows(text: string): void {
    mkdirSync(this.in("base/.config/borg/security", idIn(text)), { recursive: true });
  }

  private shell(script: string): string {
    const getent = `getent() { [ -z '${this.accountHome}' ] || echo "$2:x:1:1::${this.accountHome}:/bin/sh"; }\n`;
    const { status, stdout, stderr } = spawnSync("sh", ["-s"], { input: getent + script, encoding: "utf8" });
    assert.equal(status, 0, stderr);
    return stdout;
  }

  readonly machines = ((_: string) => ({
    read: async (call: ShellCall) => parseBatch(this.shell(batchScript([call])), 1)[0],
    act: async (call: ShellCall) => this.shell(actionScript(call)),
  })) as unknown as Machines;

  /** What is refused, each in a line, and what is announced. */
  async survey(change: Record<string, unknown> = {}, before?: Inputs): Promise<{ refused: string; said: string }> {
    const tree = () => spawnSync("find", [this.folder, "-printf", "%p %m %U %G %s\n"], { encoding: "utf8" }).stdout;
    const there = tree();
    const wanted = this.inputs(change) as BackupsSoFarInputs;
    const judged = await lookAndJudge(this.machines, wanted, before as BackupsSoFarInputs | undefined);
    assert.equal(tree(), there, "a look changed something");
    return { refused: judged.mistakes.map(({ reason }) => reason).join("\n"), said: judged.announcements.join("\n") };
  }
}

describe("backups so far", function () {
  this.timeout(60_000);
  let machine: Machine;
  beforeEach(() => {
    machine = new Machine();
  });
  afterEach(() => rmSync(machine.folder, { recursive: true }));

  /** As `up` leaves it. */
  function deployed(): Inputs {
    machine.accountHome = machine.in("srv/moh");
    machine.store(machine.in("srv/moh/repository"));
    machine.knows(exported);
    const settings = { chtHome: "/srv/cht", repository: "ssh://offsite/srv/moh/repository", chunker: "fixed,262144" };
    machine.write("etc/moh/settings.json", JSON.stringify(settings));
    machine.write("bucket/moh/bucket.json", JSON.stringify({ bucket: "copies", prefix: "moh", endpoint: null }));
    return machine.inputs({ bucket: "copies/moh at AWS" });
  }

  it("are gone on with, and nothing is said, while the settings stay", async () => {
    const before = deployed();
    for (const known of [before, undefined]) {
      assert.deepEqual(await machine.survey({ bucket: "copies/moh at AWS" }, known), { refused: "", said: "" });
    }
  });

  it("that there are none of are begun without a word", async () => {
    assert.deepEqual(await machine.survey(), { refused: "", said: "" });
  });

  it("don't begin anew because of another dataDirectory, with state or without, and go on once they are moved", async () => {
    const before = deployed();
    const moved = { path: machine.in("mnt/moh/repository"), bucket: "copies/moh at AWS" };
    for (const known of [before, undefined]) {
      const { refused } = await machine.survey(moved, known);
      assert.match(refused, /the repository of moh is in \S+srv\/moh\/repository, and there is none in \S+mnt\/moh/);
      assert.match(refused, /Set cht-backup:server.dataDirectory back to \S+srv; or move .*`mkdir -p \S+mnt && mv /);
    }
    const command = /`(mkdir -p .*?)`/.exec((await machine.survey(moved, before)).refused)?.[1] ?? "";
    assert.equal(spawnSync("sh", ["-c", command]).status, 0, command);
    assert.deepEqual(await machine.survey(moved, before), { refused: "", said: "" });
    machine.store(machine.in("srv/moh/repository"), configOf(other));
    assert.match((await machine.survey(moved, before)).refused, /and another one in \S+mnt.*Move the one aside/);
  });

  it("don't begin anew because the stack was renamed, or its deployment", async () => {
    const before = deployed();
    const renamed = {
      deployment: "health",
      account: "cht-backup-health",
      path: machine.in("srv/health/repository"),
      clientSettings: machine.in("etc/health"),
      baseDirectory: machine.in("base-of-health"),
      bucketFile: machine.in("bucket/health/bucket.json"),
    };
    machine.accountHome = "";
    const { refused } = await machine.survey(renamed, before);
    assert.match(refused, /are those of the deployment moh, .* as health they would begin anew/);
    assert.match(refused, /cht-backup:deployment: moh/);
    const withoutState = await machine.survey(renamed);
    assert.match(withoutState.said, /\/srv\/cht is backed up as moh already.*set cht-backup:deployment: moh/);
    assert.equal((await machine.survey({ ...renamed, home: "/srv/another" })).said, "");
  });

  it("are given another name where nothing was stored under the wrong one", async () => {
    assert.equal(
      (await machine.survey({ deployment: "health" }, machine.inputs({ deployment: "haelth" }))).refused,
      "",
    );
  });

  it("that have lost their configuration, or have a damaged one, are still the deployment's: `up` builds it anew", async () => {
    const before = deployed();
    const config = machine.in("srv/moh/repository/config");
    for (const damage of [() => writeFileSync(config, "[repository]\nversion = 1\n"), () => rmSync(config)]) {
      damage();
      for (const known of [before, undefined]) {
        assert.deepEqual(await machine.survey({ bucket: "copies/moh at AWS" }, known), { refused: "", said: "" });
      }
    }
  });

  it("that aren't on the server any more are announced before new ones begin", async () => {
    deployed();
    rmSync(machine.in("srv"), { recursive: true });
    const { said } = await machine.survey({ bucket: "copies/moh at AWS" });
    assert.match(said, /there is no repository in .* though cht has backed up as moh before .*docs\/restore.md, 8/);
  });

  it("are announced to be stored once more by another chunker, and copied once more to another place in a bucket", async () => {
    const before = deployed();
    const changed = { chunker: "fixed,1048576", bucket: bucketPlace({ name: "copies", prefix: "new" }) };
    const { said, refused } = await machine.survey(changed, before);
    assert.equal(refused, "");
    assert.match(
      said,
      /cht-backup:chunker is fixed,1048576, and backups were cut with fixed,262144 so far: the next one/,
    );
    assert.match(said, /copies go to copies\/new at AWS from now on, .* Those in copies\/moh at AWS stay/);
    assert.match((await machine.survey({ bucket: "" }, before)).said, /copies to copies\/moh at AWS end/);
    const elsewhere = bucketPlace({ name: "copies", prefix: "moh", endpoint: "https://s3.example.org" });
    assert.match((await machine.survey({ bucket: elsewhere }, before)).said, /copies\/moh at https:\/\/s3.example.org/);
  });

  it("are announced to be stored once more where the chunker is still in borgmatic's configuration, too", async () => {
    const before = deployed();
    machine.write("etc/moh/settings.json", JSON.stringify({ chtHome: "/srv/cht", repository: "r" }));
    machine.write("etc/moh/borgmatic.yaml", 'chunker_params: "fixed,262144"\n');
    const kept = { bucket: "copies/moh at AWS" };
    assert.deepEqual(await machine.survey(kept, before), { refused: "", said: "" });
    const { said } = await machine.survey({ ...kept, chunker: "fixed,1048576" }, before);
    assert.match(said, /backups were cut with fixed,262144 so far/);
  });
});

describe("a repository made by hand", function () {
  this.timeout(60_000);
  const short = "PASSWORD";
  let machine: Machine;
  let path: string;
  let weak: string;
  before(async () => {
    const opened = await openKey(exported, passphrase);
    if ("reason" in opened) assert.fail(opened.reason);
    weak = await wrapKey(opened.contents, short);
  });
  beforeEach(() => {
    machine = new Machine();
    path = machine.in("srv/moh/repository");
  });
  afterEach(() => rmSync(machine.folder, { recursive: true }));

  it("is taken over by its passphrase, with what that means, and the audit is told up to where it isn't ours", async () => {
    machine.store(path);
    const { refused, said } = await machine.survey({ passphrase });
    assert.equal(refused, "");
    assert.match(said, /taken over with all its archives.* without a manifest|Archives made by hand have no manifest/);
    assert.match(said, /the first backup stores everything once more \(`default` doesn't\)/);
    await backupsSoFar.apply(machine.machines, machine.inputs({ passphrase }), undefined);
    const note = JSON.parse(readFileSync(machine.in("state/moh/adopted.json"), "utf8"));
    assert.deepEqual(note, { repository: idIn(exported), transaction: 7 });
    machine.knows(exported);
    assert.equal((await machine.survey({ passphrase })).said, "", "it is ours by now");
  });

  it("that has the file of a stack before it on the CHT host needs no setting", async () => {
    machine.store(path);
    machine.write("etc/moh/passphrase", `${passphrase}\n`);
    assert.equal((await machine.survey()).refused, "");
  });

  it("with the guide's short passphrase is taken over with a warning, while a new one needs a strong passphrase", async () => {
    const strong = /must be one line of 16 characters or more/;
    assert.match((await machine.survey({ passphrase: short })).refused, strong);
    machine.store(path, configOf(weak));
    const taken = await machine.survey({ passphrase: short });
    assert.equal(taken.refused, "");
    assert.match(taken.said, /less than 16 characters: whoever gets at the server's disk or the bucket may guess it/);
    machine.knows(exported);
    machine.store(path, configOf(exported));
    assert.match((await machine.survey({ passphrase: short })).refused, strong, "not in the place of a strong one");
    assert.doesNotMatch(JSON.stringify(await machine.survey({ passphrase: "hunter2" })), /hunter2/);
  });

  const refusals: [what: string, arrange: () => void, change: Record<string, unknown>, words: RegExp][] = [
    ["without a passphrase", () => {}, {}, /no passphrase is given: set the one .* in cht-backup:passphrase/],
    ["by another passphrase", () => {}, { passphrase: "of another repository" }, /the passphrase doesn't open it/],
    [
      "that isn't encrypted",
      () => machine.store(path, configOf(exported, false), 2),
      { passphrase },
      /isn't encrypted/,
    ],
    ["that is only signed", () => machine.store(path, undefined, 6), { passphrase }, /is signed and not encrypted/],
    ["with a key in a file", () => machine.store(path, undefined, 4), { passphrase }, /its key is in a file on/],
    [
      "of another version of borg",
      () => machine.store(path, "[repository]\nversion = 2\n"),
      {},
      /isn't one that borg 1.x/,
    ],
    [
      "that somebody works with",
      () => void mkdirSync(join(path, "lock.exclusive"), { recursive: true }),
      { passphrase },
      /borg break-lock/,
    ],
  ];
  for (const [what, arrange, change, words] of refusals) {
    it(`${what} is refused with the way, and nothing of it is changed`, async () => {
      machine.store(path);
      arrange();
      const { refused, said } = await machine.survey(change);
      assert.match(refused, words);
      assert.match(refused, /Nothing of it was changed. docs\/adopting.md/);
      assert.equal(said, "");
    });
  }

  it("keeps its mode of encryption, which isn't drift", () => {
    const wanted = { encryption: "repokey-blake2", appendOnly: true } as never;
    const stored = { id: idIn(exported), storedKey: "x", damaged: false, appendOnly: true, additionalFreeSpace: "0" };
    const look = (type: string) =>
      observeRepository({ key: "x", ...stored }, `${idIn(exported)} ${type} 0\n`, {}, wanted).encryption;
    assert.deepEqual(["3", "5", "2", "7"].map(look), ["repokey-blake2", "repokey-blake2", "none", "authenticated"]);
  });
});

describe("the plugin's check of backups so far", function () {
  this.timeout(60_000);
  let machine: Machine;
  beforeEach(() => {
    machine = new Machine();
  });
  afterEach(() => rmSync(machine.folder, { recursive: true }));

  it("knows the inputs of the last time from the engine, and refuses in a preview, before anything is made", async () => {
    machine.store(machine.in("srv/moh/repository"));
    const request = new messages.CheckRequest();
    request.setUrn("urn:pulumi:prod::cht-backup::host:index:BackupsSoFar::backups-so-far");
    request.setOlds(toStruct(machine.inputs(), new Set(["passphrase"])));
    request.setNews(
      toStruct(machine.inputs({ deployment: "health", path: machine.in("srv/health/repository") }), new Set()),
    );
    const [failure, ...more] = (await handlers(() => machine.machines).check(request)).getFailuresList();
    assert.deepEqual(more, []);
    assert.equal(failure?.getProperty(), "deployment");
    assert.match(failure?.getReason() ?? "", /cht-backup:deployment: moh/);
  });
});
