/** What must hold after each round, whatever happened in it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { bucketSecrets } from "../lab/bucket";
import { containerOf, exec, type Machine, machines, output } from "../lab/machines";
import { passphraseFile } from "../lab/stack";
import { run } from "../toolchain/command";
import { Problem } from "../toolchain/progress";
import { alarmSecret } from "./alarms";
import { bucket, cht, drills, server } from "./victims";

const source = (...path: string[]) => readFileSync(join(__dirname, ...path), "utf8");
const archivesProgram = source("machine", "inspect_archives.py");
const copiesProgram = source("machine", "inspect_copies.py");
const searchProgram = source("..", "test", "e2e", "machine", "search.py");

/** Runs a Python file on a machine, with its arguments and what it reads. @returns what it prints, as JSON */
export async function inspect<T>(
  machine: Machine,
  text: string,
  args: string[],
  stdin: unknown,
  python = "/usr/bin/python3",
): Promise<T> {
  const words = ["exec", "-i", containerOf(machine), python, "-B", "-c", text, ...args];
  const done = await run("docker", words, { stdin: JSON.stringify(stdin), timeoutMs: 900_000 });
  if (done.code !== 0) throw new Problem(`${machine}: ${done.stderr.trim().split("\n").slice(-3).join(" ")}`);
  return JSON.parse(done.stdout) as T;
}

interface Seen {
  archives: Record<string, string>;
  opened: Record<string, { digest: string | null; problems: string[] }>;
}

/** All archives that were there at some time, and what those held that were opened: they must be there, the same, to the end. */
export class Archives {
  /** Names by ids; `digest` is of what it held, undefined where nobody has looked into it. */
  private readonly known = new Map<string, { name: string; digest?: string }>();
  /** Listed, but never finished: what a run that was cut off leaves. */
  private readonly unfinished = new Set<string>();

  get size(): number {
    return this.known.size;
  }

  /** Lists all, and opens the newest ones. @returns what is wrong */
  async begin(newest: number): Promise<string[]> {
    return this.check(() => [], [], { newest });
  }

  /**
   * Lists all, opens those that are new, and some of those that were opened before.
   * @param which chooses these by their names
   * @param made ids of archives that a run has reported as complete
   * @param mayGo whether retention has run, which takes the oldest away
   * @returns what is wrong
   */
  async check(
    which: (names: string[]) => string[],
    made: readonly string[],
    { mayGo = false, newest }: { mayGo?: boolean; newest?: number } = {},
  ): Promise<string[]> {
    const opened = [...this.known.values()].filter(({ digest }) => digest !== undefined);
    const seen = await inspect<Seen>(
      "cht",
      archivesProgram,
      ["lab"],
      {
        known: [...this.known.keys(), ...this.unfinished],
        open: which(opened.map(({ name }) => name)),
        newest: newest ?? null,
      },
      `${cht.programs}/venv/bin/python`,
    );
    const problems: string[] = [];
    for (const [id, { name, digest }] of this.known) {
      const found = seen.opened[name];
      if (seen.archives[id] !== name) {
        if (mayGo) this.known.delete(id);
        else problems.push(`LOST: the archive ${name} isn't listed any more`);
      } else if (found !== undefined && found.problems.length > 0) {
        problems.push(`LOST: ${name} doesn't open: ${found.problems.join("; ")}`);
      } else if (found !== undefined && found.digest !== digest) {
        problems.push(`LOST: ${name} holds something else than before`);
      }
    }
    return [...problems, ...this.take(seen, made)];
  }

  /** Remembers what is new. */
  private take({ archives, opened }: Seen, made: readonly string[]): string[] {
    const problems: string[] = [];
    for (const [id, name] of Object.entries(archives)) {
      if (this.known.has(id) || this.unfinished.has(id)) continue;
      const found = opened[name];
      if (found === undefined) this.known.set(id, { name });
      else if (found.digest && found.problems.length === 0) this.known.set(id, { name, digest: found.digest });
      else if (made.includes(id)) problems.push(`LOST: ${name} was reported as complete: ${found.problems.join("; ")}`);
      else this.unfinished.add(id);
    }
    const missing = made.filter((id) => !(id in archives));
    return [...problems, ...missing.map((id) => `LOST: the archive ${id} was reported, and isn't there`)];
  }
}

/** All finished copies in the bucket, which must be there to the end. */
export class Copies {
  private known = new Set<string>();

  get size(): number {
    return this.known.size;
  }

