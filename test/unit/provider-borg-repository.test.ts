import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { EngineService } from "@pulumi/pulumi/proto/engine_grpc_pb";
import type { LogRequest } from "@pulumi/pulumi/proto/engine_pb";
import { Empty } from "google-protobuf/google/protobuf/empty_pb";
import { exportOf, type KeyContents, keyBlob, openKey, sameKey, wrapKey } from "../../provider/borg-key";
import { borgRepository } from "../../provider/borg-repository";
import { formerKeysAfter, idOf } from "../../provider/known-keys";
import type { Inputs, Machines } from "../../provider/resource";
import { actionScript, batchScript, encode, parseBatch, type ShellCall } from "../../provider/shell";
import { project } from "../../toolchain/paths";

const fixture: { passphrase: string; exports: Record<string, string> } = JSON.parse(
  readFileSync(join(__dirname, "../fixtures/borg-keys.json"), "utf8"),
);
const { passphrase } = fixture;
const idIn = (exported: string) => exported.slice(9, 73);
const exported = fixture.exports["repokey-blake2 of borg 1.4.5"] ?? "";
const other = fixture.exports["repokey-blake2 of borg 1.2.8"] ?? "";
const id = idIn(exported);
const NEW_PASSPHRASE = "chosen by the operator 4711";

/** A key of the same repository that opens nothing that was stored under the right one. */
async function forged(by = passphrase): Promise<string> {
  const right = await contents(exported);
  const packed = Buffer.from(right.packed);
  packed.fill(7, packed.indexOf(right.encryptionKey), packed.indexOf(right.encryptionKey) + 32);
  return wrapKey({ ...right, packed }, by);
}

async function contents(text: string, by = passphrase): Promise<KeyContents> {
  const opened = await openKey(text, by);
  if ("reason" in opened) assert.fail(opened.reason);
  return opened.contents;
}

const configOf = (text: string, flags = "append_only = 0") =>
  `[repository]\nversion = 1\nsegments_per_dir = 1000\nmax_segment_size = 524288000\n${flags}\nstorage_quota = 0\n` +
  `additional_free_space = 0\nid = ${idIn(text)}\nkey = ${text.split("\n").slice(1, -1).join("\n\t")}\n\n`;

function shell(script: string): string {
  const { status, stdout, stderr } = spawnSync("sh", ["-s"], { input: script, encoding: "utf8" });
  assert.equal(status, 0, stderr);
  return stdout;
}

describe("a repository that can't be reached", () => {
  it("is told with the words of ssh, which borg often loses", () => {
    const script = `${readFileSync(join(project, "provider/scripts/borg_repository.sh"), "utf8")}
BORG_RSH="ssh -F none -p 1 -o BatchMode=yes"
borg_repository_location=ssh://127.0.0.1/srv/repository
borg_repository_words="Connection closed by remote host. Is borg working on the server?"
borg_repository_fail "could not be opened" 2>&1`;
    assert.match(shell(script), /could not be opened: ssh: connect to host 127\.0\.0\.1 port 1: Connection refused/);
  });
});

/**
 * A server that runs what the plugin sends, and a client that does what borg would: what is stored at the one is what the
 * other prints, unless it is in other hands.
 */
class Deployment {
  readonly folder = mkdtempSync(join(tmpdir(), "cht-backup-test-"));
  readonly path = join(this.folder, "repository");
  readonly config = join(this.path, "config");
  /** How far the client has counted. */
  readonly counter = "0000000010000123";
  /** What the client initialises the repository with. */
  making = exported;
  /** What it prints in place of the key that is stored. */
  prints: string | undefined;
  readonly sentToClient: string[][] = [];

  readonly inputs = borgRepository.inputs.parse({
    machine: "cht",
    server: "server",
    location: "ssh://offsite/repository",
    path: this.path,
    rsh: "ssh",
    baseDirectory: "/b",
    passphrase,
  }) as Inputs;

  store(text: string, exportedKey = exported): void {
    mkdirSync(join(this.path, "data", "0"), { recursive: true });
    writeFileSync(join(this.path, "data", "0", "0"), "BORG_SEG");
    writeFileSync(this.config, text === "" ? configOf(exportedKey) : text, { mode: 0o600 });
    writeFileSync(join(this.path, "nonce"), this.counter);
  }

  stored(): string {
    const [, key = ""] = /^key = ([\s\S]*?)\n\n/m.exec(readFileSync(this.config, "utf8")) ?? [];
    return exportOf(id, key.replace(/\s/g, ""));
  }

