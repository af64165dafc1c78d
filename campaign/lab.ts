/** The lab during a campaign: alarms go to it, waits are short, and only the campaign starts anything. */
import { exec, type Machine, output } from "../lab/machines";
import { bucket, cht, server } from "./victims";

/** Where what was there is kept meanwhile. */
const kept = "/var/tmp/cht-campaign/kept";

/** Files that are changed, with how. */
const changed: [Machine, string, string][] = [
  // borg looks ten times in its waiting time whether a lock has gone: with 600 s that is once a minute.
  ["cht", `${cht.settings}/settings.json`, `sed -i 's/"lockWait": 600,/"lockWait": 30,/'`],
  // A campaign makes more transactions than a deployment does in a year of days.
  ["server", `${server.settings}/repository.json`, `sed -i 's/"commitsPerDay": [0-9]*/"commitsPerDay": 100000/'`],
];
const alarmFiles: [Machine, string][] = [
  ["cht", `${cht.settings}/alerts`],
  ["server", `${server.settings}/alerts`],
];

const copyOf = (path: string) => `${kept}/${path.replaceAll("/", "_")}`;
const keep = (path: string) =>
  `install -d -m 0700 ${kept}; [ -e ${copyOf(path)} ] || [ ! -e ${path} ] || cp -p ${path} ${copyOf(path)}`;

/** Makes the lab fit for a round; an `up` before may have undone it. */
export async function tune(alarmAddress: string): Promise<void> {
  for (const [machine, path, change] of changed) await output(machine, `set -e; ${keep(path)}; ${change} ${path}`);
  for (const [machine, path] of alarmFiles) {
    // By standard input: the address is a secret.
    await output(machine, `set -e; ${keep(path)}; cat >${path}`, { stdin: `${alarmAddress}\n` });
  }
  await output("server", `systemctl stop ${bucket.copyPath}`);
}

/** The lab as the stack wants it. */
export async function untune(): Promise<void> {
  const files = [...changed.map(([machine, path]) => [machine, path] as const), ...alarmFiles];
  for (const [machine, path] of files) {
    await exec(machine, `[ ! -e ${copyOf(path)} ] || { cat ${copyOf(path)} >${path}; rm ${copyOf(path)}; }`);
  }
  await exec("cht", `rm -f ${cht.state}/alerts/*; systemctl reset-failed`);
  await exec("server", `rm -f ${server.state}/alerts/*; systemctl reset-failed; systemctl start ${bucket.copyPath}`);
}