  async check(): Promise<string[]> {
    const environment = ["-e", `PYTHONPATH=${server.programs}`];
    const python = `${bucket.programs}/venv/bin/python`;
    const words = ["exec", "-i", ...environment, containerOf("server"), python, "-B", "-"];
    const stdin = copiesProgram;
    const done = await run("docker", [...words, `${bucket.settings}/bucket.json`], { stdin, timeoutMs: 600_000 });
    if (done.code !== 0) return [`the copies can't be listed: ${done.stderr.trim().split("\n").at(-1)}`];
    const seen = JSON.parse(done.stdout) as { copies: string[]; problems: string[] };
    const gone = [...this.known].filter((copy) => !seen.copies.includes(copy));
    this.known = new Set([...this.known, ...seen.copies]);
    return [...gone.map((copy) => `LOST: the copy ${copy} isn't in the bucket any more`), ...seen.problems];
  }
}

/** What the audit has found since somebody approved last: nothing, where nobody was hostile. */
export async function audited(): Promise<string[]> {
  const text = await output(
    "server",
    `systemctl start ${server.auditService} || true; cat ${server.state}/last-audit.json`,
  );
  return JSON.parse(text).problems;
}

/** Takes what is in the repository for right, as its administrator after hostile acts. */
export async function approve(): Promise<void> {
  const audit = `${server.package} audit approve --because 'a campaign' ${server.settings}/repository.json`;
  await output("server", `systemctl start ${server.sealService} && python3 -B ${audit}`);
}

/** That all that is finished is root's, and that the audit has found nothing odd. */
export async function unsealedOrOdd(): Promise<string[]> {
  const found = `find ${server.repository}/data -type f ! -user root | wc -l`;
  const unsealed = await output("server", `systemctl start ${server.sealService} || true; ${found}`);
  const seals = unsealed === "0" ? [] : [`${unsealed} segments aren't sealed`];
  return [...seals, ...(await audited()).map((text) => `the audit: ${text}`)];
}

const lines = (text: string) => text.split("\n").filter((line) => /^[\w+/=-]{30,}$/.test(line.trim()));

let gathered: Promise<Record<string, string[]>> | undefined;
/** Names of secrets with the texts to look for. They stay the same for a campaign. */
function secrets(): Promise<Record<string, string[]>> {
  gathered ??= gather();
  return gathered;
}

async function gather(): Promise<Record<string, string[]>> {
  const [passphrase, key, env] = await Promise.all([
    output("cht", `cat ${cht.settings}/passphrase`),
    output("cht", `cat ${cht.settings}/ssh_key`),
    output("cht", "cat /home/ubuntu/cht/upgrade-service/.env"),
  ]);
  const ofEnv = (name: string) => new RegExp(`^${name}=(.+)$`, "m").exec(env)?.[1] ?? "";
  const { writer, reader } = bucketSecrets();
  return {
    "the repository's passphrase": [passphrase.trim()],
    "the CHT machine's key": lines(key),
    COUCHDB_PASSWORD: [ofEnv("COUCHDB_PASSWORD")],
    "the bucket's writer": [writer],
    "the bucket's reader": [reader],
    "the alarms' address": [alarmSecret],
    "the passphrase of the stack's secrets": [readFileSync(passphraseFile, "utf8").trim()],
  };
}

const open = ["/etc", "/home", "/root", "/run", "/srv", "/tmp", "/var"];

/** Secrets where others may look: in journals, in files that anybody reads, in reports. */
export async function shownSecrets(): Promise<string[]> {
  const wanted = await secrets();
  const problems: string[] = [];
  for (const machine of machines) {
    for (const args of [["journal"], ["files", ...open]]) {
      const { found } = await inspect<{ found: { secret: string; where: string }[] }>(
        machine,
        searchProgram,
        args,
        wanted,
      );
      for (const { secret, where } of found) problems.push(`SECRET: ${secret} is shown on ${machine}: ${where}`);
    }
  }
  const reports = await output("cht", `cat ${cht.state}/last-backup.json ${drills.reports}/* 2>/dev/null || true`);
  const texts = [reports, await output("server", `cat ${bucket.state}/last-*.json ${server.state}/last-audit.json`)];
  for (const [name, each] of Object.entries(wanted)) {
    if (texts.some((text) => each.some((secret) => text.includes(secret))))
      problems.push(`SECRET: ${name}: in a report`);
  }
  return problems;
}

/** Secrets in the arguments of processes on the machines, right now. */
export async function shownByProcesses(): Promise<string[]> {
  const wanted = await secrets();
  const texts = await Promise.all(machines.map((machine) => exec(machine, "cat /proc/[0-9]*/cmdline 2>/dev/null")));
  const all = texts.map(({ stdout }) => stdout).join("\n");
  const found = Object.entries(wanted).filter(([, each]) => each.some((secret) => all.includes(secret)));
  return found.map(([name]) => `SECRET: ${name}: in a process's arguments`);
}
