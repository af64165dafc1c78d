/** Other processes of this computer (Linux: /proc). */
import { readdirSync, readFileSync } from "node:fs";

/**
 * A living process, or undefined. One that has ended and that nobody waited for (a zombie) is dead: in a container
 * whose first process doesn't look after orphans they stay for good.
 */
export function livingProcess(pid: number): { name: string; parent: number; started: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const end = stat.lastIndexOf(")");
    const [state, ...rest] = stat.slice(end + 2).split(" ");
    if (state === "Z") return undefined;
    return { name: stat.slice(stat.indexOf("(") + 1, end), parent: Number(rest[0]), started: rest[18] ?? "" };
  } catch {
    return undefined;
  }
}

/** The numbers of a process's children, their children and so on. */
export function descendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const parent = /^\d+$/.test(name) ? livingProcess(Number(name))?.parent : undefined;
    if (parent !== undefined) parents.set(Number(name), parent);
  }
  const found = [pid];
  for (const each of found) for (const [child, parent] of parents) if (parent === each) found.push(child);
  return found.slice(1);
}
