import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { engineOver } from "../../components/drill-docker";
import { drillNames } from "../../components/names";
import { ensureDrillNetwork } from "../../lab/cht";
import { exec, output, waitFor } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import type { Machine } from "../../provider/connection";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertComplete, backUp } from "./backup";
import { healthyLab } from "./hooks";

const { service, network } = drillNames("lab");

/** Runs the command as an operator does. */
function drill(...options: string[]): Promise<Result> {
  return run("npm", ["run", "-s", "drill", "--", "--stack", "lab", ...options], { cwd: project, timeoutMs: 240_000 });
}

const state = async () => (await exec("cht", `systemctl show -p ActiveState --value ${service}`)).stdout.trim();

describe("npm run drill", function () {
  this.timeout(90_000);

  let archive: string;

  before(async () => {
    await healthyLab();
    archive = assertComplete(await backUp()).archive as string;
  });
  after(() => exec("cht", `systemctl reset-failed 'cht-drill-lab*'`));

  it("tells what is being done, then prints the report, which --report prints again", async () => {
    const done = await drill();
    assert.equal(done.code, 0, done.stderr);
    assert.match(done.stderr, new RegExp(`^archive ${archive},[\\s\\S]*${archive} restores: `));
    assert.match(done.stdout, /^Restore drill of the CHT deployment lab: RIGHT\n/);
    const again = await drill("--report");
    assert.deepEqual([again.code, again.stdout], [0, done.stdout]);
    const report = JSON.parse((await drill("--report", "--json")).stdout);
    assert.deepEqual([report.ok, report.archive], [true, archive]);
  });

  it("ends with another exit code when nothing could be proven, and --report does so from then on", async () => {
    await output("cht", `docker network rm ${network}`);
    try {
      const done = await drill("--json");
      assert.equal(done.code, 2, done.stderr);
      const report = JSON.parse(done.stdout);
      assert.equal(report.ok, false);
      assert.match(report.problems.join(), new RegExp(network));
      assert.equal((await drill("--report")).code, 1);
    } finally {
      await ensureDrillNetwork("cht");
    }
  });

  it("stopped by Ctrl-C lets the drill go on, and says so; the next one follows it to its end", async () => {
    const words = ["toolchain/run.mjs", "operations/drill.ts", "--stack", "lab"];
    const child = spawn(process.execPath, words, { cwd: project, stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
    assert.ok(await waitFor(async () => (await state()) === "activating", 60_000), said);
    // Suspended, so that it can't end before the signal has arrived. Before the program itself the unit calls somebody.
    const suspend = `until systemctl kill --signal=STOP --kill-whom=main ${service} 2>/dev/null; do sleep 0.1; done`;
    await output("cht", suspend, { timeoutMs: 60_000 });
    try {
      child.kill("SIGINT");
      assert.equal(await ended, 130);
      assert.match(said, /The drill goes on\. Its report: npm run drill -- --stack lab --report\n$/);
      assert.equal(await state(), "activating");
      const follower = drill();
      await output("cht", `until pgrep -f '^systemctl start ${service}'; do sleep 0.1; done`, { timeoutMs: 80_000 });
      await output("cht", `systemctl kill --signal=CONT --kill-whom=main ${service}`);
      const followed = await follower;
      assert.equal(followed.code, 0, followed.stderr);
      assert.match(followed.stderr, /^a drill is running already; following it\n/);
      assert.match(followed.stdout, /: RIGHT\n/);
    } finally {
      await exec("cht", `systemctl kill --signal=CONT --kill-whom=main ${service}`);
    }
  });

  for (const [words, code, line] of [
    [["--help"], 0, /^Usage: npm run drill -- --stack STACK/],
    [["--jsn"], 2, /Unknown option '--jsn'/],
    [[], 2, /--stack is missing/],
  ] as const) {
    it(`answers ${words.join(" ") || "no option"} in words, with exit code ${code}`, async () => {
      const done = await run("npm", ["run", "-s", "drill", "--", ...words], { cwd: project });
      assert.equal(done.code, code);
      assert.match(done.stdout + done.stderr, line);
    });
  }
});

describe("the Docker plugin's way to a machine", function () {
  this.timeout(30_000);

  /** Starts ssh with the words that Docker's own library puts together, and asks the engine at the other end. */
  function ping(machine: Machine): Promise<Result> {
    const { host, sshOpts } = engineOver(machine);
    const { username, hostname, port } = new URL(host);
    const words = [...sshOpts, "-l", username, ...(port === "" ? [] : ["-p", port])];
    return run("ssh", [...words, "--", hostname, "docker", "system", "dial-stdio"], {
      cwd: project,
      stdin: "GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n",
    });
  }
  const machine = (): Machine => ({
    ...parse(readFileSync(stackFile, "utf8")).config["host:machines"].cht,
    sudo: true,
  });

  it("leads to its engine", async () => {
    const answer = await ping(machine());
    assert.match(answer.stdout, /^HTTP\/1\.1 200 OK[\s\S]*\r\n\r\n[\s\S]*OK/, answer.stderr);
  });

  it("leads nowhere when the machine shows another host key than the pinned one", async () => {
    const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDOyFo85EhjxcKPwy3PVRUkg9DAcyF83jITBCUDpWyHv";
    const answer = await ping({ ...machine(), hostKey });
    assert.notEqual(answer.code, 0);
    assert.match(answer.stderr, /Host key verification failed/);
  });
});
