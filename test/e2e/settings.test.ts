import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { serverNames } from "../../components/names";
import { output } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import { labFolder } from "../../toolchain/paths";
import { withoutCopies } from "./bucket";
import { labStack } from "./stack";

const wrongFile = join(labFolder, "wrong.yaml");

/** Twenty mistakes in one stack file, each with what its line must begin with. */
const wrong: Record<string, unknown> = {
  "cht-backup:deployment": "Ministry of Health",
  "cht-backup:schedule": "nightly at two",
  "cht-backup:randomDelay": "a while",
  "cht-backup:compression": "zip",
  "cht-backup:chunker": "fixed,17",
  "cht-backup:uploadRate": -1,
  "cht-backup:alerts": ["mailto://user:password@example.org"],
  "cht-backup:passphrase": "in clear in the file",
  "cht-backup:firstBackup": "perhaps",
  "cht-backup:shedule": "daily",
  "cht-backup:cht": { home: "home/cht", composeProject: "My CHT", couchdbData: ["couchdb"], hom: "/home/ubuntu/cht" },
  "cht-backup:server": {
    dataDirectory: "/srv/../etc",
    address: "-oProxyCommand=x",
    port: 70000,
    reserveMebibytes: 0,
    adress: "x",
  },
};
const lines = [
  "cht-backup:deployment: found",
  "cht-backup:schedule: found",
  "cht-backup:randomDelay: found",
  "cht-backup:compression: found",
  "cht-backup:chunker: found",
  "cht-backup:uploadRate: found",
  "cht-backup:alerts",
  "cht-backup:passphrase",
  "cht-backup:firstBackup: found",
  "cht-backup:shedule: there is no such setting; did you mean cht-backup:schedule?",
  "cht-backup:cht.home: found",
  "cht-backup:cht.composeProject: found",
  "cht-backup:cht.couchdbData[0]: found",
  "cht-backup:cht.hom: there is no such setting",
  "cht-backup:server.dataDirectory: found",
  "cht-backup:server.address: found",
  "cht-backup:server.port: found",
  "cht-backup:server.reserveMebibytes: found",
  "cht-backup:server.adress: there is no such setting",
  "cht-backup:planet: there is no such setting",
];

/** Everything that an up would write to, with the times of its last change; but for the watch's, which writes by itself. */
const everything =
  "find /etc /opt /srv /var/lib/cht-backup /var/lib/dpkg -xdev ! -name 'watch*' ! -path /var/lib/cht-backup/lab -printf '%p %i %m %u %C@\\n' 2>/dev/null | sort | sha256sum";

describe("twenty wrong settings at once", function () {
  this.timeout(120_000);
  let words = "";
  let code = 0;
  let touched = true;

  before(async () => {
    const settings = parse(readFileSync(stackFile, "utf8"));
    Object.assign(settings.config, wrong, { "cht-backup:planet": "earth" });
    writeFileSync(wrongFile, stringify(settings));
    const look = async () => [await output("cht", everything), await output("server", everything)].join();
    // A copy of an earlier test's backup would write, too.
    const result = await withoutCopies(async () => {
      await output("server", `systemctl start ${serverNames("lab", "").sealService}`);
      const before = await look();
      const done = await labStack("up", "--yes", "--config-file", wrongFile);
      touched = (await look()) !== before;
      return done;
    });
    words = result.stdout + result.stderr;
    code = result.code;
  });
  after(() => rmSync(wrongFile, { force: true }));

  for (const line of lines) {
    it(`are answered with a line for ${line.split(": ")[0]}`, () => {
      assert.ok(
        words.split("\n").some((each) => each.trim().startsWith(line)),
        words,
      );
    });
  }
  it("fail the run", () => assert.notEqual(code, 0));
  it("touch neither machine", () => assert.equal(touched, false));
  it("are no reason for a stack trace", () => assert.doesNotMatch(words, /\n\s+at .*[(/].*:\d+:\d+/));
  it("show no secret", () => assert.doesNotMatch(words, /user:password@|in clear in the file/));
});