  readonly machines = ((name: string) => ({
    read: async (call: ShellCall) =>
      name === "server"
        ? parseBatch(shell(batchScript([call])), 1)[0]
        : { output: `${id} 5 ${this.counter}\n`, exitCode: 0 },
    act: async (call: ShellCall) => (name === "server" ? shell(actionScript(call)) : this.client(call)),
  })) as unknown as Machines;

  private client({ name, arguments: given }: ShellCall): string {
    assert.equal(name, "borg_repository_apply");
    this.sentToClient.push(given);
    if (given[5] === "") {
      assert.ok(!existsSync(this.config), "a repository was begun over another");
      this.store(configOf(this.making));
    }
    const there = /^id = (.*)$/m.exec(readFileSync(this.config, "utf8"))?.[1] ?? "";
    const shown = this.prints ?? exportOf(there, keyBlob(this.stored()) ?? "");
    return `${there}\n${encode(shown)}`;
  }

  apply(outputs?: Record<string, unknown>, change: Record<string, unknown> = {}) {
    const before = outputs && { inputs: this.inputs, outputs };
    return borgRepository.apply(this.machines, { ...this.inputs, ...change }, before);
  }

  async drift(outputs: Record<string, unknown>) {
    const observed = await borgRepository.read(this.machines, this.inputs, outputs);
    return Object.entries(observed?.inputs ?? {}).filter(([name, value]) => value !== this.inputs[name]);
  }
}

