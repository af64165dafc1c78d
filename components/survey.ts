/** What is wrong with the machines, said in one list before anything is made on them. */
import * as pulumi from "@pulumi/pulumi";
import type { StackSettings } from "../config";
import { survey } from "../provider";
import type { Answer, Question } from "../provider/survey";
import { borgPackage } from "./borg";
import { bucketNames, chtNames, drillNames, serverNames } from "./names";

/** MiB that borg, Python environments and what they remember take, and those that building borg takes for a while. */
const PROGRAMS = 500;
const COMPILERS = 700;
/** Seconds by which a machine's clock may be wrong: an object store refuses more than 15 minutes. */
const CLOCK = 300;
/** The oldest systems that are tried (README.md). */
const OLDEST: Record<string, string> = { debian: "12", ubuntu: "22.04" };
/** Of which `confined.py` has what it needs. */
const OLDEST_KERNEL = "5.14";
const RCLONE = "1.60";
/** The oldest whose networks without a way out have no route to one either: a drill looks for one (`drill.py`). */
const DOCKER = "25";
/** By which names distributions, and Docker's own packages, have Docker Compose. */
const COMPOSE_PACKAGES = ["docker-compose-plugin", "docker-compose-v2", "docker-compose"];
const OLDEST_PYTHON = "3.10";
/** MiB without which no backup can be stored. */
const LEAST = 100;

/** What is asked of a machine, and what for. */
export interface Asked extends Question {
  /** A CHT runs there. */
  cht?: { home: string; project: string; couchdbData: string[]; timer: string };
  /** The repository is kept there. */
  server?: { dataDirectory: string; home: string; data: string; reserve: string; mebibytes: number; timer: string };
  /** The repository is copied to a bucket from there. */
  copies?: { timer: string };
  /** Archives are restored there. */
  drill?: { timer: string };
  /** Where a borg goes that is built there, for each of the above that takes one of its own. */
  borgs: string[];
}

/** The questions for a stack's machines, but for one that the stack makes itself. Pure. */
export function questionsFor(
  settings: Pick<StackSettings, "deployment" | "cht" | "server" | "drill" | "bucket">,
): Asked[] {
  const { deployment, cht, server, drill, bucket } = settings;
  const timer = (name: string) => `/etc/systemd/system/${name}`;
  const asked = (machine: string): Asked => ({
    machine,
    known: [],
    project: "",
    environment: "",
    packages: [...borgPackage("").packages],
    paths: ["/opt", "/var/lib"],
    borgs: [],
  });
  const { composeProject: project, home, couchdbData } = cht;
  const machines: Asked[] = [
    {
      ...asked("cht"),
      project,
      environment: `${home}/upgrade-service/.env`,
      paths: ["/opt", "/var/lib", home, `${home}/compose`, `${home}/upgrade-service`, ...couchdbData],
      cht: { home, project, couchdbData, timer: timer(chtNames(deployment).timer) },
    },
  ];
  if (server.aws === undefined) {
    const { dataDirectory, reserveMebibytes: mebibytes } = server;
    const { home, repository, reserve, auditTimer } = serverNames(deployment, dataDirectory);
    const data = `${repository}/data`;
    const of = { dataDirectory, home, data, reserve, mebibytes, timer: timer(auditTimer) };
    const one: Asked = { ...asked("server"), server: of };
    one.paths.push(home, data, reserve);
    if (bucket !== undefined) {
      one.copies = { timer: timer(bucketNames(deployment).copyTimer) };
      one.packages.push("rclone");
    }
    machines.push(one);
  }
  if (drill !== undefined && !(drill.machine === "server" && server.aws !== undefined)) {
    let one = machines.find(({ machine }) => machine === drill.machine);
    if (one === undefined) {
      one = asked(drill.machine);
      machines.push(one);
    }
    one.drill = { timer: timer(drillNames(deployment).timer) };
    one.packages.push(...COMPOSE_PACKAGES);
  }
  for (const one of machines) {
    if (one.cht !== undefined || one.drill !== undefined) one.borgs.push(`${chtNames(deployment).programs}/borg`);
    if (one.server !== undefined) one.borgs.push(`${serverNames(deployment, server.dataDirectory).programs}/borg`);
    one.paths.push(...one.borgs);
    one.known = [one.cht, one.server, one.copies, one.drill].flatMap((role) =>
      role === undefined ? [] : [role.timer],
    );
    one.paths.push(...one.known);
  }
  return machines;
}

