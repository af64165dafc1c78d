/**
 * Each way in which backups stop, and who tells of it: once, in words that fit, again when it lasts, and when it is over. The
 * times after which something counts are shortened; each machine looks when the test says so, as its timer has it do each hour.
 *
 * Elsewhere: a drill that fails or is overdue (drill.test.ts), an hour without a network (test/hosts/test_alert.py), a month of
 * ordinary life without a word (test/hosts/test_watch.py).
 */
import assert from "node:assert/strict";
import { bucketAddress } from "../../campaign/faults/network";
import { drillNames } from "../../components/names";
import { addressOf, containerOf, exec, type Machine, output, waitFor } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { type Alert, address, alertsSoFar, deliverNow, forgetReceived, receiveAlerts, stopAlerts } from "./alerts";
import { assertComplete, backUp, service, settings, state, timer } from "./backup";
import { copiesEnded, copyNow, copyPath, lastCopy } from "./bucket";
import { healthyLab } from "./hooks";
import { here, look, there, withLimits } from "./watching";

/** So short that all is too late, in hours or days. */
const AT_ONCE = 0.000_001;

interface Way {
  what: string;
  /** The machine that tells. */
  by: Machine;
  /** Its watch's settings meanwhile. */
  limits?: object;
  make(): Promise<unknown>;
  /** After it the machine finds nothing of it. */
  undo(): Promise<unknown>;
  /** What is told: the title without whom it is about, and a part of the text. */
  title: string;
  text: RegExp;
  /** Whether it is waited for that it is told again. */
  again?: boolean;
  /** What the unit that failed has told itself before the watch looks. */
  unit?: RegExp;
}

const cht = (script: string) => output("cht", `set -e\n${script}`);
const server = (script: string) => output("server", `set -e\n${script}`);
const unitFile = (unit: string) => `/etc/systemd/system/${unit}`;
const masked = (unit: string) =>
  `mv ${unitFile(unit)} /run/told-${unit}; ln -s /dev/null ${unitFile(unit)}; systemctl daemon-reload`;
const unmasked = (unit: string) => `mv -f /run/told-${unit} ${unitFile(unit)}; systemctl daemon-reload`;
const keys = "/srv/cht-backup/lab/.ssh/authorized_keys";
const venv = `${here.programs}/venv/lib`;
const history = `${state}/watch-history.jsonl`;
const report = `${state}/last-backup.json`;

/** A change of a file, and the way back. */
const changed = (file: string, how: string) => ({
  make: `cp -p ${file} /run/told-file; ${how}`,
  undo: `mv -f /run/told-file ${file}`,
});
const refused = changed(keys, `sed -i 's/^/#/' ${keys}`);
const another = changed(
  `${settings}/known_hosts`,
  `rm -f /run/told-key*; ssh-keygen -q -t ed25519 -N '' -f /run/told-key; sed 's/^/offsite /' /run/told-key.pub >${settings}/known_hosts`,
);
const ahead = changed(report, `sed -i -E 's/"finishedAt": [0-9]+/"finishedAt": 9999999999/' ${report}`);
const weeks = changed(
  history,
  `python3 - ${history} <<'END'
import json, sys, time
days = [time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86400 * ago)) for ago in range(10, 0, -1)]
known = {"repository": None, "free": None, "data": None, "archives": None, "documents": {"medic": 50_000}}
with open(sys.argv[1]) as file:
    now = file.read()
with open(sys.argv[1], "w") as file:
    file.write("".join(json.dumps({"day": day, **known}) + "\\n" for day in days) + now)
END`,
);

