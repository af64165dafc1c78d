/** A deployment that was set up before there were a guard, seals and an audit. */
import assert from "node:assert/strict";
import { serverNames } from "../../components/names";
import { exec, output } from "../../lab/machines";
import { approve, archives, assertComplete, backUp, home, recovery, repository, user } from "./backup";
import { withoutCopies } from "./bucket";
import { healthyLab } from "./hooks";
import { assertNoDrift, up } from "./stack";

const { programs, settings, state, ...units } = serverNames("lab", "/srv/cht-backup");

/** The server as `up` of an earlier version left it, down to owners, modes and the forced command. */
const asBefore = `set -e
systemctl disable --quiet --now ${units.sealPath} ${units.auditPath} ${units.auditTimer}
systemctl stop ${units.sealService} ${units.auditService}
cd /etc/systemd/system && rm ${[units.sealPath, units.sealService, units.auditPath, units.auditTimer, units.auditService, units.failedService].join(" ")}
systemctl daemon-reload
rm -rf ${programs} ${settings} ${state}
chown -R ${user}:${user} ${repository}
find ${repository} -type d -exec chmod 0700 {} +
find ${repository} -type f -exec chmod 0600 {} +
serve='/usr/bin/borg serve --append-only --restrict-to-repository ${repository}'
sed -i "s#^    ForceCommand .*#    ForceCommand $serve#" /etc/ssh/sshd_config.d/50-cht-backup-lab.conf
sed -i 's#command="[^"]*"#command="'"$serve"'"#' ${home}/.ssh/authorized_keys
systemctl reload ssh`;

describe("a deployment from before the guard", function () {
  this.timeout(300_000);
  let earlier: string[];
  let id: string;

  before(async () => {
    await healthyLab();
    const { passphrase } = await recovery();
    earlier = await archives(passphrase);
    assert.ok(earlier.length > 0);
    id = await output("server", `grep '^id = ' ${repository}/config`);
    await withoutCopies(() => output("server", asBefore));
    assert.deepEqual(await archives(passphrase), earlier, "it isn't as it was before");
  });

  after(() => approve("the end of a test"));

  it("is brought under guard, seals and audit by one up, with the same repository and all archives", async () => {
    await up();
    await assertNoDrift();
    const { passphrase } = await recovery();
    assert.equal(await output("server", `grep '^id = ' ${repository}/config`), id);
    assert.deepEqual(await archives(passphrase), earlier);
    const writable = `cd /; runuser -u ${user} -- find ${repository}/data -type f -writable`;
    assert.equal(await output("server", writable), "");
    const removed = await exec(
      "server",
      `cd /; runuser -u ${user} -- rm -f ${repository}/data/0/0 ${repository}/config`,
    );
    assert.match(removed.stderr, /Operation not permitted/);
  });

  it("makes its next backup into it, and the audit finds nothing odd in that", async () => {
    const audit = async () => {
      await output("server", `systemctl start ${units.auditService}`);
      return JSON.parse(await output("server", `cat ${state}/last-audit.json`));
    };
    // The first audit reads the whole history anew, and other tests' damage and repairs are in this one's.
    await approve("what other tests did");
    const before = await audit();
    const { archive } = assertComplete(await backUp());
    const { passphrase } = await recovery();
    assert.deepEqual(await archives(passphrase), [...earlier, archive]);
    const report = await audit();
    assert.deepEqual(report.problems, []);
    assert.equal(report.archives, before.archives + 1);
  });
});