describe("a repository and its key", function () {
  this.timeout(60_000);
  let deployment: Deployment;
  let warnings: string[];
  let engine: grpc.Server;
  const argument = process.argv[2];

  before(async () => {
    engine = new grpc.Server();
    const log = (call: grpc.ServerUnaryCall<LogRequest, Empty>, done: grpc.sendUnaryData<Empty>) => {
      warnings.push(call.request.getMessage());
      done(null, new Empty());
    };
    engine.addService(EngineService as unknown as grpc.ServiceDefinition, { log });
    const port = await new Promise<number>((resolve, reject) => {
      engine.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      );
    });
    process.argv[2] = `127.0.0.1:${port}`;
  });
  after(() => {
    process.argv[2] = argument ?? "";
    engine.forceShutdown();
  });
  beforeEach(() => {
    deployment = new Deployment();
    warnings = [];
  });
  afterEach(() => rmSync(deployment.folder, { recursive: true }));

  describe("at the first up", () => {
    it("are made by the client; root on the server sets the flags; a preview after it finds nothing to do", async () => {
      const outputs = await deployment.apply();
      assert.deepEqual([outputs.repositoryId, outputs.exportedKey, outputs.formerKeys], [id, exported, {}]);
      const config = readFileSync(deployment.config, "utf8");
      assert.match(config, /^append_only = 1\n/m);
      assert.match(config, /^additional_free_space = 500M\n/m);
      assert.deepEqual(await deployment.drift(outputs), []);
      assert.deepEqual(warnings, []);
    });

    it("aren't taken where the client prints another key than the server stores", async () => {
      deployment.prints = await forged();
      await assert.rejects(
        deployment.apply(),
        /^Error: cht printed another key of .* than the one that server stores.* other hands/,
      );
    });

    it("aren't taken where the passphrase doesn't open the key", async () => {
      deployment.making = await wrapKey(await contents(exported), "another one");
      await assert.rejects(deployment.apply(), /the key that it printed of .* isn't opened by the passphrase/);
    });

    it("that are there already are adopted with the key that the server has, which the passphrase opens", async () => {
      deployment.store("");
      const outputs = await deployment.apply();
      assert.deepEqual([outputs.exportedKey, outputs.formerKeys], [exported, {}]);
      assert.equal(deployment.sentToClient[0]?.[5], id, "the client wasn't told whose counter to begin");
      assert.deepEqual(await deployment.drift(outputs), []);
    });

    it("are never made with a passphrase that can be guessed", async () => {
      await assert.rejects(deployment.apply(undefined, { passphrase: "PASSWORD" }), /16 characters or more/);
      assert.deepEqual(deployment.sentToClient, []);
    });

    it("that are moved to another path stay the same resource, so that former keys stay known", () => {
      assert.ok(!borgRepository.identity.includes("path"));
    });

    it("that are there already and aren't opened by this passphrase are refused, and left as they are", async () => {
      deployment.store("");
      const text = readFileSync(deployment.config, "utf8");
      await assert.rejects(deployment.apply(undefined, { passphrase: "wrong" }), /this passphrase doesn't open it/);
      assert.equal(readFileSync(deployment.config, "utf8"), text);
      assert.deepEqual(deployment.sentToClient, []);
    });

    it("of which the key is lost, or all that says which they are, are refused", async () => {
      deployment.store(configOf(exported).replace(/^key = [\s\S]*/m, ""));
      await assert.rejects(deployment.apply(), /has no key, or a damaged one, and the stack knows none that opens it/);
      deployment.store("[repository]\n");
      await assert.rejects(deployment.apply(), /is damaged, and the stack doesn't know which repository it was/);
    });
  });

  describe("when the passphrase changes", () => {
    it("the same key is wrapped anew by the operator's side, and root on the server puts it in", async () => {
      const outputs = await deployment.apply();
      const next = await deployment.apply(outputs, { passphrase: NEW_PASSPHRASE });
      const text = String(next.exportedKey);
      assert.equal(keyBlob(deployment.stored()), keyBlob(text));
      assert.ok(sameKey(await contents(text, NEW_PASSPHRASE), await contents(exported)));
      assert.deepEqual(next.formerKeys, { [id]: exported }, "the former export was lost");
      assert.deepEqual(warnings, []);
      // The client is told the new passphrase, and neither the former one nor a key.
      assert.deepEqual(deployment.sentToClient.at(-1)?.slice(4, 6), [encode(NEW_PASSPHRASE), id]);
    });

    it("and the run broke off behind it, the next one goes on", async () => {
      const outputs = await deployment.apply();
      await deployment.apply(outputs, { passphrase: NEW_PASSPHRASE });
      const next = await deployment.apply(outputs, { passphrase: NEW_PASSPHRASE });
      assert.ok(sameKey(await contents(String(next.exportedKey), NEW_PASSPHRASE), await contents(exported)));
      assert.equal(keyBlob(deployment.stored()), keyBlob(String(next.exportedKey)));
    });

    it("three times, each export is kept under a name of its own", async () => {
      let outputs = await deployment.apply();
      let inputs: Inputs = deployment.inputs;
      const texts = [outputs.exportedKey];
      for (const secret of ["second passphrase 12", "third passphrase 123", "fourth passphrase 12"]) {
        const next = { ...inputs, passphrase: secret };
        outputs = await borgRepository.apply(deployment.machines, next, { inputs, outputs });
        inputs = next;
        texts.push(outputs.exportedKey);
      }
      assert.deepEqual(outputs.formerKeys, { [id]: texts[2], [`${id} 2`]: texts[0], [`${id} 3`]: texts[1] });
      assert.deepEqual(new Set(Object.keys(outputs.formerKeys as object).map(idOf)), new Set([id]));
    });
  });

  describe("that somebody exchanged in the repository", () => {
    it("shows, and the stack's own comes back, whatever passphrase the other one has", async () => {
      const outputs = await deployment.apply();
      for (const by of [passphrase, "stolen"]) {
        deployment.store(configOf(await forged(by), "append_only = 1").replace("space = 0", "space = 500M"));
        assert.deepEqual(await deployment.drift(outputs), [["key", "exchanged"]]);
        const next = await deployment.apply(outputs);
        assert.deepEqual([next.exportedKey, next.formerKeys], [exported, {}]);
        assert.equal(deployment.stored(), exported);
        assert.deepEqual(await deployment.drift(next), []);
      }
    });

    it("isn't taken from the client's words, which are reported", async () => {
      const outputs = await deployment.apply();
      deployment.prints = await forged();
      const next = await deployment.apply(outputs);
      assert.deepEqual([next.exportedKey, next.formerKeys], [exported, {}]);
      assert.match(warnings.join("\n"), /cht printed another key of .*: cht may be in other hands\. The stack keeps/);
    });

    it("is mended with the whole configuration, where that is damaged", async () => {
      const outputs = await deployment.apply();
      const config = readFileSync(deployment.config, "utf8");
      for (const text of [
        config.replace(/^key = [\s\S]*/m, "key = x\rid = 00\n"),
        config.slice(0, 90),
        "\0\0\0\0",
        "",
      ]) {
        writeFileSync(deployment.config, text);
        assert.deepEqual(await deployment.drift(outputs), [["key", "damaged"]]);
        const next = await deployment.apply(outputs);
        assert.deepEqual(next, outputs);
        assert.equal(readFileSync(deployment.config, "utf8"), config);
      }
      rmSync(deployment.config);
      assert.deepEqual(await deployment.drift(outputs), [["key", "damaged"]]);
      assert.deepEqual(await deployment.apply(outputs), outputs);
      assert.equal(statSync(deployment.config).mode & 0o007, 0, "everybody may read it");
    });

    it("before this version, and into the state: the repository's is taken, and the other one kept", async () => {
      const stolen = await wrapKey(await contents(exported), "stolen");
      deployment.store("");
      const next = await deployment.apply({
        repositoryId: id,
        exportedKey: stolen,
        formerKeys: {},
        storedKey: "0".repeat(64),
      });
      assert.deepEqual([next.exportedKey, next.formerKeys], [exported, { [id]: stolen }]);
      assert.match(warnings.join("\n"), /opens the key that .* has, and not the one that the stack knew/);
    });
  });

  it("a server that has forgotten how far its client has counted is reported, and one that hasn't isn't", async () => {
    const outputs = await deployment.apply();
    assert.deepEqual([await deployment.drift(outputs), warnings], [[], []]);
    rmSync(join(deployment.path, "nonce"));
    assert.deepEqual(await deployment.drift(outputs), []);
    assert.match(warnings.join("\n"), /^server: .*repository: it knows less of what was stored than the client/);
  });

  describe("of another repository in their place", () => {
    it("become the stack's, those before are kept, and come back with their repository", async () => {
      const outputs = await deployment.apply();
      renameSync(deployment.path, `${deployment.path}-1`);
      deployment.making = other;
      const next = await deployment.apply(outputs);
      assert.deepEqual(
        [next.repositoryId, next.exportedKey, next.formerKeys],
        [idIn(other), other, { [id]: exported }],
      );
      assert.match(warnings.join("\n"), /is another repository than before/);
      renameSync(deployment.path, `${deployment.path}-2`);
      renameSync(`${deployment.path}-1`, deployment.path);
      deployment.store(configOf(await forged()));
      const back = await deployment.apply(next);
      assert.deepEqual([back.exportedKey, back.formerKeys], [exported, { [idIn(other)]: other }]);
    });

    it("aren't begun on another disk", async () => {
      const outputs = await deployment.apply();
      rmSync(deployment.path, { recursive: true });
      await assert.rejects(deployment.apply({ ...outputs, mountPoint: "/elsewhere" }), /isn't mounted there now/);
      assert.equal(deployment.sentToClient.length, 1);
    });
  });

  it("former ones of a state from before this version are read as they are", () => {
    const known = { repositoryId: id, exportedKey: exported, formerKeys: { [idIn(other)]: other } };
    assert.deepEqual(formerKeysAfter(known, exported), known.formerKeys);
    assert.deepEqual(
      formerKeysAfter(known, exported.replaceAll("\n", "\r\n")),
      known.formerKeys,
      "the same, in other lines",
    );
    assert.deepEqual(formerKeysAfter(known, "x"), { ...known.formerKeys, [id]: exported });
    assert.deepEqual(formerKeysAfter(undefined, exported), {});
  });
});

describe("a client's counter of a repository's encryption", () => {
  let base: string;
  const folder = () => join(base, ".config/borg/security", id);
  const begin = () =>
    shell(actionScript({ library: "borg_repository", name: "borg_repository_count", arguments: [base, id] }));
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), "cht-backup-test-"));
  });
  afterEach(() => rmSync(base, { recursive: true }));

  it("begins with the time where it has never counted, in borg's form, for root alone", () => {
    const start = Math.floor(Date.now() / 1000);
    begin();
    const text = readFileSync(join(folder(), "nonce"), "latin1");
    assert.match(text, /^[0-9a-f]{16}$/);
    const seconds = Number(BigInt(`0x${text}`) >> 31n);
    assert.equal(BigInt(`0x${text}`) & 0x7fffffffn, 0n);
    assert.ok(seconds >= start && seconds <= start + 10);
    assert.deepEqual([statSync(folder()).mode & 0o777, statSync(join(folder(), "nonce")).mode & 0o777], [0o700, 0o600]);
  });

  it("stays as it is where it has counted, be it ahead or behind", () => {
    for (const text of ["0000000010000123", "7fffffffffffffff"]) {
      mkdirSync(folder(), { recursive: true });
      writeFileSync(join(folder(), "nonce"), text);
      begin();
      assert.equal(readFileSync(join(folder(), "nonce"), "latin1"), text);
    }
  });
});