/** What a machine said, taken apart. */
interface Facts {
  /** All values of a word, in their order. */
  all(word: string): string[];
  /** The first value of a word; empty where there is none. */
  one(word: string): string;
  path(path: string): { kind: string; free: number };
  /** Versions of a package by where they are: installed, from the distribution, from its backports. */
  versions(name: string): { installed?: string; candidate?: string; backports?: string };
}

function factsIn(lines: string): Facts {
  const pairs = lines.split("\n").map((line) => /^(\S+) ?(.*)$/.exec(line) ?? ["", "", ""]);
  const all = (word: string) => pairs.filter(([, first]) => first === word).map(([, , value = ""]) => value);
  const one = (word: string) => all(word)[0] ?? "";
  const policy = `\n${all("policy").join("\n")}\n`;
  return {
    all,
    one,
    path(path) {
      const found = all("path").find((value) => value.split(" ").slice(2).join(" ") === path);
      const [kind = "missing", free = "0"] = found?.split(" ") ?? [];
      return { kind, free: Number(free) };
    },
    versions(name) {
      const start = policy.indexOf(`\n${name}:\n`);
      const text = start < 0 ? "" : policy.slice(start + name.length + 3).split(/\n(?=\S)/)[0];
      const version = (label: string) => new RegExp(`^ {2}${label}: ([^(\\s]\\S*)$`, "m").exec(text ?? "")?.[1];
      const [installed, candidate] = [version("Installed"), version("Candidate")];
      let last: string | undefined;
      let backports: string | undefined;
      for (const line of (text ?? "").split("\n")) {
        last = /^ (?:\*\*\*| {3}) (\S+)/.exec(line)?.[1] ?? last;
        if (/^ {8} *-?\d+ .*-backports\//.test(line)) backports ??= last;
      }
      return { ...(installed && { installed }), ...(candidate && { candidate }), ...(backports && { backports }) };
    },
  };
}

/** Whether a version, of Debian's or not, isn't below another, by their numbers alone. */
export function reaches(version: string, least: string): boolean {
  const numbers = (text: string) => (/^(?:\d+:)?v?([\d.]+)/.exec(text)?.[1] ?? "0").split(".").map(Number);
  const [one, other] = [numbers(version), numbers(least)];
  for (let index = 0; index < Math.max(one.length, other.length); index++) {
    const [here = 0, there = 0] = [one[index], other[index]];
    if (here !== there) return here > there;
  }
  return true;
}

/** What there is to say of a machine. */
export interface Findings {
  /** Something of this deployment works there since before. */
  known: boolean;
  /** What must not be. */
  stops: string[];
  /** The same, where it has worked till now all the same. */
  warns: string[];
  /** What is no mistake, but takes time or may surprise. */
  tells: string[];
}

type Say = (text: string) => void;

/**
 * What there is to say of a machine. Pure.
 * @param lines its answer
 * @param now seconds since 1970, here
 */
export function findings(asked: Asked, lines: string, now: number): Findings {
  const { machine, cht, server, copies, drill } = asked;
  const facts = factsIn(lines);
  const found: Findings = { known: false, stops: [], warns: [], tells: [] };
  const isKnown = (role: { timer: string }) => facts.path(role.timer).kind !== "missing";
  const tell: Say = (text) => found.tells.push(`${machine}: ${text}`);
  const sayOf = (roles: ({ timer: string } | undefined)[]): Say => {
    const known = roles.every((role) => role === undefined || isKnown(role));
    return (text) => (known ? found.warns : found.stops).push(`${machine}: ${text}`);
  };
  const roles = [cht, server, copies, drill];
  found.known = roles.some((role) => role !== undefined && isKnown(role));
  systemFindings(asked.borgs, facts, now, sayOf(roles), tell);
  if (cht !== undefined) chtFindings(cht, facts, sayOf([cht]), tell);
  if (server !== undefined) serverFindings(server, isKnown(server), facts, sayOf([server]), tell);
  if (copies !== undefined && !isKnown(copies)) copyFindings(facts, sayOf([copies]));
  if (drill !== undefined && !isKnown(drill)) drillFindings(cht !== undefined, facts, sayOf([drill]));
  return found;
}

function systemFindings(borgs: string[], facts: Facts, now: number, say: Say, tell: Say): void {
  const [, id = "", version = "", name = ""] = /^(\S*) (\S*) (.*)$/.exec(facts.one("system")) ?? [];
  const oldest = OLDEST[id];
  if (facts.one("apt") === "" || (oldest !== undefined && version !== "" && !reaches(version, oldest))) {
    say(`runs ${name || "an unknown system"}; it must be Ubuntu 22.04, Debian 12, or newer`);
  }
  if (facts.one("systemd") === "") say("systemd doesn't run there, which starts the backups");
  const off = Number(facts.one("time")) - now;
  if (Math.abs(off) > CLOCK) {
    say(`its clock is ${Math.round(Math.abs(off) / 60)} min ${off > 0 ? "fast" : "slow"}: set it (timedatectl)`);
  }
  // What follows isn't asked where everything is in place.
  if (facts.one("fresh") === "") return;
  const python = facts.one("python");
  if (python !== "" && !reaches(python, OLDEST_PYTHON)) {
    say(`/usr/bin/python3 is Python ${python}, and the programs take ${OLDEST_PYTHON}`);
  }
  const lacks = borgs.some((path) => facts.path(path).kind === "missing");
  const builds = lacks && !isOffered(facts, "borgbackup", borgPackage("").minimum.borgbackup);
  if (builds) tell("its distribution's borg is too old, so one is built there, which takes some minutes");
  const room = builds ? PROGRAMS + COMPILERS : PROGRAMS;
  for (const path of ["/opt", "/var/lib"]) {
    const { free } = facts.path(path);
    if (free < room) say(`${free} MiB are free in ${path}, and ${room} are needed there`);
  }
}

/** Whether a package is there or can be had, new enough. A new machine has no package lists yet: then it is hoped for. */
function isOffered(facts: Facts, name: string, least: string): boolean {
  const versions = Object.values(facts.versions(name));
  return versions.length === 0 || versions.some((version) => reaches(version, least));
}

/** Whether it is Docker as a snap, which sees its own part of the file system only. */
const isSnap = (facts: Facts) => /(^|\/)snap(d)?(\/|$)/.test(facts.one("docker"));

function chtFindings({ home, couchdbData, project }: NonNullable<Asked["cht"]>, facts: Facts, say: Say, tell: Say) {
  const within = (name: string) => facts.path(`${home}/${name}`).kind === "directory";
  if (facts.path(home).kind !== "directory") {
    say(`there is no directory ${home} (cht-backup:cht.home), which holds compose/ and upgrade-service/`);
  } else if (!within("compose") && !within("upgrade-service")) {
    say(`${home} (cht-backup:cht.home) holds neither compose/ nor upgrade-service/: is it the CHT's directory?`);
  }
  for (const data of couchdbData) {
    if (facts.path(data).kind !== "directory") say(`there is no directory ${data} (cht-backup:cht.couchdbData)`);
  }
  if (facts.one("docker") === "") {
    say("Docker isn't installed there, in which a CHT runs: is it the right machine?");
    return;
  }
  if (isSnap(facts)) {
    say(
      "Docker is installed there as a snap, which keeps its files elsewhere and isn't supported: install the " +
        "distribution's docker.io, or docker.com's packages",
    );
  }
  const containers = facts.all("container").map((line) => line.split(" "));
  const named = facts.all("named").map((name) => name.replace(/^(["'])(.*)\1$/, "$2"));
  if (containers.some(([of]) => of === project)) return;
  const others = containers.filter(([, service]) => /^couchdb/.test(service ?? "")).map(([of]) => of);
  // Where Docker is down, or nothing was started yet, what the CHT's own settings say is all there is.
  const seems = [...new Set(others.length > 0 ? others : named.includes(project) ? [] : named)].filter(Boolean);
  const setting = `the project ${project} (cht-backup:cht.composeProject)`;
  if (seems.length > 0) say(`there is no container of ${setting}; it seems to be ${seems.join(" or ")}`);
  else tell(`there is no container of ${setting} now`);
}

function serverFindings(server: NonNullable<Asked["server"]>, known: boolean, facts: Facts, say: Say, tell: Say) {
  const { dataDirectory, home, data, reserve, mebibytes } = server;
  const { free } = facts.path(home);
  if (facts.path(reserve).kind === "missing" && free < mebibytes + LEAST) {
    say(
      `${free} MiB are free in ${dataDirectory} (cht-backup:server.dataDirectory), of which ${mebibytes} are to be held ` +
        "back (cht-backup:server.reserveMebibytes): there is no room for backups",
    );
  }
  if (!known && facts.path(data).kind === "directory") {
    tell(
      `${data.replace(/\/data$/, "")} is a repository already, with which this stack is to go on. Where it is of another ` +
        "CHT, choose another name in cht-backup:deployment",
    );
  }
}

function copyFindings(facts: Facts, say: Say): void {
  if (isOffered(facts, "rclone", RCLONE)) return;
  const { installed, candidate } = facts.versions("rclone");
  say(
    `its rclone is ${candidate ?? installed}, and the copy to the bucket (cht-backup:bucket) takes ${RCLONE} or newer`,
  );
}

/** @param cht whether it is the CHT's machine: its Docker is its administrator's, and nothing is installed */
function drillFindings(cht: boolean, facts: Facts, say: Say): void {
  const where = "(cht-backup:drill.machine)";
  if (!reaches(facts.one("kernel"), OLDEST_KERNEL)) {
    say(`its Linux is ${facts.one("kernel")}, and drills ${where} take ${OLDEST_KERNEL} or newer`);
  }
  if (!cht && isSnap(facts)) {
    say(
      `Docker is installed there as a snap, which isn't supported: drills ${where} take the distribution's docker.io`,
    );
  }
  const without = "or go without drills, cht-backup:drill: { enabled: false }";
  const engine = facts.one("engine");
  if (engine !== "" && !reaches(engine, DOCKER)) {
    say(
      `its Docker is ${engine}, and drills ${where} take ${DOCKER} or newer: an older one gives a route out to a ` +
        `network that has none. Install docker.com's packages, ${without}`,
    );
  }
  if (reaches(facts.one("compose") || "0", "2")) return;
  const first = COMPOSE_PACKAGES.find((name) => Object.keys(facts.versions(name)).length > 0);
  if (!cht && (first === undefined || isOffered(facts, first, "2"))) return;
  const has = cht || first === undefined ? "it isn't there" : `its distribution has ${facts.versions(first).candidate}`;
  say(
    `drills ${where} take Docker Compose 2 (\`docker compose\`), and ${has}: install docker-compose-v2 (Ubuntu), ` +
      `or docker.com's docker-compose-plugin, ${without}`,
  );
}

/**
 * What all machines came to. Pure.
 */
export function verdict(asked: Asked[], answers: Answer[], now: number): Omit<Findings, "known"> {
  const all: Findings = { known: false, stops: [], warns: [], tells: [] };
  const failed: string[] = [];
  for (const [index, question] of asked.entries()) {
    const answer = answers[index];
    if (answer === undefined || "failed" in answer) {
      failed.push(answer?.failed ?? `${question.machine}: gave no answer`);
      continue;
    }
    const found = findings(question, answer.lines, now);
    all.known ||= found.known;
    for (const list of ["stops", "warns", "tells"] as const) all[list].push(...found[list]);
  }
  // While one machine of a deployment is down, others may be looked after.
  (all.known ? all.warns : all.stops).unshift(...failed);
  return all;
}

/**
 * Asks all machines, and ends the program where something on one that is new is wrong.
 * @throws pulumi.RunError with all that is wrong
 */
export async function askMachines(settings: StackSettings): Promise<void> {
  const asked = questionsFor(settings);
  const answers = await survey(
    asked.map(({ machine, known, project, environment, packages, paths }): Question => {
      return { machine, known, project, environment, packages, paths };
    }),
  );
  const { stops, warns, tells } = verdict(asked, answers, Math.floor(Date.now() / 1000));
  for (const text of warns) void pulumi.log.warn(text);
  for (const text of tells) void pulumi.log.info(text);
  if (stops.length === 0) return;
  const count = stops.length === 1 ? "1 thing is" : `${stops.length} things are`;
  throw new pulumi.RunError([`${count} wrong on the machines, and nothing was made:`, ...stops].join("\n  "));
}
