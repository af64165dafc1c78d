import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { questionsFor, verdict } from "../../components/survey";
import { reaches } from "../../components/survey-facts";
import { findings } from "../../components/survey-findings";
import { readSettings } from "../../config";
import { Refused } from "../../provider/refused";
import { actionScript } from "../../provider/shell";
import { look } from "../../provider/survey";
import { run } from "../../toolchain/command";

const NOW = 1_800_000_000;

function settingsWith(more: Record<string, unknown> = {}) {
  const machines = { cht: { address: "a" }, server: { address: "b" }, third: { address: "c" } };
  const given: Record<string, unknown> = {
    "host:machines": machines,
    "cht-backup:bucket": "none",
    "cht-backup:cht": { home: "/home/ubuntu/cht", composeProject: "cht" },
    "cht-backup:drill": { enabled: false },
    ...more,
  };
  const texts = Object.entries(given).map(([key, value]) => [
    key,
    typeof value === "string" ? value : JSON.stringify(value),
  ]);
  return readSettings(Object.fromEntries(texts), "moh", ["cht-backup:bucket"]);
}

const asked = (more: Record<string, unknown> = {}) =>
  questionsFor(settingsWith(more) as Parameters<typeof questionsFor>[0]);

function policy(name: string, candidate: string, backports?: string): string[] {
  const newer =
    backports === undefined
      ? []
      : [`     ${backports} 100`, "        100 http://mirror.example.org/debian x-backports/main amd64 Packages"];
  return [
    `${name}:`,
    "  Installed: (none)",
    `  Candidate: ${candidate}`,
    "  Version table:",
    ...newer,
    `     ${candidate} 500`,
    "        500 http://mirror.example.org/debian x/main amd64 Packages",
  ].map((line) => `policy ${line}`);
}

/** What a machine says on which all is right, with other lines in place of those of the same word. */
function machine(
  index: number,
  other: string[] = [],
  more: Record<string, unknown> = {},
): [ReturnType<typeof asked>[number], string] {
  const question = asked(more)[index] as ReturnType<typeof asked>[number];
  const usual = [
    "fresh yes",
    `time ${NOW + 2}`,
    "system debian 13 Debian GNU/Linux 13 (trixie)",
    "apt yes",
    "systemd yes",
    "kernel 6.12.48-amd64",
    "docker /usr/bin/docker",
    "engine 26.1.5",
    "compose 2.26.1",
    "container cht couchdb",
    "container cht nginx",
    "python 3.13",
    ...policy("borgbackup", "1.4.0-5"),
    ...question.paths.map(
      (path) =>
        `path ${question.known.includes(path) || /data$|reserve$|\/borg$/.test(path) ? "missing" : "directory"} 50000 ${path}`,
    ),
  ];
  const word = (line: string) => (line.startsWith("path ") ? line.split(" ")[3] : line.split(" ")[0]) ?? "";
  const replaced = new Set(other.map(word));
  const lines = [...usual.filter((line) => !replaced.has(word(line))), ...other];
  return [question, lines.filter((line) => !line.endsWith(" ")).join("\n")];
}

function found(...args: Parameters<typeof machine>) {
  const [question, lines] = machine(...args);
  return findings(question, lines, NOW);
}

const drill = (on: string) => ({ "cht-backup:drill": { machine: on, manageDocker: false } });
const bucket = {
  "cht-backup:bucket": {
    name: "copies-of-moh",
    region: "eu-west-1",
    mode: "governance",
    accessKeyId: "AKIAX",
    secretAccessKey: "x".repeat(20),
  },
};

