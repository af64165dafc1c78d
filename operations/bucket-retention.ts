/**
 * The bucket's part of `npm run retention`: removes copies that the policy no longer keeps, and what no copy names. It runs on this
 * computer: the key that may delete is the operator's, and no machine gets it, as whoever takes one over would get it, too.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { hostFile } from "../components/host-files";
import type { AccessKey, Bucket, Settings } from "../config";
import { policyOf } from "../config/retention";
import { plain } from "../toolchain/plain";
import { Problem } from "../toolchain/progress";
import { pythonEnvironment } from "../toolchain/python";
import { readSeenCopies, type SeenCopy, writeSeenCopies } from "./ledger";
import { exitCodes, Refused, remark, say } from "./main";
import { bucketOf, bucketRequest } from "./repository";
import type { Deployment } from "./stack";
import { askSecretly, confirmed } from "./terminal";
import { clock, megabytes } from "./words";

const ID = "CHT_BACKUP_DELETER_ACCESS_KEY_ID";
const SECRET = "CHT_BACKUP_DELETER_SECRET_ACCESS_KEY";

/** For the help of `retention`. */
export const deleterHelp = `The bucket's part is done on this computer, with a key that may delete versions
(components/bucket-deleter-policy.json) and that no machine has: ${ID} and
${SECRET} in the environment; without them it is asked for, or, where the stack made the
bucket at AWS, your own account there is used, as AWS' tools would find it (AWS_PROFILE, …). --dry-run doesn't need it.`;

/** A copy in a plan. */
export interface PlannedCopy extends SeenCopy {
  /** Bytes of its files. */
  size: number;
  /** Why it stays; empty: it goes. */
  why: string[];
  /** Why its index can't be read. */
  problem: string | null;
  /** How many of its files aren't in the bucket. */
  lacks: number;
}

/** What goes, or is there. */
interface Amount {
  copies: number;
  /** Versions of files, and delete markers. */
  versions: number;
  bytes: number;
}

/** The first answer of `bucket-retention`. */
export interface BucketPlan {
  /** The newest first. */
  copies: PlannedCopy[];
  going: Amount;
  there: Omit<Amount, "copies">;
  /** What speaks against removing anything, by the names of `--despite`. */
  doubts: Record<string, string>;
  /** The copies that nothing is missing of. */
  whole: SeenCopy[];
}

/** Its second answer. */
export interface BucketResult {
  done: Amount & {
    /** What a lock has kept, until when the last one ends. */
    locked: Amount & { until: number };
    /** Bytes that were read back of the newest copy. */
    readBack: number;
    /** What is wrong with copies that should have stayed. */
    problems: string[];
  };
  whole: SeenCopy[];
}

export interface BucketTask {
  stack: string;
  deployment: Deployment<Settings>;
  /** What is known of drills, as `retention` has it. */
  drill: object;
  dryRun: boolean;
  yes: boolean;
  despite: readonly string[];
  /** Shows nothing but remarks. */
  quiet: boolean;
  /** Nothing else is asked for, so leaving it out is a failure. */
  only: boolean;
  /** Whether the server's part had doubts, with which nothing is removed here either. */
  held: boolean;
  signal: AbortSignal;
}

/**
 * What the policy for archives means for copies. A copy holds every archive that the policy keeps, those of months and years as
 * well; older copies are for going back before what nobody has noticed yet. Kept for months and years, too, they would make the
 * bucket more than twice as large. Pure.
 */
export function copyPolicy(retention: Parameters<typeof policyOf>[0]) {
  return { ...policyOf(retention), monthly: 0, yearly: 0 };
}

