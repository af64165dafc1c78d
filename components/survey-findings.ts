/** What there is to say of a machine before anything is made on it. Pure. */

import type { Question } from "../provider/survey";
import { borgPackage } from "./borg";
import { type Facts, factsIn, reaches } from "./survey-facts";

/** MiB that borg, Python environments and what they remember take, and those that building borg takes for a while. */
const PROGRAMS = 500;

const COMPILERS = 700;

/** Seconds by which a machine's clock may be wrong: an object store refuses more than 15 minutes. */
const CLOCK = 300;

/** The oldest systems that are tried (README.md). */
const OLDEST: Record<string, string> = { debian: "12", ubuntu: "22.04" };

/** Of which `restore/confined.py` has what it needs. */
const OLDEST_KERNEL = "5.14";

/** The oldest whose networks without a way out have no route to one either: a drill looks for one (`drill/network.py`). */
const DOCKER = "25";

const OLDEST_PYTHON = "3.10";

/** What a machine is asked of Docker, by the words of its answers. */
const OF_DOCKER: Record<string, string> = {
  engine: "docker version",
  compose: "docker compose version",
  container: "docker ps",
};

/** MiB without which no backup can be stored. */
const LEAST = 100;

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
  for (const word of facts.all("unknown")) {
    tell(`\`${OF_DOCKER[word]}\` takes longer than a minute there, so what it would say wasn't looked at`);
  }
  systemFindings(asked.borgs, facts, now, sayOf(roles), tell);
  if (cht !== undefined) chtFindings(cht, facts, sayOf([cht]), tell);
  if (server !== undefined) serverFindings(server, isKnown(server), facts, sayOf([server]), tell);
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

/** Whether a machine didn't say something in time. */
const isUnknown = (facts: Facts, word: string) => facts.all("unknown").includes(word);

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
  if (isUnknown(facts, "container")) return;
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
  if (isUnknown(facts, "compose") || reaches(facts.one("compose") || "0", "2")) return;
  const first = COMPOSE_PACKAGES.find((name) => Object.keys(facts.versions(name)).length > 0);
  if (!cht && (first === undefined || isOffered(facts, first, "2"))) return;
  const has = cht || first === undefined ? "it isn't there" : `its distribution has ${facts.versions(first).candidate}`;
  say(
    `drills ${where} take Docker Compose 2 (\`docker compose\`), and ${has}: install docker-compose-v2 (Ubuntu), ` +
      `or docker.com's docker-compose-plugin, ${without}`,
  );
}

/** By which names distributions, and Docker's own packages, have Docker Compose. */
export const COMPOSE_PACKAGES = ["docker-compose-plugin", "docker-compose-v2", "docker-compose"];

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
