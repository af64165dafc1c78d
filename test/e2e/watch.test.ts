import assert from "node:assert/strict";
import { exec, output } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { alertsSoFar, forgetAlerts, receiveAlerts, stopAlerts } from "./alerts";
import { assertComplete, backUp, during } from "./backup";
import { healthyLab } from "./hooks";
import { here, holds, look, there, type WatchReport } from "./watching";

const operator = (...words: string[]) =>
  run("npm", ["run", "-s", words[0] as string, "--", "--stack", "lab", ...words.slice(1)], { cwd: project });

describe("the watch", function () {
  this.timeout(120_000);

  before(async () => {
    await healthyLab();
    assertComplete(await backUp());
    await receiveAlerts();
  });
  after(stopAlerts);
  beforeEach(forgetAlerts);

  it("looks on the CHT machine and on the server as its unit is allowed to, and sees what is there", async () => {
    const [ofCht, ofServer] = await Promise.all([look("cht"), look("server")]);
    assert.deepEqual([ofCht.role, ofServer.role], ["cht", "server"]);
    assert.equal(ofCht.facts.backup?.ok, true);
    assert.ok((ofServer.facts.lastTransactionAt ?? 0) > Date.now() / 1000 - 3600);
    for (const { facts } of [ofCht, ofServer]) {
      assert.ok(facts.units.length >= 4);
      assert.deepEqual(
        facts.units.filter(({ there }) => !there),
        [],
      );
    }
    for (const report of [ofCht, ofServer]) {
      for (const id of ["backup-overdue", "cht-silent", "server-unreachable", "host-key-changed", "reserve-gone"]) {
        assert.ok(!holds(report, id), JSON.stringify(report.conditions));
      }
    }
  });

  it("writes a page on the server that everybody there may read, without a secret", async () => {
    await look("server");
    const page = await output("server", `stat -c '%a' ${there.state}/status.html; cat ${there.state}/status.html`);
    assert.match(page, /^644\n<!doctype html>/i);
    assert.doesNotMatch(page, /<script/);
  });

  it("says in one command how all stands, and in another what came of a test of the alarms", async () => {
    const status = await operator("status", "--json", "--patience", "30");
    assert.ok([0, 1, 2].includes(status.code), status.stderr);
    const { reports, unreached } = JSON.parse(status.stdout);
    assert.deepEqual(reports.map(({ role }: WatchReport) => role).sort(), ["cht", "server"]);
    assert.deepEqual(unreached, []);
    const text = await operator("status", "--patience", "30");
    assert.equal(text.code, status.code);
    assert.match(text.stdout, /backup/i);
    const test = await operator("alert-test");
    // Of the lab's machines only the CHT's has somebody to tell.
    assert.equal(test.code, 1);
    assert.match(test.stdout, /^cht: 1 alert\(s\) delivered$/m);
    assert.match(`${test.stdout}${test.stderr}`, /server: there is nobody to send a test to/);
    assert.equal((await alertsSoFar()).filter(({ title }) => title === "CHT backup lab: test").length, 1);
  });

  it("that can't look says so, for nobody else would", async () => {
    const { watchService, settings, state } = here;
    // It says so once a day.
    await output("cht", `rm -f ${state}/watch-failed`);
    const file = `${settings}/watch.json`;
    await during("cht", `mv ${file} ${file}.away`, `mv ${file}.away ${file}`, async () => {
      assert.notEqual((await exec("cht", `systemctl start ${watchService}`)).code, 0);
      const told = (await alertsSoFar()).map(({ title }) => title);
      assert.deepEqual(told, ["CHT backup lab: nobody watches the backups on cht"]);
    });
    await output("cht", `systemctl reset-failed ${watchService}`);
  });
});
