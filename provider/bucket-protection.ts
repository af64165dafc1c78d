import { z } from "zod";
import { warn } from "./engine";
import { Refused } from "./refused";
import { absolutePath, type Inputs, type Kind, type Machines, machineName, oneLine } from "./resource";
import type { Answer } from "./shell";

interface BucketProtectionInputs extends Inputs {
  bucket: string;
  programs: string;
  /** Undefined in the state of a deployment from before the programs were one package. */
  program: string | undefined;
  settings: string;
  mode: string;
  days: number;
  answer: string;
  versioning: boolean;
  publicAccess: string;
}

const AS_ASKED = "as asked";
const BLOCKED = "blocked";

/** What `bucket describe` prints. */
interface Described {
  versioning: boolean;
  /** Null: the bucket has no object lock. */
  lock: { mode: string | null; days: number | null } | null;
  /** Null: the storage has no such switches. */
  publicAccessBlock: Record<string, boolean> | null;
}

/**
 * What the bucket says of itself, as the inputs that would describe it. More than was asked for is as good as that.
 * @param answer of `bucket describe`; one that failed tells of nothing but why
 */
export function observeProtection(answer: Answer, wanted: BucketProtectionInputs): BucketProtectionInputs {
  const lines = answer.output.split("\n").filter((line) => line.trim() !== "");
  const described = lines.findLast((line) => line.startsWith("{"));
  if (answer.exitCode !== 0 || described === undefined) {
    const silent = answer.exitCode === 124 ? "no answer in time" : `exit code ${answer.exitCode}`;
    return { ...wanted, answer: lines.at(-1) ?? silent };
  }
  const { versioning, lock, publicAccessBlock } = JSON.parse(described) as Described;
  const mode = lock === null ? "(no object lock)" : (lock.mode ?? "(no default retention)");
  const days = lock?.days ?? 0;
  const open = Object.entries(publicAccessBlock ?? {}).flatMap(([name, on]) => (on ? [] : [name]));
  return {
    ...wanted,
    versioning,
    mode: mode === "COMPLIANCE" ? wanted.mode : mode,
    days: Math.min(days, wanted.days),
    publicAccess: open.length === 0 ? BLOCKED : `${open.join(", ")} off`,
  };
}

/** What is wrong with a bucket, and what would be right; none where it is as wanted. Pure. */
export function protectionProblems(found: BucketProtectionInputs, wanted: BucketProtectionInputs): string[] {
  if (found.answer !== AS_ASKED) return [found.answer];
  const problems: string[] = [];
  if (!found.versioning) problems.push("its versioning is off; switch it on");
  if (found.mode !== wanted.mode || found.days !== wanted.days) {
    problems.push(
      `its default retention is ${found.mode}, ${found.days} days; must be ${wanted.mode}, ${wanted.days} days or more`,
    );
  }
  if (found.publicAccess !== BLOCKED) problems.push(`public access isn't blocked (${found.publicAccess}); block it`);
  return problems;
}

async function look(
  machines: Machines,
  { machine, programs, program, settings }: BucketProtectionInputs,
): Promise<Answer> {
  return machines(machine).read({
    library: "bucket_protection",
    name: "bucket_protection_read",
    arguments: [programs, program ?? "", settings],
  });
}

/** The settings that protect a bucket: see `BucketProtection` in `index.ts`. */
export const bucketProtection: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    bucket: oneLine,
    programs: absolutePath,
    program: absolutePath,
    settings: absolutePath,
    mode: z.enum(["COMPLIANCE", "GOVERNANCE"]),
    days: z.int().min(1),
    // Observed, not chosen.
    answer: z.literal(AS_ASKED).default(AS_ASKED),
    versioning: z.literal(true).default(true),
    publicAccess: z.literal(BLOCKED).default(BLOCKED),
  }),
  identity: ["machine", "bucket"],
  async read(machines, inputs, outputs) {
    const wanted = inputs as BucketProtectionInputs;
    return { inputs: observeProtection(await look(machines, wanted), wanted), outputs };
  },
  async apply(machines, inputs) {
    const wanted = inputs as BucketProtectionInputs;
    const problems = protectionProblems(observeProtection(await look(machines, wanted), wanted), wanted);
    if (problems.length === 0) return {};
    throw new Refused(
      `the bucket ${wanted.bucket} isn't protected as cht-backup:bucket says: ${problems.join("; ")}. The stack's key may ` +
        "not change that, so do it with an administrator's (docs/bucket.md); everything else is in place",
    );
  },
  async remove(_machines, { bucket }) {
    // The bucket and its settings are its owner's.
    await warn(
      `the copies in the bucket ${bucket} stay where they are, and can be restored. Nothing lengthens their locks any ` +
        "more: when those have ended, whoever may delete in the bucket can delete them",
    );
  },
  id: ({ machine, bucket }) => `${machine}:${bucket}`,
};
