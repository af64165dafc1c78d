/** What a machine that somebody took over says, wherever an operator reads it: it must not steer the terminal. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { EngineService } from "@pulumi/pulumi/proto/engine_grpc_pb";
import type { LogRequest } from "@pulumi/pulumi/proto/engine_pb";
import * as messages from "@pulumi/pulumi/proto/provider_pb";
import { Empty } from "google-protobuf/google/protobuf/empty_pb";
import { warn } from "../../provider/engine";
import { newKeyPair } from "../../provider/host-key-pair";
import { answering, properties, toStruct } from "../../provider/plugin";
import { Refused } from "../../provider/refused";
import { handlers } from "../../provider/server";
import { type Answer, encode, type ShellCall } from "../../provider/shell";
import type { Machine } from "../../provider/ssh";
import { lastLines } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { plainLines } from "../../toolchain/plain";

const EVIL = "\u001b]0;all is well\u0007\u009b2J\u202e";
const HARMLESS = "\\x1b]0;all is well\\x07\\x9b2J\\u202e";

function assertHarmless(text: string): void {
  assert.equal(text, plainLines(text));
  assert.ok(text.includes(HARMLESS), text);
}

describe("the words of a hostile machine in a command's output", function () {
  this.timeout(60_000);
  let folder = "";

  /** Programs in place of the Pulumi CLI and ssh; the machines' words are in files. */
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "cht-backup-hostile-"));
    const program = (name: string, lines: string[]) => {
      writeFileSync(join(folder, name), ["#!/bin/sh", ...lines, ""].join("\n"));
      chmodSync(join(folder, name), 0o755);
    };
    const settings = { "host:machines": { value: '{"cht":{"address":"192.0.2.1"},"server":{"address":"192.0.2.2"}}' } };
    writeFileSync(join(folder, "settings"), JSON.stringify(settings));
    writeFileSync(join(folder, "recovery"), JSON.stringify({ passphrase: "p", key: "k" }));
    writeFileSync(join(folder, "words"), `${EVIL}\n`);
    const evil = { name: EVIL, time: null, finished: true, files: EVIL, documents: { [EVIL]: EVIL }, problems: [EVIL] };
    const archives = [evil, { name: EVIL, finished: true, damaged: EVIL }];
    const found = { archives, more: 1, repository: EVIL, ids: { [EVIL]: EVIL } };
    writeFileSync(join(folder, "list"), `${EVIL}\n${JSON.stringify(found)}\n`);
    const report = { ok: false, problems: [EVIL] };
    writeFileSync(join(folder, "json"), JSON.stringify(report));
    writeFileSync(join(folder, "page"), `Restore drill\n  - ${EVIL}\n`);
    program("pulumi-language-nodejs", []);
    program("pulumi", [
      'case "$*" in',
      "version) echo v999.0.0 ;;",
      `config*) cat '${folder}/settings' ;;`,
      `*) cat '${folder}/recovery' ;;`,
      "esac",
    ]);
    program("ssh", [
      `words() { cat '${folder}/words'; }`,
      'for command in "$@"; do :; done',
      'if [ "$HOSTILE" = login ]; then words >&2; exit 255; fi',
      `mark=$(printf '%s' "$command" | grep -o 'cht-backup-[0-9a-f]\\{32\\}')`,
      'words; words >&2; echo "$mark"; echo "$mark" >&2',
      'case "$command" in',
      `*chtbackup*restore*list*) if [ "$HOSTILE" = refuses ]; then words >&2; exit 2; fi; cat '${folder}/list' ;;`,
      "*chtbackup*restore*) words; words >&2; exit 1 ;;",
      `*latest.json*) words >&2; cat '${folder}/json'; exit 1 ;;`,
      `*latest.txt*) words >&2; cat '${folder}/page'; exit 1 ;;`,
      "*)",
      "  input=$(cat)",
      '  case "$input" in',
      "  *mktemp*) echo /run/x ;;",
      `  *ssh_key_of_host*) words >&2; words; echo '${newKeyPair().publicKey}' ;;`,
      "  *ssh-keygen*) words >&2; echo ssh-ed25519 AAAA ;;",
      "  *revoke*) words >&2; exit 1 ;;",
      `  *latest* | *'"$1.json"'*) cat '${folder}/json'; printf '\\f'; cat '${folder}/page' ;;`,
      "  esac ;;",
      "esac",
    ]);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  interface Shown {
    code: number | null;
    stdout: string;
    stderr: string;
  }
  function run(name: string, args: string[], hostile = ""): Promise<Shown> {
    const words = ["--require", "./toolchain/typescript.cjs", `operations/${name}.ts`, "--stack", "prod", ...args];
    const PATH = [folder, process.env.PATH].join(delimiter);
    const env = { ...process.env, PATH, HOSTILE: hostile, XDG_CACHE_HOME: folder };
    const child = spawn(process.execPath, words, { cwd: project, env, stdio: ["ignore", "pipe", "pipe"] });
    const shown = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"] as const) {
      child[stream].setEncoding("utf8").on("data", (text: string) => {
        shown[stream] += text;
      });
    }
    return new Promise((done) => child.on("close", (code) => done({ code, ...shown })));
  }

  it("archives: in the list, and in what is remarked on the way", async () => {
    const { code, stdout, stderr } = await run("archives", []);
    assert.equal(code, 0, stderr);
    assertHarmless(stdout);
    assert.match(stdout, / {2}DAMAGED: /);
    assertHarmless(stderr);
  });

  it("archives --json: the same values for programs", async () => {
    const { code, stdout, stderr } = await run("archives", ["--json"]);
    assert.equal(code, 0, stderr);
    assert.equal(stdout, plainLines(stdout));
    assert.equal(JSON.parse(stdout).archives[0].name, EVIL);
  });

  it("archives: in the reason why there is no list, and why a machine can't be reached", async () => {
    const [refused, unreached] = await Promise.all([run("archives", [], "refuses"), run("archives", [], "login")]);
    assert.deepEqual([refused.code, unreached.code], [2, 2]);
    assertHarmless(refused.stderr);
    assertHarmless(unreached.stderr);
    assert.match(unreached.stderr, /^archives: cht \(192\.0\.2\.1\): can't be reached/);
  });

  it("restore: line by line, on both outputs, to the tidying up", async () => {
    const { code, stdout, stderr } = await run("restore", ["--from", "server", "--to", "cht"]);
    assert.equal(code, 1, stderr);
    assertHarmless(stdout);
    assertHarmless(stderr);
  });

  it("drill: in what is followed, and in the report as a page and as JSON", async () => {
    const [page, json] = await Promise.all([run("drill", []), run("drill", ["--json"])]);
    assert.deepEqual([page.code, json.code], [1, 1], page.stderr + json.stderr);
    for (const text of [page.stdout, page.stderr, json.stderr]) assertHarmless(text);
    assert.equal(json.stdout, plainLines(json.stdout));
    assert.deepEqual(JSON.parse(json.stdout).problems, [EVIL]);
  });

  it("drill --report: as a page and as JSON", async () => {
    const [page, json] = await Promise.all([run("drill", ["--report"]), run("drill", ["--report", "--json"])]);
    assert.deepEqual([page.code, json.code], [1, 1], page.stderr + json.stderr);
    assertHarmless(page.stdout);
    assert.equal(json.stdout, plainLines(json.stdout));
    assert.deepEqual(JSON.parse(json.stdout).problems, [EVIL]);
  });

  it("reach the terminal only through what makes them plain", () => {
    for (const name of readdirSync(join(project, "operations")).filter((each) => each.endsWith(".ts"))) {
      const text = readFileSync(join(project, "operations", name), "utf8");
      for (const [, what = ""] of text.matchAll(/(?:std(?:out|err)\.write|console\.\w+)\(\s*(.*)/g)) {
        assert.match(what, /^help\)|^"|^`(written|\$\{plain\()|plainJson\(|plainLines\(/, `${name}: use say or remark`);
      }
    }
  });

  it("the lab: in the last lines of a program that failed", () => {
    assertHarmless(lastLines(`one\n\u001b[31m${EVIL}\u001b[0m\n`));
  });
});

