import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";
import { z } from "zod";
import { warn } from "./engine";
import { Refused } from "./refused";
import { absolutePath, accountName, fileMode, type Inputs, type Kind, machineName, oneLine } from "./resource";
import { type Answer, decode, encode } from "./shell";

interface FileInputs extends Inputs {
  path: string;
  content: string;
  mode: string;
  owner: string;
  group: string;
  validate: string;
  reload: string;
  valid: boolean;
}

/** What is at a file's path. Without a mode it is no regular file, and `content` says what it is. */
interface FoundFile {
  content: string;
  mode?: string | undefined;
  owner?: string | undefined;
  group?: string | undefined;
  valid?: boolean;
  /** Why it isn't valid. */
  refusal?: string;
}

/**
 * What `file_read` saw, as the inputs that would have made it.
 * @returns undefined where nothing is there
 * @throws Refused where the look itself failed
 */
export function parseFile(answer: Answer, where: string): FoundFile | undefined {
  if (answer.exitCode !== 0) throw new Refused(`${where} can't be read: ${answer.output.trim()}`);
  const [facts = "", content = "", validity = ""] = answer.output.split("\n");
  const [kind, mode, owner, group] = facts.split(" ");
  if (kind === "missing") return undefined;
  if (kind === "file") {
    const [, words] = /^invalid ?(.*)$/.exec(validity) ?? [];
    const facts = { content: decode(content), mode, owner, group, valid: words === undefined };
    return words === undefined ? facts : { ...facts, refusal: decode(words).trim() };
  }
  return { content: kind === "link" ? `(a link to ${decode(content).trim()})` : "(not a regular file)" };
}

/** A regular file: see `File` in `index.ts`. */
export const file: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    path: absolutePath,
    content: z.string().optional(),
    source: z.string().min(1).optional(),
    mode: fileMode.default("0644"),
    owner: accountName.default("root"),
    group: accountName.default("root"),
    validate: oneLine.or(z.literal("")).default(""),
    reload: oneLine.or(z.literal("")).default(""),
    // Observed, not chosen: `validate` still succeeds. Another file may have taken the effect from this one.
    valid: z.literal(true).default(true),
  }),
  identity: ["machine", "path"],
  long: ["content"],
  verify(inputs, unknown) {
    if ((inputs.content === undefined) === (inputs.source === undefined)) {
      return [{ property: "content", reason: "needs either content or source, not both and not neither" }];
    }
    if (inputs.source === undefined || unknown.has("source")) return [];
    try {
      if (isUtf8(readFileSync(inputs.source as string))) return [];
      return [{ property: "source", reason: `${inputs.source} is not a text in UTF-8` }];
    } catch (error) {
      return [
        { property: "source", reason: `${inputs.source} can't be read (${(error as NodeJS.ErrnoException).code})` },
      ];
    }
  },
  complete({ source, ...inputs }, unknown) {
    if (unknown.has("source")) return { source, ...inputs };
    return source === undefined ? inputs : { ...inputs, content: readFileSync(source as string, "utf8") };
  },
  async read(machines, inputs) {
    const { machine, path, validate } = inputs as FileInputs;
    const answer = await machines(machine).read({ library: "file", name: "file_read", arguments: [path, validate] });
    const where = `${machine}: ${path}`;
    const found = parseFile(answer, where);
    if (found === undefined) return undefined;
    const { refusal, ...observed } = found;
    if (refusal) await warn(`${where}: ${refusal}`);
    return { inputs: { ...inputs, ...observed }, outputs: {} };
  },
  async apply(machines, inputs) {
    const { machine, path, mode, owner, group, content, validate, reload } = inputs as FileInputs;
    await machines(machine).act({
      library: "file",
      name: "file_apply",
      arguments: [path, mode, owner, group, encode(content), validate, reload],
    });
    return {};
  },
  async remove(machines, inputs) {
    const { machine, path, reload } = inputs as FileInputs;
    await machines(machine).act({ library: "file", name: "file_remove", arguments: [path, reload] });
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
