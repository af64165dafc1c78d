/** The programs that faults hit: how each is started, and how it is told whether a run came out right. */
import { bucketNames, chtNames, drillNames, serverNames } from "../components/names";
import { exec, type Machine, output, waitFor } from "../lab/machines";
import { run } from "../toolchain/command";
import { project } from "../toolchain/paths";
import type { VictimName } from "./fault";
import { type Operator, operator } from "./operator";

export const cht = chtNames("lab");
export const drills = drillNames("lab");
export const bucket = bucketNames("lab");
export const server = serverNames("lab", "/srv/cht-backup");
/** CouchDB's directory of the lab's CHT. */
export const data = "/home/ubuntu/cht/couchdb";
/** Something new and large enough that an upload has a middle. View indexes are read first. */
const bulk = `${data}/.shards/00-campaign`;
const into = "/var/tmp/cht-campaign-part";
/** No run takes longer on the lab as it is, whatever happens to it, in milliseconds. */
const LIMIT_MS = 420_000;

/** What came of a run. */
export interface Outcome {
  /** It came out right, and said so. */
  right: boolean;
  /** Why not, in its own words: of its report, its output, or of systemd. */
  words: string;
  /** Whether these words tell an operator who has started it himself: an exit code, and a reason without a stack. */
  toldOperator: boolean;
}

export interface Run {
  pid: number | undefined;
  running(): boolean;
  ended(): Promise<Outcome>;
}

export interface Victim {
  name: VictimName;
  /** The title of the alarm when a run of it fails; undefined for what an operator starts. */
  alarm?: RegExp;
  /** Makes that there is something to do. */
  prepare(): Promise<unknown>;
  /** Before it is run once more, for what it would otherwise wait for. */
  again?(): Promise<unknown>;
  /** @param limitMs after so many milliseconds it runs for ever. Default: what no run on the lab as it is takes. */
  start(limitMs?: number): Promise<Run>;
}

/** A program that systemd runs. */
function unit(name: VictimName, machine: Machine, service: string, report: string, alarm: RegExp, prepare = "true") {
  const busy = `systemctl list-jobs --no-legend | grep -q ' ${service} ' || systemctl show -p ActiveState --value ${service} | grep -q activating`;
  const read = `cat ${report} 2>/dev/null || true`;
  const victim: Victim = {
    name,
    alarm,
    prepare: () => output(machine, prepare, { timeoutMs: 120_000 }),
    async start(limitMs = LIMIT_MS) {
      const before = (await output(machine, read)).trimEnd();
      await output(machine, `systemctl reset-failed ${service} 2>/dev/null; systemctl start --no-block ${service}`);
      let over = false;
      const whenEnded = (async (): Promise<Outcome> => {
        let found = "";
        // A machine without power answers nothing, which is no end: all is asked at once, and again.
        const ended = await waitFor(async () => {
          const facts = `systemctl show -p Result -p ExecMainStatus ${service}; echo; ${read}`;
          const asked = await exec(machine, `if ${busy}; then echo busy; else ${facts}; fi`, { timeoutMs: 20_000 });
          found = asked.stdout;
          return asked.code === 0 && found.trim() !== "busy";
        }, limitMs);
        over = true;
        if (!ended) return { right: false, words: `${service} runs for ever`, toldOperator: false };
        const [facts = "", after = ""] = found.trimEnd().split(/\n\n(.*)/s);
        const written = after === before || after === "" ? undefined : parsed(after);
        const result = /^Result=(.*)$/m.exec(facts)?.[1];
        if (written?.ok === true && result === "success") return { right: true, words: "", toldOperator: false };
        const words = (written?.problems ?? []).join("; ") || `no report of this run; ${facts.replace("\n", " ")}`;
        return { right: false, words, toldOperator: false };
      })();
      // It may fail before anybody waits for it, and is told to whoever does.
      whenEnded.catch(() => undefined);
      return { pid: undefined, running: () => !over, ended: () => whenEnded };
    },
  };
  return victim;
}

