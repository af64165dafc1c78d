import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chtNames, serverNames } from "../../components/names";
import { isLocated } from "../../config/made";
import { readPlaces } from "../../config/read";
import { ask, type Question, questions } from "../../operations/status/ask";
import { verdicts } from "../../operations/status/overview";
import type { Machine } from "../../provider/connection";
import { project } from "../../toolchain/paths";
import { wellReports } from "../status-reports";
import { Sshd, thereIsSshd } from "./sshd";

const NOW = Date.UTC(2026, 10, 28, 12, 10) / 1000;

describe("whom status asks", () => {
  const machines = { cht: { address: "cht.example.org" }, server: { address: "backup.example.org", port: 2222 } };
  const given = (more: Record<string, unknown> = {}) =>
    Object.fromEntries(
      Object.entries({ "host:machines": machines, ...more }).map(([key, value]) => [key, JSON.stringify(value)]),
    );
  const asked = (more: Record<string, unknown> = {}) => {
    const places = readPlaces(given(more), "moh");
    assert.ok(places !== undefined && isLocated(places));
    return questions(places).map(({ name, role, machine, words }) => [
      name,
      role,
      machine.address,
      words.slice(3).join(" "),
    ]);
  };
  const cht = `${chtNames("moh").package} watch report /etc/cht-backup/moh/watch.json`;
  const server = `${serverNames("moh", "").package} watch report /etc/cht-backup-server/moh/watch.json`;
  const both = [
    ["cht", "cht", "cht.example.org", cht],
    ["server", "server", "backup.example.org", server],
  ];

  it("is the CHT machine and the server", () => {
    assert.deepEqual(asked(), both);
    assert.deepEqual(asked({ "cht-backup:drill": { enabled: false } }), both);
  });

  it("is besides the machine that drills, where it is another one, or does so beside the repository", () => {
    const third = { "host:machines": { ...machines, third: { address: "203.0.113.9" } } };
    const drill = (machine: string) => ({ "cht-backup:drill": { machine, manageDocker: false } });
    assert.deepEqual(asked({ ...third, ...drill("third") }), [...both, ["third", "drill", "203.0.113.9", cht]]);
    assert.deepEqual(asked(drill("server")), [...both, ["server", "drill", "backup.example.org", cht]]);
  });

  it("is known without the stack's secrets; what isn't right or not said is left to who reads them", () => {
    // As the CLI prints it without a passphrase: what holds a secret isn't there.
    assert.notEqual(readPlaces(given({ "aws:region": "eu-west-1" }), "moh"), undefined);
    assert.equal(readPlaces({}, "moh"), undefined);
    for (const wrong of [{ cht: machines.cht }, { server: machines.server }, { ...machines, cht: {} }, 5]) {
      assert.equal(readPlaces(given({ "host:machines": wrong }), "moh"), undefined);
    }
    assert.equal(readPlaces(given({ "cht-backup:drill": { machine: 5 } }), "moh"), undefined);
  });
});

