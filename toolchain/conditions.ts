/** The one list of what can be wrong (`hosts/chtbackup/watch/conditions.py`), as the pages made from it take it. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { project } from "./paths";
import { Problem } from "./progress";

export interface Condition {
  id: string;
  severity: "warning" | "critical";
  title: string;
  text: string;
  todo: string;
  meaning: string;
  /** From which machines it is seen, `operator`: from this computer; from none: by who collects the metrics. */
  seen: ("cht" | "server" | "drill" | "operator")[];
  commands: string[];
  hidden_by: string[];
  told_by: string;
  link: string;
}

let known: Condition[] | undefined;

/** All conditions, in their order. */
export function conditions(): Condition[] {
  if (known !== undefined) return known;
  const words = ["-I", "-B", join(project, "hosts", "chtbackup"), "watch", "catalogue"];
  const { status, stdout, stderr, error } = spawnSync("python3", words, { encoding: "utf8", timeout: 60_000 });
  if (status !== 0) throw new Problem(`the list of conditions can't be read: ${error?.message ?? stderr.trim()}`);
  known = JSON.parse(stdout) as Condition[];
  return known;
}
