/** What this computer remembers of a stack, in the XDG Base Directory Specification's place for state. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";

export function stateFile(kind: string, stack: string): string {
  const state = process.env.XDG_STATE_HOME || join(homedir(), ".local", "state");
  return join(state, "cht-backup", `${kind}-${stack}.json`);
}

/** What was kept last; undefined where that is nothing, or can't be read. */
export function readKept<T>(kind: string, stack: string): T | undefined {
  try {
    return JSON.parse(readFileSync(stateFile(kind, stack), "utf8")) as T;
  } catch {
    return undefined;
  }
}

export function writeKept(kind: string, stack: string, what: object): void {
  const file = stateFile(kind, stack);
  const whole = `${file}.${process.pid}`; // another command may write at the same time
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  writeFileSync(whole, `${JSON.stringify(what, null, 1)}\n`, { mode: 0o600 });
  renameSync(whole, file);
}

/** When the machines were last compared with the stack from here. */
interface Looked {
  /** Seconds since 1970. */
  at: number;
}

export const readLooked = (stack: string) => readKept<Looked>("looked", stack);
/** Where nothing can be kept, as in a pipeline whose home isn't to be written to, a look is a look all the same. */
export function writeLooked(stack: string, looked: Looked): void {
  try {
    writeKept("looked", stack, looked);
  } catch {
    // Then this computer remembers none.
  }
}
