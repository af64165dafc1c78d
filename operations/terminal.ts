/** Questions to whoever sits at the terminal. */
import { createInterface } from "node:readline";
import { createInterface as createPromises } from "node:readline/promises";
import { Writable } from "node:stream";
import { plain } from "../toolchain/plain";
import { Problem } from "../toolchain/progress";
import { Refused } from "./main";

/**
 * Asks for something secret, and shows nothing of what is typed.
 * @param question as it is shown
 * @param missing what to say when the terminal is closed instead
 * @throws Problem
 */
export async function askSecretly(question: string, missing: string): Promise<string> {
  const nothing = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: nothing, terminal: true });
  // Not before: from here on the terminal itself shows nothing of what is typed.
  process.stderr.write(`${plain(question)}`);
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once("line", resolve);
      lines.once("SIGINT", () => process.kill(process.pid, "SIGINT"));
      lines.once("close", () => reject(new Problem(missing)));
    });
  } finally {
    lines.close();
    process.stderr.write("\n");
  }
}

/**
 * Asks for yes or no.
 * @param question as it is shown, ending in a question mark
 * @throws Refused where there is no terminal
 */
export async function confirmed(question: string, signal: AbortSignal): Promise<boolean> {
  if (!process.stdin.isTTY) throw new Refused("nobody can be asked here: add --yes, or --dry-run");
  const terminal = createPromises({ input: process.stdin, output: process.stderr });
  try {
    const answer = await terminal.question(`${question} (yes/no) `, { signal });
    return answer.trim().toLowerCase() === "yes";
  } finally {
    terminal.close();
  }
}