/** The plan for people: the copies that stay for their age in one line, the others in one each, and what goes. Pure. */
export function copiesTable({ copies, going, there }: Pick<BucketPlan, "copies" | "going" | "there">): string[] {
  const recent = copies.filter(({ why }) => why[0]?.startsWith("last "));
  const older = copies.filter((copy) => copy.why.length > 0 && !recent.includes(copy));
  const gone = copies.filter(({ why }) => why.length === 0);
  const range = (some: PlannedCopy[], why: string) => {
    const [newest, oldest] = [some[0], some.at(-1)];
    if (newest === undefined || oldest === undefined) return [];
    return [`  ${clock(newest.at)}  ${some.length} copies, back to ${clock(oldest.at)}: ${why}`];
  };
  const wrong = ({ problem, lacks }: PlannedCopy) =>
    problem === null ? (lacks > 0 ? `; lacks ${lacks} files` : "") : `; ${problem}`;
  const lines = [
    ...range(recent, recent[0]?.why[0] ?? ""),
    ...older.map((copy) => `  ${clock(copy.at)}  ${copy.key}: ${copy.why.join(", ")}${wrong(copy)}`),
    ...range(gone, "GO"),
  ];
  if (going.copies + going.versions === 0) {
    lines.push(`Everything stays (${copies.length} copies, ${there.versions} versions of files).`);
  } else {
    lines.push(
      `${going.copies} of ${copies.length} copies go, and ${going.versions} of ${there.versions} versions of files, ` +
        `${megabytes(going.bytes)} of ${megabytes(there.bytes)}; but for those whose locks haven't ended yet.`,
    );
  }
  return lines.map(plain);
}

/** What was done, for people. Pure. */
export function doneInWords({ copies, versions, bytes, locked, readBack }: BucketResult["done"]): string[] {
  const kept = `kept, as their locks haven't ended: ${locked.copies} copies, ${locked.versions} versions of files, `;
  return [
    `${copies} copies and ${versions} versions of files removed, ${megabytes(bytes)} freed in the bucket.`,
    ...(locked.copies + locked.versions === 0
      ? []
      : [`${kept}${megabytes(locked.bytes)}; the last of them ends ${clock(locked.until)} (UTC)`]),
    `The copies that stay are complete; ${megabytes(readBack)} of the newest were read back.`,
  ];
}

/** Where the key comes from that may delete. Pure. @throws Refused where the environment has one half of it */
export function deleterSource(
  { aws }: Pick<Bucket, "aws">,
  env: NodeJS.ProcessEnv,
  terminal: boolean,
): AccessKey | "own account" | "asked for" | undefined {
  const { [ID]: accessKeyId = "", [SECRET]: secretAccessKey = "" } = env;
  if (accessKeyId !== "" && secretAccessKey !== "") return { accessKeyId, secretAccessKey };
  if (accessKeyId !== "" || secretAccessKey !== "") {
    throw new Refused(
      `${accessKeyId === "" ? ID : SECRET} is missing in the environment: both halves of the key are needed`,
    );
  }
  if (aws !== undefined) return "own account";
  return terminal ? "asked for" : undefined;
}

async function askForKey(): Promise<AccessKey> {
  const missing = "no key was given";
  return {
    accessKeyId: (await askSecretly("Access key of whoever may delete in the bucket: ", missing)).trim(),
    secretAccessKey: (await askSecretly("Its secret: ", missing)).trim(),
  };
}

/** What this computer has seen after a run: a copy that is missed stays in mind until somebody knows why. Pure. */
export function seenAfter(
  before: readonly SeenCopy[],
  whole: readonly SeenCopy[],
  doubts: Record<string, string>,
  despite: readonly string[],
): SeenCopy[] {
  if (doubts.vanished === undefined || despite.includes("vanished")) return [...whole];
  const there = new Set(whole.map(({ key, version }) => `${key} ${version}`));
  return [...whole, ...before.filter(({ key, version }) => !there.has(`${key} ${version}`))];
}

/** The program `bucket-retention`, which answers each line with one. */
class Program {
  private readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  private readonly answers: AsyncIterator<string>;

  constructor(python: string, signal: AbortSignal) {
    const { [ID]: _id, [SECRET]: _secret, ...env } = process.env;
    // Out of the terminal's reach: it is stopped from here, in order.
    const words = ["-I", "-B", hostFile("chtbackup"), "bucket-retention"];
    this.child = spawn(python, words, { env, stdio: ["pipe", "pipe", "pipe"], detached: true });
    this.answers = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
    createInterface({ input: this.child.stderr }).on("line", (line) => remark(`  ${plain(line)}`));
    this.child.on("error", () => undefined);
    this.child.stdin.on("error", () => undefined);
    signal.addEventListener("abort", () => this.child.kill("SIGTERM"), { once: true });
    if (signal.aborted) this.child.kill("SIGTERM");
  }