const ways: Way[] = [
  {
    what: "the timer of the backups is stopped",
    by: "cht",
    again: true,
    make: () => cht(`systemctl stop ${timer}`),
    undo: () => cht(`systemctl start ${timer}`),
    title: "Something that should start by itself is switched off",
    text: /cht-backup-lab\.timer \(inactive\)/,
  },
  {
    what: "the timer of the backups is masked",
    by: "cht",
    make: () => cht(`systemctl stop ${timer}; ${masked(timer)}`),
    undo: () => cht(`${unmasked(timer)}; systemctl start ${timer}`),
    title: "Something that should start by itself is switched off",
    text: /cht-backup-lab\.timer \(masked\)/,
  },
  {
    what: "the backup's service is masked",
    by: "cht",
    limits: { backupOverdueHours: AT_ONCE },
    make: () => cht(masked(service)),
    undo: () => cht(unmasked(service)),
    title: "There is no new backup",
    text: /The last complete backup is of .* are allowed/,
  },
  {
    what: "the backup fails",
    by: "cht",
    limits: { backupOverdueHours: AT_ONCE },
    make: async () => {
      await cht(`mv ${settings}/passphrase /run/told-passphrase`);
      assert.notEqual((await backUp()).exitCode, 0);
    },
    undo: async () => {
      await cht(`mv /run/told-passphrase ${settings}/passphrase`);
      assertComplete(await backUp());
    },
    unit: /^CHT backup lab failed/,
    title: "There is no new backup",
    text: /The latest run: .*passphrase/,
  },
  {
    what: "a backup hangs",
    by: "cht",
    limits: { hangingHours: AT_ONCE },
    make: async () => {
      const runs = `systemctl show -p SubState --value ${service} | grep -qx start`;
      await cht(`systemctl start --no-block ${service}; until ${runs}; do sleep 0.1; done
systemctl kill --signal=STOP ${service}`);
    },
    undo: () =>
      cht(`systemctl kill --signal=CONT ${service}
while systemctl show -p ActiveState --value ${service} | grep -q activating; do sleep 0.2; done`),
    title: "A backup doesn't end",
    text: /The backup that began .* still runs/,
  },
  {
    what: "the CHT machine stands still",
    by: "server",
    again: true,
    limits: { silentHours: AT_ONCE },
    make: () => run("docker", ["pause", containerOf("cht")]),
    undo: () => run("docker", ["unpause", containerOf("cht")]),
    title: "Nothing comes from the CHT machine any more",
    text: /The last archive that came in is of/,
  },
  {
    what: "the server lets nobody in by SSH",
    by: "cht",
    make: async () =>
      cht(`iptables -I OUTPUT -d ${await addressOf("server")} -p tcp --dport 22 -j REJECT --reject-with tcp-reset`),
    undo: async () =>
      cht(`iptables -D OUTPUT -d ${await addressOf("server")} -p tcp --dport 22 -j REJECT --reject-with tcp-reset`),
    title: "The backup server doesn't answer",
    text: /cht-backup-lab\S*:22 doesn't answer: Connection refused/,
  },
  {
    what: "this machine's key is withdrawn on the server",
    by: "cht",
    make: () => server(refused.make),
    undo: () => server(refused.undo),
    title: "The backup server refuses this machine's key",
    text: /answers, and doesn't let this machine in/,
  },
  {
    what: "the server shows another host key",
    by: "cht",
    make: () => cht(another.make),
    undo: () => cht(another.undo),
    title: "The backup server shows another host key",
    text: /isn't the server that the backups know/,
  },
  {
    what: "the disk is full",
    by: "cht",
    limits: { disk: "/run/told-disk" },
    make: () =>
      cht(
        "mkdir /run/told-disk; mount -t tmpfs -o size=1m tmpfs /run/told-disk; head -c 1M /dev/zero >/run/told-disk/all",
      ),
    undo: () => cht("umount /run/told-disk; rmdir /run/told-disk"),
    title: "The disk is nearly full",
    text: /are free of .* at \/run\/told-disk/,
  },
  {
    what: "the bucket can't be reached",
    by: "server",
    limits: { copyOverdueHours: AT_ONCE },
    make: async () => {
      await copiesEnded();
      // The copy's own trigger would start one in the middle.
      await server(`systemctl stop ${copyPath}; ip route add unreachable ${await bucketAddress()}/32`);
      assert.equal((await copyNow()).ok, false);
    },
    undo: async () => {
      await server(`ip route del unreachable ${await bucketAddress()}/32`);
      assert.equal((await copyNow()).ok, true, JSON.stringify(await lastCopy()));
      await server(`systemctl start ${copyPath}`);
    },
    unit: /^Copy of the backups to the bucket/,
    title: "Something that should start by itself is switched off",
    text: /cht-bucket-copy-lab\.path \(inactive\)/,
  },
  {
    what: "the clock is wrong",
    by: "cht",
    make: () => cht(ahead.make),
    undo: () => cht(ahead.undo),
    title: "The clock of this machine is wrong",
    text: /the last backup is of 2286-/,
  },
  {
    what: "the system has another Python",
    by: "cht",
    make: () => cht(`mv ${venv}/python3.* /run/told-python; cp -a /run/told-python ${venv}/python3.1`),
    undo: () => cht(`rm -r ${venv}/python3.1; mv /run/told-python ${venv}/python$(cat /run/told-version)`),
    title: "The programs don't run after an upgrade of the system",
    text: /are for python3\.1, and the system has python3\.\d\d now/,
  },
  {
    what: "nearly all documents of a database are gone",
    by: "cht",
    make: () => cht(weeks.make),
    undo: () => cht(weeks.undo),
    title: "Many documents are gone from the CHT",
    text: /medic had 50,000 documents and has /,
  },
];

const ofWatch = ({ title }: Alert) => /^CHT backup lab on /.test(title);