describe("asking machines", function () {
  this.timeout(60_000);
  const { signal } = new AbortController();
  const patient = { connect: 60, whole: 120 };
  let sshd: Sshd;
  let silent: Server;
  /** How many connections to `silent` have been open at the same time. */
  let most = 0;
  let folder: string;
  before(async function () {
    if (!thereIsSshd) this.skip();
    folder = mkdtempSync(join(tmpdir(), "cht-backup-status-"));
    sshd = new Sshd();
    await sshd.start();
    let open = 0;
    silent = createServer((socket) => {
      open++;
      most = Math.max(most, open);
      socket.resume().on("error", () => undefined);
      socket.on("close", () => open--);
    });
    await new Promise<void>((done) => silent.listen(0, "127.0.0.1", done));
  });
  after(async () => {
    silent?.close();
    await sshd?.remove();
    if (folder !== undefined) rmSync(folder, { recursive: true });
  });

  const question = (name: string, words: string[], change: Record<string, unknown> = {}): Question => ({
    name,
    role: name,
    machine: sshd.settings(change) as Machine,
    words,
  });
  const printing = (report: object) => {
    const file = join(folder, `${(report as { role: string }).role}.json`);
    writeFileSync(file, JSON.stringify(report));
    return ["cat", file];
  };

  it("takes all at once, and no longer than it may: one that is down is said, not waited for", async () => {
    const [cht] = wellReports(NOW) as [object];
    const { port } = silent.address() as { port: number };
    const { reports, unreached } = await ask(
      [
        question("cht", printing(cht)),
        question("server", ["true"], { port }),
        question("fourth", ["true"], { port }),
        question("third", ["true"], { address: "nowhere.invalid" }),
      ],
      "moh",
      { ...patient, connect: 15 },
      signal,
    );
    assert.deepEqual(
      reports.map(({ role, host }) => [role, host]),
      [["cht", "cht-moh"]],
    );
    const why = Object.fromEntries(unreached.map((each) => [each.name, each.why]));
    assert.match(
      why.server ?? "",
      /^server \(127\.0\.0\.1\): can't be reached over SSH: something accepts the connection/,
    );
    assert.match(why.third ?? "", /^third \(nowhere\.invalid\): the name can't be resolved/);
    assert.equal(unreached.length, 3);
    assert.equal(most, 2);
  });

  it("gives up on one that lets this computer in and never comes to an end", async () => {
    const { unreached } = await ask([question("cht", ["sleep", "600"])], "moh", { connect: 5, whole: 2 }, signal);
    assert.match(unreached[0]?.why ?? "", /^cht \(127\.0\.0\.1\): it wasn't done within 2 s, and wasn't waited for$/);
  });

  it("goes by its own knowledge of who is who, and believes no report of another deployment", async () => {
    const [cht] = wellReports(NOW) as [object];
    const { reports, raw, unreached } = await ask(
      [question("server", printing({ ...cht, role: "cht" }))],
      "moh",
      patient,
      signal,
    );
    assert.deepEqual([reports[0]?.role, (raw[0] as { role: string }).role, unreached], ["server", "server", []]);
    const other = await ask([question("cht", printing({ ...cht, deployment: "other" }))], "moh", patient, signal);
    assert.match(other.unreached[0]?.why ?? "", /^cht .*it reports of the deployment other, not of moh$/);
  });

  it("says what to do where a machine has no watch yet, and passes on what else it says", async () => {
    const words = ["python3", "-I", "-B", join(folder, "chtbackup"), "watch", "report", "x"];
    const none = await ask([question("cht", words)], "moh", patient, signal);
    assert.match(none.unreached[0]?.why ?? "", /: it can't say yet how things are: run `npm run pulumi -- up` first$/);
    const failing = await ask([question("cht", ["sh", "-c", "echo no room >&2; exit 1"])], "moh", patient, signal);
    assert.match(failing.unreached[0]?.why ?? "", /: it doesn't say how things are \(no room\)$/);
  });
});

describe("the command status", function () {
  this.timeout(60_000);
  const run = (...args: string[]) => {
    const words = ["toolchain/run.mjs", "operations/status.ts", ...args];
    return spawnSync(process.execPath, words, { cwd: project, encoding: "utf8", input: "" });
  };

  it("documents its exit codes, which are its own: what can't be asked isn't told from what needs somebody by chance", () => {
    const { stdout, status } = run("--help");
    assert.equal(status, 0);
    const codes = /Exit codes[^:]*: ([\s\S]*)/.exec(stdout)?.[1] ?? "";
    for (const code of Object.values(verdicts)) assert.match(codes, new RegExp(`\\b${code} `));
    for (const [args, said] of [
      [[], /^status: --stack is missing/],
      [["--stack", "prod", "--nonsense"], /^status: Unknown option '--nonsense'/],
      [["--stack", "prod", "--watch"], /^status: --watch is for a terminal, and the output goes elsewhere/],
      [["--stack", "prod", "--watch", "--json"], /^status: --watch goes with neither --json nor --html/],
      [["--stack", "prod", "--patience", "0"], /^status: --patience 0: it must be a whole number of seconds/],
    ] as const) {
      const { status, stderr, stdout } = run(...args);
      assert.deepEqual([status, stdout, stderr.trim().split("\n").length], [verdicts.unknown, "", 1], stderr);
      assert.match(stderr, said);
    }
  });

  it("begins without what it doesn't need: Pulumi's SDK takes longer to load than all else", () => {
    const loaded = "Object.keys(require.cache).filter((file) => /@pulumi.pulumi/.test(file)).length";
    const script = `require("./operations/status"); console.log(${loaded})`;
    const { stdout } = spawnSync(process.execPath, ["--require", "./toolchain/typescript.cjs", "--eval", script], {
      cwd: project,
      encoding: "utf8",
    });
    assert.equal(stdout.trim(), "0");
  });
});