  /** @throws Refused where it ends instead; it has said why */
  async ask<T>(line: object): Promise<T> {
    this.child.stdin.write(`${JSON.stringify(line)}\n`);
    const { value, done } = await this.answers.next();
    if (done) throw new Refused("the bucket's part isn't possible, for the reason above");
    return JSON.parse(value) as T;
  }

  /** Ends it: with its input closed there is nothing more to do for it. */
  close(): void {
    this.child.stdin.end();
  }
}

/**
 * Shows what goes in the bucket, asks, and removes it.
 * @returns the exit code, and the plan with what was done of it; none where the bucket's part is left out
 */
export async function bucketRetention(
  task: BucketTask,
): Promise<{ code: number; plan?: BucketPlan & Partial<BucketResult> }> {
  const { stack, deployment, despite, signal } = task;
  const { settings } = deployment;
  if (settings.bucket === undefined && !task.only) return { code: exitCodes.right };
  const bucket = bucketOf(settings, stack);
  const source = deleterSource(bucket, process.env, process.stdin.isTTY === true);
  if (source === undefined && !task.dryRun) {
    const words = `the bucket needs a key that may delete: ${ID} and ${SECRET} aren't set, and nobody can be asked here`;
    if (task.only) throw new Refused(words);
    remark(`note: the bucket's part is left out: ${words}`);
    return { code: exitCodes.right };
  }
  const { repositories, asOf: _none, ...access } = bucketRequest(bucket, deployment, undefined);
  const place = `${bucket.endpoint ?? "AWS"}/${bucket.name}/${bucket.prefix}`;
  const seen = readSeenCopies(stack, place);
  const environment = await pythonEnvironment("bucket", "hosts/server/requirements.txt");
  const program = new Program(join(environment, "bin", "python"), signal);
  try {
    const plan: BucketPlan & Partial<BucketResult> = await program.ask<BucketPlan>({
      ...access,
      repositories,
      policy: copyPolicy(settings.retention),
      keepDays: bucket.keepDays,
      deployment: settings.deployment,
      drill: task.drill,
      seen,
    });
    const { going } = plan;
    const something = going.copies + going.versions > 0;
    const open = Object.keys(plan.doubts).filter((name) => !despite.includes(name));
    if (!task.quiet) {
      say(`In the bucket ${bucket.name}, ${bucket.prefix}:`);
      for (const line of copiesTable(plan)) say(line);
    }
    for (const [name, why] of Object.entries(plan.doubts)) remark(`DOUBT (${name}): ${why}`);
    if (task.dryRun) return { code: something && open.length > 0 ? exitCodes.wrong : exitCodes.right, plan };
    const remember = (whole: SeenCopy[]) =>
      writeSeenCopies(stack, { place, copies: seenAfter(seen, whole, plan.doubts, despite) });
    remember(plan.whole);
    if (!something) return { code: exitCodes.right, plan };
    if (open.length > 0 || task.held) {
      remark(
        open.length > 0
          ? "Nothing is removed in the bucket. What to do: docs/retention.md. Where you know that all is well, `--despite NAME` goes on."
          : "Nothing is removed in the bucket, as there are doubts about the server.",
      );
      return { code: exitCodes.wrong, plan };
    }
    const question = `Remove ${going.copies} copies and ${going.versions} versions of files for good?`;
    if (!task.yes && !(await confirmed(question, signal))) throw new Refused("nothing was removed in the bucket");
    const key = source === "asked for" ? await askForKey() : source;
    const result = await program.ask<BucketResult>({ despite, deleter: key === "own account" ? null : key });
    remember(result.whole);
    for (const problem of result.done.problems) remark(`WRONG: ${problem}`);
    if (result.done.problems.length > 0) return { code: exitCodes.wrong, plan: { ...plan, ...result } };
    if (!task.quiet) for (const line of doneInWords(result.done)) say(line);
    return { code: exitCodes.right, plan: { ...plan, ...result } };
  } catch (error) {
    throw signal.aborted ? new Problem("stopped; run it again to go on") : error;
  } finally {
    program.close();
  }
}