describe("who is told when the backups stop", function () {
  this.timeout(180_000);

  /** All that came since the last time, when as many are there. */
  async function told(many: number): Promise<Alert[]> {
    let came: Alert[] = [];
    await waitFor(async () => {
      came = await alertsSoFar();
      return came.length >= many;
    }, 120_000);
    await forgetReceived();
    return came;
  }

  before(async () => {
    await healthyLab();
    assertComplete(await backUp());
    await copyNow();
    await receiveAlerts();
    await cht(`sed -n 's/^version_info = \\([0-9]*\\.[0-9]*\\).*/\\1/p; s/^version = \\([0-9]*\\.[0-9]*\\).*/\\1/p' \
${here.programs}/venv/pyvenv.cfg | head -n 1 >/run/told-version; grep -q . /run/told-version`);
    await server(`systemctl stop ${there.watchTimer}; rm -f ${there.state}/watch-state.json`);
    await output("server", `cat >${there.settings}/alerts`, { stdin: `${address}\n` });
    // What the lab has by itself, is told here.
    await look("cht");
    await look("server");
    await forgetReceived();
  });

  after(async () => {
    await exec(
      "server",
      `: >${there.settings}/alerts; rm -f ${there.state}/alerts/*; systemctl start ${there.watchTimer}`,
    );
    await stopAlerts();
  });

  for (const { what, by, limits = {}, make, undo, unit, title, text, again } of ways) {
    const times = again ? "once, again when it lasts" : "once";
    it(`${what}: the ${by === "cht" ? "CHT machine" : "server"} tells it, ${times}, and when it is over`, async () => {
      const calm = { graceMinutes: 0 };
      try {
        await make();
        if (unit !== undefined) {
          const [alarm, ...more] = await told(1);
          assert.match(alarm?.title ?? "nothing", unit);
          assert.deepEqual([alarm?.type, more], ["failure", []]);
        }
        await withLimits(by, { ...calm, ...limits }, async () => {
          await look(by);
          const [alarm, ...more] = await told(1);
          assert.equal(alarm?.title.replace(/^CHT backup lab on \S+: /, ""), title, alarm?.message);
          assert.match(alarm?.message ?? "", text);
          assert.match(alarm?.message ?? "", / What to do: .* More: docs\/runbook\.md#[a-z-]+$/);
          assert.deepEqual([alarm?.type, more], ["failure", []]);
          await look(by);
          assert.deepEqual(await alertsSoFar(), [], "it was told twice");
        });
        if (again) {
          await withLimits(by, { ...calm, ...limits, remindHours: AT_ONCE }, async () => {
            await look(by);
            assert.ok((await told(1)).some((reminder) => reminder.title.includes(title)));
          });
        }
      } finally {
        await undo();
      }
      await withLimits(by, calm, async () => {
        await look(by);
        const [over, ...more] = await told(1);
        assert.match(over?.message ?? "nothing", new RegExp(`^(.*\\. )?${title}: over since `));
        assert.deepEqual([over?.type, more], ["success", []]);
      });
    });
  }

  it("nothing reaches anybody: it is kept, and told when the network is there again", async () => {
    const place = `${await addressOf("server")}/32`;
    await cht(`systemctl stop ${drillNames("lab").timer}; ip route add unreachable ${place}`);
    try {
      await withLimits("cht", { graceMinutes: 0 }, () => look("cht"));
      assert.deepEqual(await alertsSoFar(), []);
    } finally {
      await cht(`ip route del unreachable ${place}`);
    }
    await deliverNow();
    const [late, ...more] = await told(1);
    assert.equal(late?.title, "CHT backup lab on cht: The backup server doesn't answer (and 1 more)");
    assert.match(late?.message ?? "", /Something that should start by itself is switched off: .*cht-drill-lab\.timer/);
    assert.deepEqual(more, []);
    await cht(`systemctl start ${drillNames("lab").timer}`);
    await withLimits("cht", { graceMinutes: 0 }, () => look("cht"));
    assert.equal((await told(1)).filter(ofWatch).length, 1);
  });

  it("everything is off: a service outside knows, as runs call it when they begin and when they end", async () => {
    const file = `${settings}/pings.json`;
    const pings = changed(file, `printf '{"backup": "http://cht-backup-lab-server:8098/abc"}' >${file}`);
    await cht(pings.make);
    try {
      const right = assertComplete(await backUp());
      const [began, ended, ...more] = await told(2);
      assert.deepEqual([began?.path, ended?.path, more], ["/abc/start", "/abc", []]);
      assert.match(ended?.message ?? "", /^size .*, new .*, took \d+ s$/);
      assert.ok(right.archive);
      await cht(`mv ${settings}/passphrase /run/told-passphrase`);
      try {
        await backUp();
      } finally {
        await cht(`mv /run/told-passphrase ${settings}/passphrase`);
      }
      const calls = (await told(3)).filter(({ type }) => type === "ping");
      assert.deepEqual(
        calls.map(({ path }) => path),
        ["/abc/start", "/abc/fail"],
      );
      assert.match(calls[1]?.message ?? "", /passphrase/);
    } finally {
      await cht(pings.undo);
      assertComplete(await backUp());
    }
  });
});
