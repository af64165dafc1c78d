/** What each machine looks at every hour, as the settings say. */
import assert from "node:assert/strict";
import { backupOverdueHours } from "../../components/watch";
import { longestHours } from "../../config/calendar";
import { watchSchema } from "../../config/watch";
import { fileOf } from "../../contract";
import { replaceSecrets, warned } from "./program";

const machines = {
  cht: { address: "cht.example.org" },
  server: { address: "backup.example.org", port: 2222 },
  third: { address: "drill.example.org" },
};
const bucket = {
  name: "moh-copy",
  endpoint: "https://s3.example.org",
  accessKeyId: "WRITER",
  secretAccessKey: "hunter2/secret",
  mode: "governance",
  checkSchedule: "Thu 08:00",
};

/** What lies in the `watch.json` of each machine, by the name of its resource. */
async function files(more: Record<string, unknown> = {}, secrets: string[] = []) {
  const values = { "host:machines": machines, "cht-backup:firstBackup": false, "cht-backup:bucket": bucket, ...more };
  const { resources } = await warned(
    Object.fromEntries(Object.entries(values).map(([key, value]) => [key, JSON.stringify(value)])),
    ["cht-backup:bucket", ...secrets],
  );
  const found = [...resources].filter(([name]) => name.endsWith("watch-settings"));
  return { resources, watched: new Map(found.map(([name, { inputs }]) => [name, JSON.parse(String(inputs.content))])) };
}

