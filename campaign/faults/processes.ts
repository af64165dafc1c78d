/** Processes that are killed, or hang. */
import { exec, type Machine } from "../../lab/machines";
import { livingProcess } from "../../toolchain/process";
import type { Fault, Hit, VictimName } from "../fault";
import { killAll } from "../operator";
import { bucket, cht, drills } from "../victims";

/**
 * Sends a signal to processes on a machine, by the beginning of their command lines. Where there is none it waits a while for
 * one. Says whether there was one.
 */
async function signal(machine: Machine, name: "KILL" | "STOP" | "CONT", pattern: string): Promise<boolean> {
  const tries = name === "CONT" ? 1 : 100;
  const script = `for i in $(seq ${tries}); do pkill -${name} -f '${pattern}' && exit 0; sleep 0.1; done; exit 1`;
  return (await exec(machine, script)).code === 0;
}

/** As found by `pkill -f`, which never finds itself by the brackets. */
const patterns = {
  borgOnCht: "^[^ ]*python[^ ]* [^ ]*[b]org ",
  guard: "[c]htbackup guard",
  session: "^sshd(-session)?: [c]ht-backup-lab",
  ssh: "^ssh .*[o]ffsite",
};

function killed(name: string, machine: Machine, pattern: string, victims: VictimName[]): Fault {
  return {
    kind: "SIGKILL",
    name: `SIGKILL of ${name}`,
    victims,
    expect: "told",
    inject: () => signal(machine, "KILL", pattern),
  };
}

function hangs(name: string, machine: Machine, pattern: string, victims: VictimName[]): Fault {
  return {
    kind: "hanging process",
    name: `${name} stands still`,
    victims,
    expect: "told",
    lasts: [2, 15],
    inject: () => signal(machine, "STOP", pattern),
    undo: () => signal(machine, "CONT", pattern),
  };
}

const services: Partial<Record<VictimName, [Machine, string]>> = {
  backup: ["cht", cht.service],
  copy: ["server", bucket.copyService],
  drill: ["cht", drills.service],
};

const whole = (name: string, victims: VictimName[], act: (hit: Hit) => Promise<boolean>): Fault => ({
  kind: "SIGKILL",
  name,
  victims,
  expect: "told",
  inject: act,
});

/** Kills of what an operator has started: the program itself, or one of its processes by name. */
const ofOperator = (name: string, victims: VictimName[], pattern?: RegExp): Fault =>
  whole(name, victims, async ({ pid }) =>
    killAll(pid, "SIGKILL", (each) => pattern === undefined || pattern.test(livingProcess(each)?.name ?? "")),
  );

const withOperator: VictimName[] = ["restore", "restore from the bucket", "retention", "up"];

export const processes: Fault[] = [
  whole("SIGKILL of the unit with all its processes", ["backup", "copy", "drill"], async ({ victim }) => {
    const [machine, service] = services[victim] ?? ["cht", cht.service];
    const active = `[ "$(systemctl show -p ActiveState --value ${service})" = activating ]`;
    return (await exec(machine, `${active} && systemctl kill --signal=KILL --kill-whom=all ${service}`)).code === 0;
  }),
  whole("SIGKILL of the unit's main process alone", ["backup", "copy", "drill"], async ({ victim }) => {
    const [machine, service] = services[victim] ?? ["cht", cht.service];
    const main = `pid=$(systemctl show -p MainPID --value ${service}); [ "$pid" -gt 1 ] && kill -KILL "$pid"`;
    return (await exec(machine, main)).code === 0;
  }),
  killed("borg on the CHT machine", "cht", patterns.borgOnCht, ["backup", "drill", "restore"]),
  killed("the guard on the server", "server", patterns.guard, ["backup", "drill", "restore"]),
  killed("sshd's session on the server", "server", patterns.session, ["backup", "drill", "restore"]),
  killed("ssh on the CHT machine", "cht", patterns.ssh, ["backup", "drill", "restore"]),
  killed("the restore's program on the CHT machine", "cht", "[c]htbackup (part|restore)", ["restore"]),
  killed("retention's program on the server", "server", "[c]htbackup retention", ["retention"]),
  ofOperator("SIGKILL of the operator's command", withOperator),
  ofOperator("SIGKILL of the operator's ssh", ["restore", "restore from the bucket", "retention"], /^ssh$/),
  ofOperator("SIGKILL of Pulumi's engine", ["up"], /^pulumi$/),
  ofOperator("SIGKILL of the program that Pulumi runs", ["up"], /^pulumi-(language|resource)|^node$|^MainThread$/),
  hangs("borg on the CHT machine", "cht", patterns.borgOnCht, ["backup", "drill", "restore"]),
  hangs("the guard on the server", "server", patterns.guard, ["backup", "drill", "restore"]),
  hangs("ssh on the CHT machine", "cht", patterns.ssh, ["backup", "restore"]),
  hangs("sshd's session on the server", "server", patterns.session, ["backup", "drill"]),
];
