/** Alerts of the lab's CHT machine, received on its server. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chtNames } from "../../components/names";
import { exec, output, waitFor } from "../../lab/machines";
import { settings, state } from "./backup";

const { watchTimer, watchService } = chtNames("lab");
const received = "/run/alerts-test";
const program = "/run/alerts-test.py";
const listener = "alerts-test.service";
/** A part of the address that nobody may show. */
export const secret = "not-for-the-journal";
export const address = `json://cht:${secret}@cht-backup-lab-server:8098/alerts`;

export interface Alert {
  path: string;
  title: string;
  message: string;
  /** apprise's, or `ping`. */
  type: "failure" | "success" | "ping";
}

/** Starts the listener, again after the server was restarted. */
export async function listen(): Promise<void> {
  const source = readFileSync(join(__dirname, "machine", "alert_listener.py"), "utf8");
  const script = `set -e
cat >${program}
systemctl stop ${listener} 2>/dev/null || true
systemd-run --quiet --collect --unit=${listener} python3 ${program} 8098 ${received}`;
  await output("server", script, { stdin: source });
}

/** Starts the listener and has the CHT machine send its alerts there. */
export async function receiveAlerts(): Promise<void> {
  // What it remembers to have told would keep the next alarm for the same reason back.
  await stopWatching();
  await listen();
  await forgetAlerts();
  await output("cht", `cat >${settings}/alerts`, { stdin: `${address}\n` });
}

/** Keeps the watch from looking by itself: what it has seen it tells once, and a unit's own alarm for the same not again.
 * A machine that is started anew watches again. */
export const stopWatching = () => output("cht", `systemctl stop ${watchTimer} ${watchService}`);

/** The CHT machine sends its alerts nowhere, as before. */
export async function stopAlerts(): Promise<void> {
  await exec("cht", `: >${settings}/alerts; rm -f ${state}/alerts/*; systemctl start ${watchTimer}`);
  await exec("server", `systemctl stop ${listener}; rm -f ${received} ${program}`);
}

/** Forgets what came; what the machines have told stays told. */
export const forgetReceived = () => output("server", `: >${received}`);

/** Forgets what came, and what couldn't be delivered so far. */
export async function forgetAlerts(): Promise<void> {
  await output("cht", `rm -f ${state}/alerts/* ${state}/watch-state.json`);
  await forgetReceived();
}

/** Has the CHT machine try at once to deliver what it couldn't, and not only when it is time. */
export async function deliverNow(): Promise<void> {
  // Not in the middle of sending, after which it would send once more: senders hold this lock.
  await output("cht", `flock ${state}/alerts systemctl restart ${chtNames("lab").alertLaterService}`);
}

/** All that came, the watch's, too. */
export async function alertsSoFar(): Promise<Alert[]> {
  const lines = (await output("server", `cat ${received}`)).split("\n").filter(Boolean);
  return lines.map((line) => JSON.parse(line) as Alert);
}

/** Asserts that one alert came, with this title and for this reason, and takes it away. */
export async function assertAlert(title: RegExp, reason: RegExp): Promise<void> {
  let seen: Alert[] = [];
  const came = await waitFor(async () => {
    // A machine that a test starts anew watches, too.
    seen = (await alertsSoFar()).filter(({ title }) => !/^CHT backup lab on /.test(title));
    return seen.length > 0;
  }, 90_000);
  assert.ok(came, "no alert came");
  assert.equal(seen.length, 1);
  assert.match(seen[0]?.title ?? "", title);
  assert.match(seen[0]?.message ?? "", reason);
  await forgetAlerts();
}
