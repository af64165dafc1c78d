/**
 * Runs a bash script on a machine, as root, and passes on what it prints: the stack's one-shot commands start this
 * (`components/remote-script.ts`), with the order in CHT_BACKUP_SCRIPT and the script on standard input.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { Machine } from "../provider/connection";
import { explainConnectionFailure } from "../provider/ssh-failure";
import { pinnedConnection } from "../provider/ssh-options";
import { run } from "../toolchain/command";
import { main } from "../toolchain/main";
import { Problem } from "../toolchain/progress";
import { remark, say } from "./main";
import { Remote } from "./remote";

/** What is to be run, and where. */
export interface ScriptOrder {
  /** The machine's name in `host:machines`. */
  name: string;
  machine: Machine;
  /** The script's arguments. */
  words: string[];
  /** For a machine that was started a moment ago. Default: the first attempt counts. */
  starting?: {
    /** How long it may take until it answers, in seconds. */
    patience: number;
    /** What to do where it answers and lets nobody in, or shows another host key. */
    refused: string;
  };
}

/** Seconds between attempts. */
const pause = { unreachable: 5, refused: 20 };
/** sshd is up before everybody is let in, but not for long; and it shuts out an address with many refused logins. */
const refusals = 3;

/**
 * Waits until a machine lets this computer in.
 * @throws Problem with the last attempt's reason
 */
export async function waitForLogin(
  { name, machine, starting }: ScriptOrder & Required<Pick<ScriptOrder, "starting">>,
  times = pause,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "cht-backup-ssh-"));
  const end = Date.now() + starting.patience * 1000;
  try {
    for (let refused = 0; ; ) {
      const { code, stderr } = await run("ssh", [...pinnedConnection(machine, folder), "true"], { timeoutMs: 60_000 });
      if (code === 0) return;
      const why = explainConnectionFailure(name, machine, stderr);
      const answered = /Permission denied|Host key verification failed|Too many authentication failures/i.test(stderr);
      if (answered) refused++;
      if (refused >= refusals) throw new Problem(`${why}. ${starting.refused}`);
      if (Date.now() >= end) throw new Problem(`${why}. It didn't let this computer in for ${starting.patience} s`);
      await setTimeout((answered ? times.refused : times.unreachable) * 1000);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs what CHT_BACKUP_SCRIPT and standard input say. @returns the script's exit code */
async function runScript(): Promise<number> {
  const order: ScriptOrder = JSON.parse(process.env.CHT_BACKUP_SCRIPT ?? "");
  let script = "";
  for await (const part of process.stdin.setEncoding("utf8")) script += part;
  const { name, machine, words, starting } = order;
  if (starting !== undefined) await waitForLogin({ ...order, starting });
  const remote = new Remote(name, machine);
  try {
    const { code } = await remote.run(["bash", "-s", "--", ...words], {
      stdin: script,
      onLine: say,
      onError: remark,
    });
    return code;
  } finally {
    remote.close();
  }
}

if (require.main === module || process.argv[1] === __filename) void main("cht-backup", runScript);
