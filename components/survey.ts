/** What is wrong with the machines, said in one list before anything is made on them. */

import * as pulumi from "@pulumi/pulumi";
import type { StackSettings } from "../config";
import { survey } from "../provider";
import type { Answer, Question } from "../provider/survey";
import { borgPackage } from "./borg";
import { bucketNames, chtNames, drillNames, serverNames } from "./names";
import { type Asked, COMPOSE_PACKAGES, type Findings, findings } from "./survey-findings";

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
    if (bucket !== undefined) one.copies = { timer: timer(bucketNames(deployment).copyTimer) };
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
