import assert from "node:assert/strict";
import { exec, output } from "../../lab/machines";
import { bucketSettingsFolder, copyService } from "./bucket";
import { healthyLab } from "./hooks";

/** The unit of the copy as it is on the server, but with another file of settings, and without a key's. */
const unit = "cht-bucket-without-key.service";
const settings = "/run/cht-bucket-without-key.json";

describe("the copy on a server that has no key", function () {
  this.timeout(60_000);

  before(healthyLab);

  after(async () => {
    const script = `rm -f /run/systemd/system/${unit} ${settings}; systemctl reset-failed ${unit}; systemctl daemon-reload`;
    await exec("server", script);
  });

  it("starts all the same, and says that the machine has no role either", async () => {
    const change = [
      `s#${bucketSettingsFolder}/bucket.json#${settings}#`,
      `s#^LoadCredential=bucket:.*#LoadCredential=bucket:${bucketSettingsFolder}/none#`,
      "/^OnFailure=/d",
    ];
    await output(
      "server",
      `set -e
      sed '${change.join(";")}' /etc/systemd/system/${copyService} >/run/systemd/system/${unit}
      sed 's#"credentials": .*#"credentials": null,#' ${bucketSettingsFolder}/bucket.json >${settings}
      chmod 0644 ${settings}
      systemctl daemon-reload`,
    );
    await exec("server", `systemctl start ${unit}`);
    const shown = await output("server", `systemctl show -p ExecMainStatus --value ${unit}`);
    const said = await output("server", `journalctl --sync; journalctl -u ${unit} -n 20 -o cat --no-pager`);
    assert.match(said, /there are no credentials, and this machine has no role that gives some/);
    assert.equal(shown, "2");
  });
});