describe("before anything is made", function () {
  this.timeout(30_000);

  it("nothing is said of machines on which all is right", () => {
    const none = { known: false, stops: [], warns: [], tells: [] };
    for (const index of [0, 1]) assert.deepEqual(found(index), none);
    for (const on of ["cht", "server"]) assert.deepEqual(found(on === "cht" ? 0 : 1, [], drill(on)), none);
    assert.deepEqual(found(2, [], drill("third")), none);
    assert.deepEqual(found(1, [], bucket), none);
  });

  const wrong: [what: string, at: Parameters<typeof machine>, told: RegExp][] = [
    [
      "a system that is too old",
      [1, ["system ubuntu 20.04 Ubuntu 20.04.6 LTS"]],
      /^server: runs Ubuntu 20\.04\.6 LTS; it must be Ubuntu 22\.04, Debian 12, or newer$/,
    ],
    ["another family of systems", [1, ["system fedora 42 Fedora Linux 42", "apt "]], /^server: runs Fedora Linux 42;/],
    ["no systemd", [0, ["systemd "]], /^cht: systemd doesn't run there/],
    ["a clock that is wrong", [0, [`time ${NOW - 1200}`]], /^cht: its clock is 20 min slow/],
    [
      "a Python that is too old",
      [1, ["python 3.9"]],
      /^server: \/usr\/bin\/python3 is Python 3\.9, and the programs take 3\.10$/,
    ],
    [
      "too little room for programs",
      [1, ["path directory 120 /opt"]],
      /^server: 120 MiB are free in \/opt, and 500 are needed there$/,
    ],
    [
      "too little room to build a borg",
      [
        1,
        [
          "system debian 12 Debian GNU/Linux 12 (bookworm)",
          ...policy("borgbackup", "1.2.4-1"),
          "path directory 900 /opt",
        ],
      ],
      /^server: 900 MiB are free in \/opt, and 1200/,
    ],
    [
      "no directory of the CHT",
      [0, ["path missing 50000 /home/ubuntu/cht"]],
      /^cht: there is no directory \/home\/ubuntu\/cht \(cht-backup:cht\.home\)/,
    ],
    [
      "another directory than the CHT's",
      [0, ["path missing 5000 /home/ubuntu/cht/compose", "path missing 5000 /home/ubuntu/cht/upgrade-service"]],
      /^cht: .* holds neither compose\/ nor upgrade-service\//,
    ],
    ["no Docker where the CHT runs", [0, ["docker "]], /^cht: Docker isn't installed there/],
    [
      "Docker as a snap",
      [0, ["docker /usr/bin/snap"]],
      /^cht: Docker is installed there as a snap, .* isn't supported/,
    ],
    [
      "a wrong project, by the containers",
      [0, ["container app couchdb", "container app nginx", "container other web"]],
      /^cht: there is no container of the project cht \(cht-backup:cht\.composeProject\); it seems to be app$/,
    ],
    [
      "a wrong project, by .env, where Docker is down",
      [0, ["container ", 'named "app"']],
      /^cht: there is no container .*; it seems to be app$/,
    ],
    [
      "no room for backups",
      [1, ["path directory 900 /srv/cht-backup/moh"]],
      /^server: 900 MiB are free in \/srv\/cht-backup .*, of which \d+ are to be held back .*: there is no room/,
    ],
    [
      "Compose 1, where a CHT and drills are",
      [0, ["compose "], drill("cht")],
      /^cht: drills .* take Docker Compose 2 .* it isn't there: install/,
    ],
    [
      "Compose 1 on offer, where drills are",
      [2, ["docker ", "engine ", "compose ", ...policy("docker-compose", "1.29.2-3")], drill("third")],
      /^third: drills .* its distribution has 1\.29\.2-3: install/,
    ],
    [
      "a Docker that gives a drill's network a way out, where drills are",
      [0, ["engine 20.10.24+dfsg1"], drill("cht")],
      /^cht: its Docker is 20\.10\.24\+dfsg1, and drills .* take 25 .*cht-backup:drill: \{ enabled: false \}$/,
    ],
    [
      "a Linux that is too old for drills",
      [2, ["kernel 5.10.0-30-amd64"], drill("third")],
      /^third: its Linux is 5\.10\.0-30-amd64, and drills .* take 5\.14/,
    ],
  ];
  for (const [what, at, told] of wrong) {
    it(`${what} is told`, () => {
      const { stops, warns } = found(...at);
      assert.equal(stops.length, 1, stops.join("\n"));
      assert.match(String(stops[0]), told);
      assert.deepEqual(warns, []);
    });
  }

  it("a borg that has to be built is announced, and one from backports or an empty list of packages isn't", () => {
    const tells = (...other: string[]) => found(1, other).tells;
    assert.match(
      String(tells(...policy("borgbackup", "1.2.0-1"))),
      /^server: its distribution's borg is too old, so one is built there/,
    );
    assert.deepEqual(tells(...policy("borgbackup", "1.2.4-1", "1.4.0-4~bpo12+1")), []);
    assert.deepEqual(tells("policy "), []);
  });

  it("a borg that was built already isn't announced when something else is new there", () => {
    const old = policy("borgbackup", "1.2.4-1");
    const built = "path directory 50000 /opt/cht-backup/moh/borg";
    const timer = "path other 50000 /etc/systemd/system/cht-backup-moh.timer";
    assert.deepEqual(found(0, [...old, built, timer], drill("cht")).tells, []);
    const elsewhere = found(1, [...old, built], drill("server")).tells;
    assert.match(String(elsewhere), /one is built there/, "the server's own isn't there");
  });

  it("a repository that is there is announced", () => {
    assert.match(
      String(found(1, ["path directory 50000 /srv/cht-backup/moh/repository/data"]).tells),
      /is a repository already/,
    );
  });

  it("what is wrong where all has worked till now is a warning, and stops nothing", () => {
    const timer = "path other 50000 /etc/systemd/system/cht-backup-moh.timer";
    const { known, stops, warns } = found(0, [timer, "docker /usr/bin/snap", "container app couchdb"]);
    assert.equal(known, true);
    assert.deepEqual(stops, []);
    assert.equal(warns.length, 2, warns.join("\n"));
  });

  it("what is added to a machine that works is looked at as on a new one", () => {
    const timer = "path other 50000 /etc/systemd/system/cht-repository-audit-moh.timer";
    assert.deepEqual(found(1, [timer, "python 3.8"]).stops, []);
    assert.match(String(found(1, [timer, "python 3.8"], bucket).stops), /Python 3\.8/);
  });

  it("all machines' mistakes are one list, those that can't be asked first", () => {
    const [question, lines] = machine(1, ["systemd ", "python 3.8"]);
    const questions = [asked()[0] as typeof question, question];
    const failed = "cht (a): login refused";
    const { stops, warns } = verdict(questions, [{ failed }, { lines }], NOW);
    assert.equal(stops.length, 3);
    assert.equal(stops[0], failed);
    assert.deepEqual(warns, []);
  });

  it("a machine that is down doesn't keep the others of a deployment from being looked after", () => {
    const [question, lines] = machine(1, ["path other 50000 /etc/systemd/system/cht-repository-audit-moh.timer"]);
    const questions = [asked()[0] as typeof question, question];
    const { stops, warns } = verdict(questions, [{ failed: "cht: is down" }, { lines }], NOW);
    assert.deepEqual([stops, warns], [[], ["cht: is down"]]);
  });

  it("a server that the stack makes isn't asked", () => {
    const settings = settingsWith();
    const made = { ...settings, server: { ...settings.server, aws: {} } } as unknown as Parameters<
      typeof questionsFor
    >[0];
    assert.deepEqual(
      questionsFor(made).map(({ machine }) => machine),
      ["cht"],
    );
  });

  it("each machine is asked once, and one that can't be reached is no error of the others", async () => {
    const calls: string[] = [];
    const machines = (name: string) => ({
      read: async () => {
        calls.push(name);
        if (name === "cht") throw new Refused("cht: is down");
        return { output: "time 1", exitCode: 0 };
      },
    });
    const answers = await look(machines as unknown as Parameters<typeof look>[0], asked(drill("server")));
    assert.deepEqual(answers, [{ failed: "cht: is down" }, { lines: "time 1" }]);
    assert.deepEqual(calls, ["cht", "server"]);
  });

  it("what Docker doesn't say in time is told, and stops nothing", () => {
    const lacks = ["engine ", "compose ", "container "];
    const unknown = ["unknown engine", "unknown compose", "unknown container"];
    const { stops, warns, tells } = found(0, [...lacks, ...unknown, 'named "app"'], drill("cht"));
    assert.deepEqual([stops, warns], [[], []]);
    assert.deepEqual(
      tells.map((text) => /^cht: `(.*)` takes longer than a minute there/.exec(text)?.[1]),
      ["docker version", "docker compose version", "docker ps"],
    );
  });

  it("a real machine answers, and nothing is changed there", async () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-survey-"));
    try {
      mkdirSync(join(folder, "home"));
      writeFileSync(join(folder, "env"), "COUCHDB_USER=x\nCHT_COMPOSE_PROJECT_NAME=app\n");
      const paths = [join(folder, "home"), join(folder, "env"), join(folder, "no", "such")];
      const call = {
        library: "survey",
        name: "survey",
        arguments: [paths[2] ?? "", "cht", "dpkg", join(folder, "env"), ...paths],
      };
      const { code, stdout, stderr } = await run("sh", ["-s"], { stdin: actionScript(call) });
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^fresh yes\ntime \d+\nsystem \S* \S* .+\n/);
      assert.match(stdout, /^kernel \d+\.\d+/m);
      assert.match(stdout, /^named app$/m);
      for (const [index, kind] of ["directory", "other", "missing"].entries()) {
        assert.match(stdout, new RegExp(`^path ${kind} \\d+ ${paths[index]}$`, "m"));
      }
      const again = { ...call, arguments: [join(folder, "home"), ...call.arguments.slice(1)] };
      assert.doesNotMatch(
        (await run("sh", ["-s"], { stdin: actionScript(again) })).stdout,
        /^(fresh|python|policy|engine) /m,
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("a machine on which Docker is too slow says so, and nothing else of it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "cht-backup-survey-"));
    try {
      const program = (name: string, text: string) =>
        writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
      program("timeout", 'case " $SLOW " in *" $3 "*) exit 124 ;; esac; shift; exec "$@"');
      program("docker", `case $1 in version) echo 26.1.5 ;; compose) echo 2.26.1 ;; ps) echo a b; echo c d ;; esac`);
      const call = { library: "survey", name: "survey", arguments: [join(folder, "no"), "cht", "", "/no"] };
      const said = async (slow: string) => {
        const env = { PATH: `${folder}:${process.env.PATH}`, SLOW: slow };
        const { code, stdout, stderr } = await run("sh", ["-s"], { stdin: actionScript(call), env });
        assert.equal(code, 0, stderr);
        return stdout.split("\n").filter((line) => /^(engine|compose|container|unknown) /.test(line));
      };
      const all = ["engine 26.1.5", "compose 2.26.1", "container a b", "container c d"];
      assert.deepEqual(await said(""), all);
      assert.deepEqual(await said("compose"), [all[0], "unknown compose", all[2], all[3]]);
      assert.deepEqual(await said("version compose ps"), ["unknown engine", "unknown compose", "unknown container"]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("versions are compared by their numbers", () => {
    for (const [version, least] of [
      ["1.2.8", "1.2.8"],
      ["1:1.10-2", "1.9"],
      ["v2.24", "2"],
      ["6.1.0-18-amd64", "5.14"],
    ] as const) {
      assert.ok(reaches(version, least), version);
      assert.ok(!reaches(least, `${version.replace(/-.*/, "")}.1`), version);
    }
  });

  it("the program asks, and ends with the whole list", async () => {
    const { main } = JSON.parse(readFileSync(join(__dirname, "../../package.json"), "utf8")) as { main: string };
    const made: string[] = [];
    const answers = [{ failed: "cht: is down" }, { failed: "server: login refused" }];
    const mocks: pulumi.runtime.Mocks = {
      newResource: ({ name }) => {
        made.push(name);
        return { id: name, state: {} };
      },
      call: ({ token, inputs }) => (token === "host:index:survey" ? { answers } : inputs),
    };
    await pulumi.runtime.setMocks(mocks, "cht-backup", "moh");
    const machines = JSON.stringify({ cht: { address: "a" }, server: { address: "b" } });
    pulumi.runtime.setAllConfig({ "host:machines": machines, "cht-backup:bucket": "none" });
    const program = require(join("../..", main)) as () => Promise<unknown>;
    await assert.rejects(program(), (error: Error) => {
      assert.ok(pulumi.RunError.isInstance(error));
      assert.match(
        error.message,
        /^2 things are wrong .* nothing was made:\n {2}cht: is down\n {2}server: login refused$/,
      );
      return true;
    });
    assert.deepEqual(made, []);
  });
});
