/** Asks every machine of a deployment how things are, all at once. */
import { chtNames, serverNames } from "../../components/names";
import type { Machine } from "../../provider/connection";
import { type RemoteOptions, Remotes } from "../remote";
import type { Whereabouts } from "../stack";
import { type Report, readReport } from "./report";
import type { Unreached } from "./text";

export interface Question {
  /** The machine's name in `host:machines`. */
  name: string;
  /** What it does for the deployment. */
  role: string;
  machine: Machine;
  /** The program that answers. */
  words: string[];
}

/**
 * Whom to ask, and how. A machine that drills and isn't the CHT's has the programs of a drill besides whatever it has else.
 * Pure.
 */
export function questions({ deployment, machines, server, drill }: Whereabouts): Question[] {
  const words = (folder: { package: string; settings: string }) => [
    ...["python3", "-I", "-B", folder.package, "watch", "report", `${folder.settings}/watch.json`],
  ];
  const cht = words(chtNames(deployment));
  const drills = drill && drill.machine !== "cht" ? machines[drill.machine] : undefined;
  return [
    { name: "cht", role: "cht", machine: machines.cht, words: cht },
    {
      name: "server",
      role: "server",
      machine: machines.server,
      words: words(serverNames(deployment, server.dataDirectory)),
    },
    ...(drill && drills ? [{ name: drill.machine, role: "drill", machine: drills, words: cht }] : []),
  ];
}

/** What came of it. */
export interface Answers {
  reports: Report[];
  /** The same as the machines gave them, with all that they hold, in the same order. */
  raw: object[];
  unreached: Unreached[];
}

/** Seconds until a machine must have answered the connection, and until it must have said all. */
export type Limits = NonNullable<RemoteOptions["limits"]>;

/** Asks them. Never throws for what a machine does. */
export async function ask(whom: readonly Question[], deployment: string, limits: Limits, signal: AbortSignal) {
  const remotes = new Remotes();
  const one = async ({
    name,
    role,
    machine,
    words,
  }: Question): Promise<Unreached | { report: Report; raw: object }> => {
    const where = `${name} (${machine.address})`;
    try {
      const { stdout, stderr } = await remotes.connect(name, machine).run(words, { signal, limits });
      const read = readReport(stdout, deployment);
      // Which machine it is, this computer knows better.
      if (typeof read !== "string") return { report: { ...read.report, role }, raw: { ...read.raw, role } };
      const reason = stdout.trim() === "" ? missing(stderr) : read;
      return { name, why: `${where}: ${reason}` };
    } catch (error) {
      return { name, why: (error as Error).message };
    }
  };
  try {
    const answers: Answers = { reports: [], raw: [], unreached: [] };
    for (const answer of await Promise.all(whom.map(one))) {
      if ("report" in answer) {
        answers.reports.push(answer.report);
        answers.raw.push(answer.raw);
      } else {
        answers.unreached.push(answer);
      }
    }
    return answers;
  } finally {
    remotes.close();
  }
}

/** Why a machine that was reached printed nothing. */
function missing(stderr: string): string {
  const said = stderr.trim().split("\n").at(-1) ?? "";
  const before = /can't open file|can't find '__main__'|usage: chtbackup PROGRAM|can't be read as settings/.test(said);
  if (before) return "it can't say yet how things are: run `npm run pulumi -- up` first";
  return `it doesn't say how things are${said === "" ? "" : ` (${said})`}`;
}
