/** One round: a fault hits a program; then the program is run again, and it is looked at what has become of everything. */
import { exec, waitFor } from "../lab/machines";
import type { AlarmReceiver } from "./alarms";
import { diceOf, draw } from "./draw";
import type { Fault, Hit, VictimName } from "./fault";
import { type Archives, shownByProcesses, unsealedOrOdd } from "./invariants";
import { tune } from "./lab";
import { cht, type Outcome, type Run, tidied, type Victim, victims } from "./victims";

/** What came of a round; a line of the results. */
export interface Round {
  seed: number;
  round: number;
  kind: string;
  fault: string;
  victim: VictimName;
  /** Milliseconds after the program's start. */
  at: number;
  /** What came of the run that was hit; `missed`: the program had ended before, so that nothing was tried. */
  hit: "right" | "told" | "untold" | "missed";
  /** What it said, where it wasn't right. */
  words: string;
  /** Seconds from when the fault was gone until a run of the program had come out right. */
  healed: number | null;
  /** What doesn't hold that must. */
  problems: string[];
}

/** How long a program takes on the lab when nothing happens to it, in milliseconds. */
const usual: Record<VictimName, number> = {
  backup: 9000,
  copy: 9000,
  drill: 40_000,
  retention: 15_000,
  restore: 16_000,
  "restore from the bucket": 20_000,
  up: 25_000,
};
/** How often each is drawn beside the others: what runs every night the most, what takes a minute the least. */
const share: Record<VictimName, number> = {
  ...{ backup: 8, copy: 4, drill: 1, retention: 1, restore: 2, "restore from the bucket": 1, up: 1 },
};
const pause = (milliseconds: number) => new Promise((wake) => setTimeout(wake, milliseconds));
const ALARM_MS = 60_000;

/** Runs a program without a fault, which must come out right. */
export async function calm(victim: Victim): Promise<Outcome & { milliseconds: number }> {
  const begin = Date.now();
  const outcome = await (await victim.start()).ended();
  const milliseconds = Date.now() - begin;
  if (outcome.right) learn(victim, milliseconds);
  return { ...outcome, milliseconds };
}

/** So that moments are drawn from the time that a program really takes here. */
function learn(victim: Victim, milliseconds: number): void {
  usual[victim.name] = (usual[victim.name] + milliseconds) / 2;
}

/** Whether somebody hears of a run that went wrong. */
async function isTold(victim: Victim, outcome: Outcome, alarms: AlarmReceiver): Promise<boolean> {
  const { alarm } = victim;
  if (alarm === undefined) return outcome.toldOperator;
  return waitFor(async () => alarms.has(alarm), ALARM_MS);
}

/** What a campaign has in its hands. */
export interface Scene {
  alarms: AlarmReceiver;
  alarmAddress: string;
  archives: Archives;
}

/** The archive that the last backup has reported as complete. */
async function reported(): Promise<string[]> {
  const text = (await exec("cht", `cat ${cht.state}/last-backup.json`)).stdout;
  try {
    const report = JSON.parse(text) as { ok: boolean; archiveId: string | null };
    return report.ok && report.archiveId ? [report.archiveId] : [];
  } catch {
    return [];
  }
}

/** Starts the program, lets the fault happen, takes it away, and waits for the end. */
async function strike(fault: Fault, victim: Victim, delay: number, hold: number, number: () => number) {
  let running: Run | undefined;
  const hit: Hit = {
    victim: victim.name,
    get pid() {
      return running?.pid;
    },
    running: () => running === undefined || running.running(),
    number,
  };
  const [least, most] = fault.lasts ?? [0, 0];
  let struck = false;
  try {
    if (fault.early) struck = await fault.inject(hit);
    const begin = Date.now();
    running = await victim.start();
    void running.ended().then(
      ({ right }) => right && !struck && learn(victim, Date.now() - begin),
      () => undefined,
    );
    if (!fault.early) {
      await pause(delay);
      struck = await fault.inject(hit);
    }
    const end = Date.now() + 1000 * (least + hold * (most - least));
    while (Date.now() < end && running.running()) await pause(200);
  } finally {
    await fault.undo?.();
  }
  const gone = Date.now();
  return { struck, gone, outcome: await running.ended() };
}

/** Plays one round. It never throws: what went wrong with the round itself is among its problems. */
export async function play(faults: readonly Fault[], seed: number, round: number, scene: Scene): Promise<Round> {
  const { fault, victim: name, moment, hold } = draw<VictimName, Fault>(faults, seed, round, (each) => share[each]);
  const roll = diceOf(seed ^ 0x5bd1e995, round);
  const victim = victims[name];
  const at = fault.early ? 0 : Math.round(moment * usual[name]);
  const result: Round = {
    ...{ seed, round, kind: fault.kind, fault: fault.name, victim: name, at },
    ...{ hit: "right", words: "", healed: null, problems: [] },
  };
  try {
    await tune(scene.alarmAddress);
    await victim.prepare();
    scene.alarms.take();
    try {
      await fault.before?.();
      const { struck, gone, outcome } = await strike(fault, victim, at, hold, roll.number);
      await fault.after?.();
      result.words = outcome.words;
      if (!struck) result.hit = "missed";
      else if (outcome.right) result.hit = "right";
      else result.hit = (await isTold(victim, outcome, scene.alarms)) ? "told" : "untold";
      if (result.hit === "untold" && fault.expect === "told") result.problems.push("UNTOLD: nobody was told");
      result.problems.push(...(await heal(victim, outcome, gone, result)));
    } finally {
      await fault.after?.();
    }
    const mayGo = name === "retention" || fault.name.includes("retention");
    result.problems.push(...(await mustHold(mayGo, roll.pick, scene)));
  } catch (error) {
    result.problems.push(`BROKEN: ${(error as Error).message}`);
  }
  await tidied().catch((error: Error) => result.problems.push(`BROKEN: ${error.message}`));
  return result;
}

/** Runs the program again where it went wrong: by itself it must come out right. */
async function heal(victim: Victim, outcome: Outcome, gone: number, result: Round): Promise<string[]> {
  if (!outcome.right) {
    if (victim.again !== undefined) await victim.again();
    const next = await calm(victim);
    if (!next.right) return [`NOT HEALED: the next run: ${next.words}`];
  }
  result.healed = Math.max(0, (Date.now() - gone) / 1000);
  return [];
}

/** What must hold after every round. */
async function mustHold(mayGo: boolean, pick: <T>(of: readonly T[]) => T, { archives }: Scene): Promise<string[]> {
  const some = (names: string[]) => (names.length === 0 ? [] : [pick(names)]);
  return [
    ...(await archives.check(some, await reported(), { mayGo })),
    ...(await unsealedOrOdd()),
    ...(await shownByProcesses()),
  ];
}
