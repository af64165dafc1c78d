import { readFileSync } from "node:fs";
import { join } from "node:path";

/**
 * A call of a shell function that lives in `provider/scripts/`. Arguments never become arguments of a
 * process: the whole text goes to a shell's standard input, so that `ps` on the machine shows none of them.
 */
export interface ShellCall {
  /** File in `provider/scripts/` without `.sh`; its functions carry its name. */
  library: string;
  /** Function in that file. */
  name: string;
  arguments: string[];
}

/** Quotes a text as one word for a POSIX shell. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Encodes a text for a shell function that decodes it with `base64 -d`: any bytes survive. */
export function encode(text: string): string {
  return Buffer.from(text, "utf8").toString("base64");
}

/** Decodes what a shell function printed with `base64 -w0`. */
export function decode(text: string): string {
  return Buffer.from(text, "base64").toString("utf8");
}

/** Files whose functions another file calls. */
const USED: Record<string, string[]> = { packages: ["python_environment"], unit: ["file"] };

const libraries = new Map<string, string>();

function library(name: string): string {
  let text = libraries.get(name);
  if (text === undefined) {
    text = readFileSync(join(__dirname, "scripts", `${name}.sh`), "utf8");
    libraries.set(name, text);
  }
  return text;
}

function invocation(call: ShellCall): string {
  return [call.name, ...call.arguments.map(quote)].join(" ");
}

function definitions(calls: ShellCall[]): string {
  const names = calls.flatMap((call) => [...(USED[call.library] ?? []), call.library]);
  return [...new Set(names)].map(library).join("\n");
}

/**
 * The text of one action. It stands in braces so that a shell whose input is cut off in the middle,
 * by a lost connection, runs nothing instead of the first half.
 */
export function actionScript(call: ShellCall): string {
  return `{\nset -eu\nexport LC_ALL=C\n${definitions([call])}\n${invocation(call)}\nexit 0\n}\n`;
}

/** The line after the last answer of a batch; no answer looks like it. */
export const endOfBatch = (mark: string) => `${mark}.`;

/**
 * The text that makes several reads in one round trip, for a shell that gets one such text after the other. Each read
 * answers with one line: its output and, after it, its exit code, in base64. A read that fails doesn't keep the others
 * from answering, and none can take a part of the text for its input.
 * @param mark what the lines begin with: something that the login left behind may print between them
 */
export function batchScript(calls: ShellCall[], mark = ""): string {
  const reads = calls.map(
    (call) =>
      `{ ( set -eu; ${invocation(call)} ) 2>&1 </dev/null; printf '\\n%s' "$?"; } | { printf %s '${mark}'; base64 -w0; echo; }`,
  );
  return `{\nexport LC_ALL=C\n${definitions(calls)}\n${reads.join("\n")}\necho '${endOfBatch(mark)}'\n}\n`;
}

/** One read's answer. */
export interface Answer {
  output: string;
  exitCode: number;
}

/** Takes the output of {@link batchScript} apart. Throws where the number of answers is not `expected`. */
export function parseBatch(output: string, expected: number, mark = ""): Answer[] {
  const lines = output
    .split("\n")
    .filter((line) => line.includes(mark))
    .map((line) => (mark === "" ? line : line.slice(line.lastIndexOf(mark) + mark.length)))
    .filter((line) => line !== "" && line !== endOfBatch(""));
  if (lines.length !== expected) {
    throw new Error(`expected ${expected} answers, got ${lines.length}`);
  }
  return lines.map((line) => {
    const text = decode(line);
    const end = text.lastIndexOf("\n");
    return { output: text.slice(0, end), exitCode: Number(text.slice(end + 1)) };
  });
}
