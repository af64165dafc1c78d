import assert from "node:assert/strict";
import { machines, read, wrongSettings } from "./settings";

wrongSettings([
  [
    "a drill on a machine that nobody knows",
    { "cht-backup:drill": { machine: "third" } },
    /^cht-backup:drill.machine: found "third", which isn't in host:machines; must be one of cht, server$/,
  ],
  [
    "false in place of a drill",
    { "cht-backup:drill": false },
    /^cht-backup:drill: found false; must be a mapping of `enabled`, /,
  ],
  [
    "a way to the server for a drill that goes the backup's way",
    { "cht-backup:drill": { serverAddress: "10.0.0.2" } },
    /^cht-backup:drill.serverAddress: found "10.0.0.2" for the machine cht; must be left out there/,
  ],
  [
    "a drill now and then",
    { "cht-backup:drill": { schedule: "now and then" } },
    /^cht-backup:drill.schedule: found "now and then"; must be a calendar expression/,
  ],
  [
    "a drill that is never overdue",
    { "cht-backup:drill": { overdueAfterDays: 0 } },
    /^cht-backup:drill.overdueAfterDays: found 0; must be a whole number of days from 1/,
  ],
  [
    "a drill in a directory of everybody's",
    { "cht-backup:drill": { scratch: "/scratch" } },
    /^cht-backup:drill.scratch: found "\/scratch"; must be an absolute path .* not directly below `\/`/,
  ],
  [
    "a drill in a /tmp that Docker doesn't see",
    { "cht-backup:drill": { scratch: "/var/tmp/drill" } },
    /^cht-backup:drill.scratch: found "\/var\/tmp\/drill"; must be an absolute path .* nor below `\/tmp` or/,
  ],
  [
    "a drill in the CHT's own directory",
    { "cht-backup:drill": { scratch: "/home/ubuntu/cht/couchdb" } },
    /^cht-backup:drill.scratch: found "\/home\/ubuntu\/cht\/couchdb", where the drill's own directory would be in \/home\/ubuntu\/cht or hold it; must be elsewhere/,
  ],
  [
    "the CHT's data in the drill's own directory",
    {
      "cht-backup:cht": { couchdbData: ["/srv/data/cht-backup-moh/couchdb"] },
      "cht-backup:drill": { scratch: "/srv/data" },
    },
    /^cht-backup:drill.scratch: found "\/srv\/data", where .* would be in \/srv\/data\/cht-backup-moh\/couchdb or hold it;/,
  ],
  [
    "a drill among the server's repositories",
    { "cht-backup:drill": { machine: "server", manageDocker: false, scratch: "/srv/cht-backup/drill" } },
    /^cht-backup:drill.scratch: found "\/srv\/cht-backup\/drill", where .* would be in \/srv\/cht-backup or hold it;/,
  ],
  [
    "a drill on another machine with whatever image an archive names",
    { "cht-backup:drill": { machine: "server" } },
    /^cht-backup:drill.couchdbImage: missing for the machine server; must be the CHT's image with its digest there, /,
  ],
  [
    "an image whose tag may lead elsewhere tomorrow",
    { "cht-backup:drill": { couchdbImage: "couchdb:3.5.0" } },
    /^cht-backup:drill.couchdbImage: found "couchdb:3.5.0"; must be NAME@sha256: and 64/,
  ],
]);

describe("settings", () => {
  it("lead the drill to the server by the way of its own machine", () => {
    const server = { address: "backup.example.org", port: 2222 };
    const way = (drill: Record<string, unknown>) =>
      read({
        "host:machines": { ...machines, server, third: { address: "c" } },
        "cht-backup:server": { address: "10.0.0.2", port: 23 },
        "cht-backup:drill": { manageDocker: false, ...drill },
      }).drill?.server;
    assert.deepEqual(way({ machine: "third" }), { address: "10.0.0.2", port: 23 });
    assert.deepEqual(way({ machine: "server" }), { address: "127.0.0.1", port: 2222 });
    const own = { serverAddress: "10.9.0.2", serverPort: 24 };
    assert.deepEqual(way({ machine: "third", ...own }), { address: "10.9.0.2", port: 24 });
    assert.deepEqual(way({ machine: "server", ...own }), { address: "10.9.0.2", port: 24 });
  });

  it("give the drill a directory of its own, wherever there is room", () => {
    const { drill } = read({ "cht-backup:drill": { scratch: "/home/ubuntu" } });
    assert.equal(drill?.scratch, "/home/ubuntu/cht-backup-moh");
  });

  it("can switch the drill off", () => {
    assert.equal(read({ "cht-backup:drill": { enabled: false, machine: "server" } }).drill, undefined);
  });
});