describe("the words of a hostile machine in Pulumi's output", () => {
  const urn = "urn:pulumi:prod::cht-backup::host:index:File::a";
  const wanted = { machine: "cht", path: "/etc/a", content: "one\n\ttwo\r\n", mode: "0644", owner: "root" };
  const complete = { ...wanted, group: "root", validate: "", reload: "", valid: true };

  /** The plugin, beside a machine that answers every call so. */
  function plugin(answer: Partial<Answer>, acts: (call: ShellCall) => string = () => "") {
    const machine = {
      read: async (_call: ShellCall) => ({ output: "", exitCode: 0, ...answer }),
      act: async (call: ShellCall) => acts(call),
    } as unknown as Machine;
    return handlers(() => () => machine);
  }
  const fileWith = (content: string, owner = "root") => ({
    output: `file 0644 ${owner} root\n${encode(content)}\n`,
  });
  async function look(answer: Partial<Answer>, secret: string[] = [], known: Record<string, unknown> = complete) {
    const request = new messages.ReadRequest();
    request.setId("cht:/etc/a");
    request.setUrn(urn);
    request.setProperties(toStruct(known, secret));
    request.setInputs(toStruct(known, secret));
    const response = await plugin(answer).read(request);
    return properties(response.getInputs()).values;
  }
  /** What the engine gets of an error. */
  const told = (handler: () => Promise<unknown>): Promise<string> =>
    new Promise((done) => {
      const callback = (error: Partial<grpc.ServiceError> | null) => done(error?.details ?? "");
      answering(handler)({ request: {} } as never, callback as never);
    });

  it("in an error of a look, and of a change, with its lines", async () => {
    const request = new messages.CreateRequest();
    request.setUrn(urn);
    request.setProperties(toStruct(complete, []));
    const created = plugin({}, () => {
      throw new Refused(`cht: one\n${EVIL}`);
    });
    const words = await told(() => created.create(request));
    assertHarmless(words);
    assert.equal(words, `cht: one\n${HARMLESS}`);
    assertHarmless(await told(() => look({ exitCode: 1, output: EVIL })));
  });

  it("in a bug's stack, too", async () => {
    assertHarmless(await told(() => Promise.reject(new TypeError(EVIL))));
  });

  it("in a warning", async () => {
    const said: string[] = [];
    const server = new grpc.Server();
    server.addService(EngineService, {
      log: (call: { request: LogRequest }, answer: grpc.sendUnaryData<Empty>) => {
        said.push(call.request.getMessage());
        answer(null, new Empty());
      },
    });
    const port = await new Promise<number>((done) =>
      server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (_, bound) => done(bound)),
    );
    const engine = process.argv[2];
    process.argv[2] = `127.0.0.1:${port}`;
    try {
      await warn(`one\n${EVIL}`);
    } finally {
      process.argv[2] = engine as string;
      server.forceShutdown();
    }
    assert.deepEqual(said, [`one\n${HARMLESS}`]);
  });

  it("in a file that differs, which stays a difference; its lines and tabs stay", async () => {
    const seen = await look(fileWith(`one\n\ttwo\r\n${EVIL}\n`, "\u001b[2J"));
    assert.equal(seen.content, `one\n\ttwo\\r\n${HARMLESS}\n (characters escaped)`);
    assert.equal(seen.owner, "\\x1b[2J (characters escaped)");
    assert.deepEqual((await look(fileWith("one\n\tother\n"))).content, "one\n\tother\n");
  });

  it("can't pass for what is wanted by being escaped", async () => {
    const known = { ...complete, content: HARMLESS };
    assert.notEqual((await look(fileWith(EVIL), [], known)).content, HARMLESS);
  });

  it("are no difference where they are what was wanted, whatever that is", async () => {
    assert.deepEqual(await look(fileWith(wanted.content)), complete);
    const known = { ...complete, content: `${EVIL}\u200e` };
    assert.deepEqual(await look(fileWith(known.content), [], known), known);
  });

  it("are the same at each further look, so that nothing changes from one refresh to the next", async () => {
    const seen = await look(fileWith(EVIL));
    assert.deepEqual(await look(fileWith(EVIL), [], seen), seen);
  });

  it("stay as they are in a secret, which isn't shown", async () => {
    assert.equal((await look(fileWith(EVIL), ["content"])).content, EVIL);
  });

  it("name a drop-in that is removed all the same", async () => {
    const unit = {
      machine: "cht",
      unit: "a.timer",
      content: "[Timer]\n",
      restartOn: [],
      overrides: [],
      reloaded: true,
    };
    const path = "/etc/systemd/system/a.timer.d/\u001b[2J.conf";
    const calls: ShellCall[] = [];
    const hostile = plugin({ output: `DropInPaths=${path};\n${encode(unit.content)}` }, (call) => {
      calls.push(call);
      return "";
    });
    const request = new messages.UpdateRequest();
    request.setUrn(urn.replace("File", "Unit"));
    request.setOlds(toStruct({ ...unit, overrides: [`${path.replace("\u001b", "\\x1b")} (characters escaped)`] }, []));
    request.setNews(toStruct(unit, []));
    await hostile.update(request);
    assert.deepEqual(calls[0]?.arguments.slice(5), [path]);
  });

  it("in what a machine decides, such as its public key", async () => {
    const request = new messages.CreateRequest();
    request.setUrn(urn.replace("File", "SshKey"));
    request.setProperties(toStruct({ machine: "cht", path: "/k", comment: "c", mode: "0600", owner: "root" }, []));
    const response = await plugin({}, () => `ssh-ed25519 AAAA ${EVIL}`).create(request);
    assert.equal(properties(response.getProperties()).values.publicKey, `ssh-ed25519 AAAA ${HARMLESS}`);
  });
});
