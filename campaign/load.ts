/** All programs at once on a large CouchDB that is being written to: whether each comes out right, with how much memory, and how much slower the CHT answers. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { containerOf, exec, type Machine, machines, output } from "../lab/machines";
import { run } from "../toolchain/command";
import { Problem } from "../toolchain/progress";
import { type Answer, type Answers, compare, readAnswers } from "./answers";
import type { VictimName } from "./fault";
import { bucket, data, victims } from "./victims";

export interface LoadOptions {
  gigabytes: number;
  /** How long backups are made, in minutes. */
  minutes: number;
  /** From one backup to the next, in minutes. */
  every: number;
  /** How long nothing but the CHT works, before and after, in minutes. */
  quiet: number;
}

export interface Load extends LoadOptions {
  load: true;
  /** What CouchDB held at the beginning. */
  documents: number;
  bytes: number;
  /** By program, how long each run took in seconds. */
  took: Record<string, number[]>;
  /** When one of them ran, in seconds since 1970. */
  ran: [from: number, to: number][];
  answers: Answers;
  /** By machine and program, the most that one process had resident, in bytes. */
  memory: Record<string, Record<string, number>>;
  problems: string[];
  /** What a reader of the figures has to know besides, added by hand. */
  remark?: string;
}

const folder = "/var/tmp/cht-campaign";
const answersFile = `${folder}/answers`;
const peaksFile = `${folder}/memory.json`;
const source = (name: string) => readFileSync(join(__dirname, "machine", name), "utf8");

const pause = (ms: number) => new Promise((wake) => setTimeout(wake, ms));
const now = () => Date.now() / 1000;
/** No run may take longer with so much data, in milliseconds. */
const LIMIT_MS = 3_600_000;

/** Starts a Python file on a machine, as a unit of its own, which the next start of it replaces. */
async function begin(machine: Machine, unit: string, file: string, ...args: string[]): Promise<void> {
  const place = `${folder}/${file}`;
  await output(machine, `install -d -m 0700 ${folder}; cat >${place}`, { stdin: source(file) });
  const words = ["python3", "-B", place, ...args].join(" ");
  await output(
    machine,
    `systemctl stop ${unit} 2>/dev/null; systemctl reset-failed ${unit} 2>/dev/null; systemd-run --quiet --unit=${unit} ${words}`,
  );
}

const end = (machine: Machine, unit: string) => exec(machine, `systemctl stop ${unit}`);

/** Runs a program to its end. */
async function once(name: VictimName, load: Load, say: (text: string) => void): Promise<void> {
  const start = now();
  const running = await victims[name].start(LIMIT_MS);
  const { right, words } = await running.ended();
  const took = now() - start;
  load.ran.push([start, now()]);
  load.took[name] = [...(load.took[name] ?? []), Math.round(took)];
  say(`  ${name}: ${took.toFixed(0)} s${right ? "" : `: FAILED: ${words}`}`);
  if (!right) load.problems.push(`${name}: ${words}`);
}

/** Fills CouchDB until it is as large as asked. @returns how large it is, and with how many documents */
async function fill(gigabytes: number): Promise<{ bytes: number; documents: number }> {
  const words = ["exec", "-i", containerOf("cht"), "python3", "-B", "-"];
  const done = await run("docker", [...words, "fill", String(gigabytes), data], {
    stdin: source("couchdb_load.py"),
    timeoutMs: LIMIT_MS,
  });
  if (done.code !== 0) throw new Problem(`the CHT can't be filled: ${done.stderr.trim().split("\n").at(-1)}`);
  return JSON.parse(done.stdout);
}

/** What a machine's programs took, by program; nobody looks any more after that. */
async function peaks(machine: Machine): Promise<Record<string, number>> {
  await end(machine, "cht-campaign-memory");
  return JSON.parse(await output(machine, `cat ${peaksFile}`));
}

/** Plays it. What went wrong is among its problems; what kept it from being played is thrown. */
export async function underLoad(options: LoadOptions, say: (text: string) => void): Promise<Load> {
  const load: Load = {
    ...{ load: true, ...options, documents: 0, bytes: 0, took: {}, ran: [], answers: {}, memory: {}, problems: [] },
  };
  say(`filling CouchDB until it has ${options.gigabytes} GB`);
  Object.assign(load, await fill(options.gigabytes));
  say(
    `${(load.bytes / 1e9).toFixed(1)} GB in ${load.documents} documents; the first backup and the first copy of them:`,
  );
  // What takes all of it the first time isn't what every few minutes are measured by.
  await once("backup", load, say);
  await victims.copy.again?.();
  await once("copy", load, say);
  const firsts = load.took;
  load.took = {};
  load.ran = [];
  await exec("cht", `rm -f ${answersFile}`);
  try {
    for (const machine of machines) await begin(machine, "cht-campaign-memory", "memory_peaks.py", peaksFile);
    await begin("cht", "cht-campaign-load", "couchdb_load.py", "work", answersFile);
    const quiet: [number, number][] = [];
    const rest = async () => {
      say(`only the CHT, for ${options.quiet} minutes`);
      const from = now();
      await pause(options.quiet * 60_000);
      quiet.push([from, now()]);
    };
    await rest();
    await allAtOnce(load, say);
    await rest();
    await end("cht", "cht-campaign-load");
    const answers: Answer[] = readAnswers(await output("cht", `cat ${answersFile}`));
    load.answers = compare(answers, quiet, load.ran);
    for (const machine of machines) load.memory[machine] = await peaks(machine);
  } finally {
    await end("cht", "cht-campaign-load");
    for (const machine of machines) {
      await end(machine, "cht-campaign-memory");
      await exec(machine, `rm -rf ${folder}/*.py ${peaksFile}`);
    }
  }
  // The newest archive of those, restored and looked into.
  say("a drill of the newest archive:");
  await once("drill", load, say);
  load.took = {
    ...load.took,
    ...Object.fromEntries(Object.entries(firsts).map(([name, times]) => [`first ${name}`, times])),
  };
  return load;
}

/** Backups at their times, and beside them copies, a drill and a retention run. */
async function allAtOnce(load: Load, say: (text: string) => void): Promise<void> {
  const over = now() + load.minutes * 60;
  say(`for ${load.minutes} minutes a backup every ${load.every}, copies, a drill and retention:`);
  const backups = async () => {
    for (let due = now(); due < over; due += load.every * 60) {
      await pause(Math.max(0, 1000 * (due - now())));
      // One that isn't over when the next is due is starved.
      if (now() - due > 30) load.problems.push(`a backup began ${(now() - due).toFixed(0)} s late`);
      await once("backup", load, say);
    }
  };
  const copies = async () => {
    while (now() < over) {
      await pause(60_000);
      await once("copy", load, say);
      await pause(60_000);
    }
  };
  const after = async (share: number, name: VictimName) => {
    await pause(share * load.minutes * 60_000);
    await victims[name].prepare();
    await once(name, load, say);
  };
  await output("server", `systemctl stop ${bucket.copyPath}`);
  try {
    await Promise.all([backups(), copies(), after(0.2, "drill"), after(0.5, "retention")]);
  } finally {
    await exec("server", `systemctl start ${bucket.copyPath}`);
  }
}