function parsed(text: string): { ok?: boolean; problems?: string[] } | undefined {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A program that an operator starts on this computer. */
function command(name: VictimName, words: string[], prepare: () => Promise<unknown>): Victim {
  return {
    name,
    prepare,
    async start(limitMs = LIMIT_MS) {
      const started: Operator = operator(words, limitMs);
      return {
        pid: started.pid,
        running: started.running,
        ended: async () => {
          const { code, stdout, stderr } = await started.ended;
          const last = stderr.trim().split("\n").at(-1) ?? "";
          const stack = /^Traceback|^\s+at .*\(.*:\d+:\d+\)$/m.test(stderr);
          const said = code >= 128 ? "" : last || stdout.trim().split("\n").at(-1) || "";
          const words = stack ? `a stack trace: ${stderr.slice(-600)}` : said;
          return { right: code === 0, words: `exit code ${code}: ${words}`, toldOperator: code !== 0 && !stack };
        },
      };
    },
  };
}

/** Makes the oldest archives that the server's ledger knows older than the policy keeps, all on one day. */
async function age(many: number): Promise<void> {
  const script = `import sqlite3, time
with sqlite3.connect("${server.state}/audit.sqlite", timeout=300) as database:
    day = int(time.time()) // 86400 * 86400 - 40 * 86400
    rows = database.execute("SELECT id FROM archives WHERE at > ? ORDER BY at", (day + 86400,)).fetchall()
    # The newest ones stay what they are: a drill and a restore take them.
    for number, (id,) in enumerate(rows[:-4][:${many}]):
        database.execute("UPDATE archives SET at = ? WHERE id = ?", (day + 3600 + 60 * number, id))
`;
  await output("server", "python3 -", { stdin: script });
}

const stack = ["--stack", "lab"];
const operation = (name: string, ...words: string[]) => [`operations/${name}.ts`, ...stack, ...words];
// Times are set by hand in the lab, and there are more archives than a schedule makes.
const despite = ["clock", "flood", "drill"].flatMap((doubt) => ["--despite", doubt]);
const part = ["--to", "cht", "--database", "medic", "--into", into];
const cleared = () => output("cht", `rm -rf ${into} /var/tmp/.cht-campaign-part.restoring /var/lib/cht-restore/lab`);

const grow = `head -c 12M /dev/urandom >${bulk} && chown 5984:5984 ${bulk}`;
/** As if no client had been there for a while, which a copy waits for. */
const settled = () => output("server", `touch --date '1 minute ago' ${server.repository}`);

export const victims: Record<VictimName, Victim> = {
  backup: unit("backup", "cht", cht.service, `${cht.state}/last-backup.json`, /^CHT backup lab failed/, grow),
  copy: {
    ...unit("copy", "server", bucket.copyService, `${bucket.state}/last-copy.json`, /^Copy of the backups to/),
    // It has something to do only after a backup.
    prepare: async () => {
      await output("cht", grow);
      await exec("cht", `systemctl start ${cht.service}`);
      await settled();
    },
    again: settled,
  },
  drill: unit("drill", "cht", drills.service, `${drills.reports}/latest.json`, /^CHT restore drill lab/),
  retention: command("retention", operation("retention", "--yes", ...despite), () => age(2)),
  restore: command("restore", operation("restore", "--from", "server", ...part), cleared),
  "restore from the bucket": command(
    "restore from the bucket",
    operation("restore", "--from", "bucket", ...part),
    cleared,
  ),
  up: command("up", ["toolchain/pulumi.ts", "up", "--yes", "--skip-preview", ...stack, "--color", "never"], () =>
    output("cht", `systemctl stop ${drills.overdueTimer}; echo '# changed' >>/etc/systemd/system/${drills.service}`),
  ),
};

/** Nothing that a round needs is left of the one before: the growing file, and what was restored. */
export const tidied = () => output("cht", `rm -rf ${bulk} ${into} /var/tmp/.cht-campaign-part.restoring`);

/** Whether a preview says that nothing has drifted, and its words. */
export async function preview(): Promise<{ clean: boolean; words: string }> {
  const words = ["toolchain/run.mjs", "toolchain/pulumi.ts", "preview", "--expect-no-changes", ...stack];
  const done = await run(process.execPath, [...words, "--color", "never"], { cwd: project, timeoutMs: 300_000 });
  return { clean: done.code === 0, words: `${done.stdout}\n${done.stderr}`.trim().slice(-1500) };
}
