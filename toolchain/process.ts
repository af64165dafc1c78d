/** Other processes of this computer (Linux: /proc). */
import { readFileSync } from "node:fs";

/**
 * A living process, or undefined. One that has ended and that nobody waited for (a zombie) is dead: in a container
 * whose first process doesn't look after orphans they stay for good.
 */
export function livingProcess(pid: number): { name: string; started: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const end = stat.lastIndexOf(")");
    const [state, ...rest] = stat.slice(end + 2).split(" ");
    return state === "Z" ? undefined : { name: stat.slice(stat.indexOf("(") + 1, end), started: rest[18] ?? "" };
  } catch {
    return undefined;
  }
}