describe("the watch", function () {
  this.timeout(30_000);
  const without = { manageDocker: false };

  it("looks on the CHT machine at backups and drills, the server, the certificate", async () => {
    const { watched } = await files({ "cht-backup:drill": without });
    assert.deepEqual([...watched.keys()], ["watch-settings", "server-watch-settings"]);
    const of = watched.get("watch-settings");
    assert.equal(of.role, "cht");
    assert.equal(of.state, "/var/lib/cht-backup/moh");
    assert.deepEqual(of.timers, [
      "cht-backup-moh.timer",
      "cht-alert-later-moh.path",
      "cht-drill-moh.timer",
      "cht-drill-moh-overdue.timer",
    ]);
    assert.deepEqual(of.server, {
      address: "backup.example.org",
      port: 2222,
      knownHosts: "/etc/cht-backup/moh/known_hosts",
    });
    assert.deepEqual([of.certificate, of.drills, of.drillOverdueDays], [true, true, 9]);
    assert.deepEqual([of.silentHours, of.copyOverdueHours, of.bucketState], [null, null, null]);
  });

  it("looks on the server at what comes in, and at copies, without the CHT machine's help", async () => {
    const { watched } = await files({ "cht-backup:drill": without });
    const of = watched.get("server-watch-settings");
    assert.deepEqual([of.role, of.server, of.backupOverdueHours, of.drills], ["server", null, null, false]);
    assert.ok(of.silentHours > backupOverdueHours({ schedule: "*-*-* 02:00:00", watch: watchSchema.parse({}) }));
    assert.equal(of.repository, "/srv/cht-backup/moh/repository");
    assert.equal(of.reserveBytes, 1024 ** 3);
    assert.deepEqual([of.copyOverdueHours, of.checkOverdueHours], [48, 9 * 24]);
    assert.ok(of.timers.includes("cht-bucket-check-moh.timer") && of.timers.includes("cht-repository-seal-moh.path"));
    const alone = await files({ "cht-backup:bucket": "none", "cht-backup:drill": without });
    const none = alone.watched.get("server-watch-settings");
    assert.deepEqual([none.copyOverdueHours, none.checkOverdueHours, none.bucketState], [null, null, null]);
    assert.doesNotMatch(JSON.stringify(none), /bucket-/);
  });

  it("looks on a machine of its own that drills at drills and at the server", async () => {
    const { watched } = await files({ "cht-backup:drill": { ...without, machine: "third", couchdbImage: undefined } });
    const of = watched.get("drill-third-watch-settings");
    assert.deepEqual([of.role, of.drills, of.certificate, of.backupOverdueHours], ["drill", true, false, null]);
    assert.equal(of.server.address, "backup.example.org");
    assert.equal(watched.get("watch-settings").drills, false);
    // Both fall silent for the other.
    const { fingerprints, silentHours } = watched.get("server-watch-settings").drillLogin;
    assert.deepEqual([fingerprints.length, silentHours], [1, 26]);
    assert.match(fingerprints[0], /^SHA256:[\w+/]{43}$/);
    const server = await files({ "cht-backup:drill": { ...without, machine: "server" } });
    assert.equal(server.watched.get("drill-server-watch-settings").server, null);
    assert.equal(server.watched.get("server-watch-settings").drillLogin, null);
    const cht = await files({ "cht-backup:drill": without });
    assert.equal(cht.watched.get("server-watch-settings").drillLogin, null);
  });

  it("waits for a backup as long as the schedule says, and some hours more", () => {
    const table: Record<string, number> = {
      "*-*-* 00/4:17:00 UTC": 4,
      "*-*-* 02:00:00": 24,
      "02:00 Africa/Nairobi": 24,
      "*-*-* 8..18/2:00": 14,
      "*:0/15": 1,
      "*-*-* 06,18:30:00": 12,
      hourly: 1,
      "hourly UTC": 1,
      daily: 24,
      "Mon..Fri 02:00": 72,
      weekly: 168,
    };
    for (const [calendar, hours] of Object.entries(table)) assert.equal(longestHours(calendar), hours, calendar);
    const watch = watchSchema.parse({});
    assert.equal(backupOverdueHours({ schedule: "*-*-* 00/4:17:00 UTC", watch }), 26);
    // A day on which summer time ends has 25 hours, and a run may be delayed, and take its time.
    assert.equal(backupOverdueHours({ schedule: "*-*-* 02:00:00", watch }), 28);
    assert.equal(backupOverdueHours({ schedule: "weekly", watch: { ...watch, backupOverdueHours: 50 } }), 50);
  });

  it("runs in no environment, and says so itself when it can't look", async () => {
    const { resources } = await files({ "cht-backup:drill": without });
    for (const name of ["watch-service", "server-watch-service"]) {
      const text = String(resources.get(name)?.inputs.content);
      assert.match(text, /^ExecStart=\/usr\/bin\/python3 -sEB \S+\/chtbackup watch run \/etc\/\S+\/moh\/watch\.json$/m);
      assert.match(text, /^ExecStopPost=.* alert --about watch /m);
      assert.match(text, /^ReadWritePaths=-\/var\/lib\/\S+\/moh -\/var\/lib\/prometheus\/node-exporter$/m);
    }
  });

  it("gives each machine the addresses to call of its own runs, and none in clear", async () => {
    const pings = { backup: "https://hc.example.org/hunter2-b", copy: "https://hc.example.org/hunter2-c" };
    const more = { "cht-backup:drill": without, "cht-backup:watch": { pings } };
    const { resources } = await files(more, ["cht-backup:watch"]);
    const text = (name: string) => JSON.parse(String(resources.get(name)?.inputs.content));
    assert.deepEqual(text("watch-pings"), { backup: pings.backup });
    assert.deepEqual(text("server-watch-pings"), { copy: pings.copy });
    const shown = [...resources.values()].map(({ raw }) => replaceSecrets(raw, () => ""));
    assert.doesNotMatch(JSON.stringify(shown), /hunter2/);
    await assert.rejects(files(more), /cht-backup:watch\.pings: found in clear; must be secret/);
    for (const name of ["nightly-backup-service", "bucket-copy-service", "drill-service"]) {
      const unit = String(resources.get(name)?.inputs.content);
      // Whether the service can be reached makes no difference to the run.
      assert.match(unit, /^ExecStartPre=-.* ping start \S+ moh \/etc\/\S+\/moh\/pings\.json'$/m);
      assert.match(unit, /^ExecStopPost=-.* ping end \S+ moh \/etc\/\S+\/moh\/pings\.json'$/m);
    }
  });

  it("refuses to write what a machine wouldn't take", async () => {
    const { watched } = await files({ "cht-backup:drill": without });
    const of = watched.get("watch-settings");
    assert.throws(() => fileOf("watch", { ...of, role: "other" }));
    assert.throws(() => fileOf("watch", { ...of, server: { ...of.server, address: "-oProxyCommand=x" } }));
  });
});
