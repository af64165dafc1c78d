/** One `npm run lab` or `npm run lab:down` at a time. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { labFolder } from "../toolchain/paths";
import { livingProcess } from "../toolchain/process";
import { Problem } from "../toolchain/progress";

const file = join(labFolder, "lock");

/** A process's number with the time it started, so that a number used again isn't taken for the same process. */
function identity(pid: number): string | undefined {
  const found = livingProcess(pid);
  return found && `${pid} ${found.started}`;
}

/** Takes the lock, or throws a `Problem` when another process that lives has it. Returns what gives it back. */
export function takeLock(): () => void {
  mkdirSync(labFolder, { recursive: true, mode: 0o700 });
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      writeFileSync(file, identity(process.pid) ?? String(process.pid), { flag: "wx" });
      return () => rmSync(file, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      const holder = readFileSync(file, "utf8").trim();
      if (holder !== "" && identity(Number(holder.split(" ")[0])) === holder) {
        throw new Problem(`another process (${holder.split(" ")[0]}) is working on the lab. Wait for it, or end it.`);
      }
      rmSync(file, { force: true });
    }
  }
  throw new Problem("another process is working on the lab. Wait for it, or end it.");
}
