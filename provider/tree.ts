import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { warn } from "./engine";
import { Refused } from "./refused";
import { absolutePath, type Inputs, type Kind, machineName, oneLine } from "./resource";
import type { Answer } from "./shell";

interface TreeInputs extends Inputs {
  path: string;
  source: string;
  /** SHA-256 by the path inside the tree. */
  files: Record<string, string>;
  validate: string;
  owned: boolean;
  valid: boolean;
}

/** What an interpreter leaves beside its sources isn't one of them. */
const isSource = (path: string) => !path.split("/").includes("__pycache__");

/**
 * Paths inside a folder of this computer of its files, sorted.
 * @throws NodeJS.ErrnoException where it can't be read
 */
export function pathsIn(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return paths
    .map((path) => path.slice(join(folder).length + 1))
    .filter(isSource)
    .sort();
}

/** SHA-256 of the files in a folder of this computer, by their `pathsIn`. */
export function filesIn(folder: string): Record<string, string> {
  return Object.fromEntries(
    pathsIn(folder).map((path) => [
      path,
      createHash("sha256")
        .update(readFileSync(join(folder, path)))
        .digest("hex"),
    ]),
  );
}

/** The files in a folder of this computer as a compressed archive of tar, in base64. */
export function packed(folder: string): string {
  // Loaded here and not above: it takes time, which every preview would pay.
  const { create }: typeof import("tar") = require("tar");
  const archive = create({ cwd: folder, gzip: true, portable: true, sync: true }, pathsIn(folder)).read();
  return archive?.toString("base64") ?? "";
}

/**
 * What `tree_read` saw, as the inputs that would describe it.
 * @returns undefined where nothing is there
 * @throws Refused where the look itself failed
 */
export function observeTree(answer: Answer, wanted: TreeInputs): { inputs: TreeInputs; refusal?: string } | undefined {
  const where = `${wanted.machine}: ${wanted.path}`;
  if (answer.exitCode !== 0) throw new Refused(`${where} can't be read: ${answer.output.trim()}`);
  const [first = "", listed = "", refusal] = answer.output.split("\n\n");
  const [kind, ...strange] = first.split("\n");
  if (kind === "missing") return undefined;
  if (kind !== "directory") return { inputs: { ...wanted, files: { "(not a directory)": "" } } };
  const lines = listed.split("\n").filter((line) => line !== "");
  const files = Object.fromEntries(lines.map((line) => [line.slice(68), line.slice(0, 64)]));
  const inputs = { ...wanted, files, owned: strange.join("") === "", valid: refusal === undefined };
  return refusal === undefined ? { inputs } : { inputs, refusal: refusal.trim() };
}

/** A directory with all that is in it: see `Tree` in `index.ts`. */
export const tree: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    path: absolutePath,
    source: z.string().min(1),
    validate: oneLine.or(z.literal("")).default(""),
    // What is in `source`, filled in below.
    files: z.record(z.string(), z.string()).default({}),
    // Observed, not chosen: nobody but root can change it, and `validate` still succeeds.
    owned: z.literal(true).default(true),
    valid: z.literal(true).default(true),
  }),
  identity: ["machine", "path"],
  long: ["files"],
  verify({ source }, unknown) {
    if (unknown.has("source")) return [];
    try {
      if (pathsIn(source as string).length > 0) return [];
      return [{ property: "source", reason: `${source} holds no files` }];
    } catch (error) {
      return [{ property: "source", reason: `${source} can't be read (${(error as NodeJS.ErrnoException).code})` }];
    }
  },
  complete(inputs, unknown) {
    return unknown.has("source") ? inputs : { ...inputs, files: filesIn(inputs.source as string) };
  },
  async read(machines, inputs) {
    const wanted = inputs as TreeInputs;
    const { machine, path, validate } = wanted;
    const answer = await machines(machine).read({ library: "tree", name: "tree_read", arguments: [path, validate] });
    const observed = observeTree(answer, wanted);
    if (observed?.refusal) await warn(`${machine}: ${path}: ${observed.refusal}`);
    return observed && { inputs: observed.inputs, outputs: {} };
  },
  async apply(machines, inputs) {
    const { machine, path, source, files, validate } = inputs as TreeInputs;
    if (!isDeepStrictEqual(filesIn(source), files)) {
      throw new Refused(`${source} has changed since this run began to look at it; run it again`);
    }
    await machines(machine).act({ library: "tree", name: "tree_apply", arguments: [path, packed(source), validate] });
    return {};
  },
  async remove(machines, inputs) {
    const { machine, path } = inputs as TreeInputs;
    await machines(machine).act({ library: "tree", name: "tree_remove", arguments: [path] });
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
