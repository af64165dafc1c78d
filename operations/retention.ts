/** `npm run retention`: removes archives that the policy no longer keeps, on the server. */
import { chtNames, drillNames, serverNames } from "../components/names";
import type { Settings } from "../config";
import { policyOf } from "../config/retention";
import { plain, plainJson } from "../toolchain/plain";
import { Problem } from "../toolchain/progress";
import { bucketRetention, deleterHelp } from "./bucket-retention";
import { forgotten, readSeen, writeSeen } from "./ledger";
import { command, exitCodes, optionsOf, Refused, remark, say } from "./main";
import { type Remote, Remotes } from "./remote";
import { repositoryId } from "./repository";
import { type Deployment, readDeployment } from "./stack";
import { confirmed } from "./terminal";
import { clock, megabytes } from "./words";

const help = `Usage: npm run retention -- --stack STACK [OPTIONS]

Shows which archives stay by the policy (cht-backup:retention), and why, and which go; asks; removes those and frees their
space, on the server; then the same for copies in the bucket. A backup that begins meanwhile waits. Where anything is odd (an archive is missing, times can't be
right, documents have collapsed, no drill has succeeded of late, …) it says so and removes nothing.

  --stack STACK     the stack
  --only PLACE      only what is on the \`server\`, or in the \`bucket\`
  --dry-run         only show
  --yes             don't ask
  --despite DOUBT   go on although there is this doubt, by the name that it is shown with; once for each
  --json            print JSON
  --help            this text

${deleterHelp}
A version whose lock hasn't ended stays until a later run. A run that was interrupted is finished by the next.

Exit codes: 0 done, or nothing to do; 1 there are doubts, and nothing was removed; 2 wrong option, or not possible (the
reason is said); 130 after Ctrl-C.
`;

/** An archive in a plan. */
export interface Planned {
  name: string;
  id: string;
  /** When the server took it, in seconds since 1970; null where its ledger doesn't know it. */
  at: number | null;
  /** Why it stays; empty: it goes. */
  why: string[];
}

/** What `retention` prints. */
export interface Plan {
  archives: Planned[];
  /** What speaks against removing anything, by the names of `--despite`. */
  doubts: Record<string, string>;
  /** What was done of it; null: nothing. */
  done: { removed: string[]; freed: number } | null;
  /** Names by ids of all that retention has ever removed. */
  removedBefore: Record<string, string>;
}

/** The policy in words. Pure. */
export function policyInWords({ within, daily, weekly, monthly, yearly }: ReturnType<typeof policyOf>): string {
  const counted = { day: daily, week: weekly, month: monthly, year: yearly };
  const last = Object.entries(counted)
    .filter(([, count]) => count > 0)
    .map(([unit, count]) => `${count} ${unit}${count === 1 ? "" : "s"}`);
  const all = `all archives of the last ${within === 1 ? "day" : `${within} days`}`;
  return last.length === 0 ? all : `${all}, and the last one of ${last.join(", ")}`;
}

/** The plan for people: a line an archive, the newest first, and a last one that counts them. Pure. */
export function table({ archives }: Pick<Plan, "archives">): string[] {
  const width = Math.max(...archives.map(({ name }) => plain(name).length), 0);
  const lines = archives.map(({ name, at, why }) => {
    const when = at === null ? "                " : clock(at);
    return `  ${when}  ${plain(name).padEnd(width)}  ${why.length === 0 ? "GOES" : plain(why.join(", "))}`;
  });
  const going = archives.filter(({ why }) => why.length === 0).length;
  const none = `Every archive stays (${archives.length}).`;
  lines.push(going === 0 ? none : `${going} of ${archives.length} archives go, ${archives.length - going} stay.`);
  return lines;
}

/** What the machine that drills says of its last drill. */
export interface DrillReport {
  ok: boolean;
  /** Seconds since 1970. */
  lastSuccessAt: number | null;
}

/** The last drill as `retention` takes it. Pure. */
export function drillFacts(drill: Settings["drill"], report: DrillReport | undefined) {
  if (drill === undefined) return {};
  return {
    succeeded: report?.lastSuccessAt ?? null,
    failed: report?.ok === false,
    overdueAfterDays: drill.overdueAfterDays,
  };
}

async function retention(signal: AbortSignal): Promise<number> {
  const options = optionsOf(help, {
    "dry-run": { type: "boolean" },
    only: { type: "string" },
    yes: { type: "boolean" },
    despite: { type: "string", multiple: true },
    json: { type: "boolean" },
  });
  if (options === undefined) return exitCodes.right;
  const { stack, only } = options;
  if (only !== undefined && only !== "server" && only !== "bucket") {
    throw new Refused(`--only ${only}: it must be \`server\` or \`bucket\``);
  }
  const deployment = await readDeployment(stack);
  const { machines, drill } = deployment.settings;
  const remotes = new Remotes();
  const drilling = drill && machines[drill.machine];
  try {
    const server = remotes.connect("server", machines.server);
    const drills = drill && drilling ? remotes.connect(drill.machine, drilling) : undefined;
    const request = {
      despite: options.despite ?? [],
      dryRun: options["dry-run"] === true,
      drill: drillFacts(drill, await lastDrill(drills, deployment.settings, signal)),
    };
    const inBucket = (held: boolean) =>
      bucketRetention({
        ...{ stack, deployment, held, ...request, yes: options.yes === true, quiet: options.json === true, signal },
        only: only === "bucket",
      });
    if (only === "bucket") {
      const { code, plan: bucket } = await inBucket(false);
      if (options.json) process.stdout.write(plainJson({ bucket }));
      return code;
    }
    const run = await runner(server, deployment, stack, request, signal);
    let plan = await run("plan", []);
    const going = plan.archives.filter(({ why }) => why.length === 0);
    const open = Object.entries(plan.doubts).filter(([name]) => !options.despite?.includes(name));
    if (!options.json) {
      say(`Stays: ${policyInWords(policyOf(deployment.settings.retention))} (cht-backup:retention).`);
      for (const line of table(plan)) say(line);
    }
    for (const [name, why] of Object.entries(plan.doubts)) remark(`DOUBT (${name}): ${why}`);
    if (going.length > 0 && open.length > 0) {
      remark(
        "Nothing is removed. What to do: docs/retention.md. Where you know that all is well, `--despite NAME` goes on.",
      );
    } else if (going.length > 0 && !options["dry-run"]) {
      if (!options.yes && !(await confirmed(`Remove ${going.length} archives for good?`, signal)))
        throw new Refused("nothing was removed");
      plan = await run(
        "apply",
        going.map(({ id }) => id),
      );
      if (plan.done !== null && !options.json) {
        say(`${plan.done.removed.length} archives removed, ${megabytes(plan.done.freed)} freed on the server.`);
      }
    }
    // Each time: who couldn't be reached the last time must not miss them.
    if (!options["dry-run"]) await forget(stack, Object.keys(plan.removedBefore), deployment, drills, signal);
    const doubted = going.length > 0 && open.length > 0;
    const { code, plan: bucket } = only === "server" ? { code: exitCodes.right } : await inBucket(open.length > 0);
    if (options.json) process.stdout.write(plainJson({ ...plan, bucket }));
    return doubted ? exitCodes.wrong : code;
  } finally {
    remotes.close();
  }
}

/** Runs `retention` on the server. */
async function runner(
  server: Remote,
  { settings, passphrase, key }: Deployment,
  stack: string,
  asked: { despite: string[]; dryRun: boolean; drill: ReturnType<typeof drillFacts> },
  signal: AbortSignal,
) {
  const repository = repositoryId(key);
  const seen = readSeen(stack);
  const names = serverNames(settings.deployment, settings.server.dataDirectory);
  const request = {
    policy: policyOf(settings.retention),
    passphrase,
    repository,
    seen: seen?.repository === repository ? seen.archives : {},
    ...asked,
  };
  const there = 'test -e "$1" || { echo "it has no retention yet: run pulumi up first" >&2; exit 2; }';
  await server.script(there, [names.package], { signal });
  return async (action: "plan" | "apply", shown: string[]): Promise<Plan> => {
    const words = ["python3", "-B", names.package, "retention", action, `${names.settings}/repository.json`];
    const { code, stdout } = await server.run(words, {
      stdin: `${JSON.stringify({ ...request, shown, now: Date.now() / 1000 })}\n`,
      keepOpen: true,
      onError: (line) => remark(`  ${line}`),
      signal,
    });
    if (signal.aborted) throw new Problem("stopped; run it again to finish what was begun");
    if (code !== 0 && code !== 1) throw new Refused("retention isn't possible, for the reason above");
    return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as Plan;
  };
}

async function lastDrill(
  drills: Remote | undefined,
  { deployment }: Settings,
  signal: AbortSignal,
): Promise<DrillReport | undefined> {
  if (drills === undefined) return undefined;
  const { reports } = drillNames(deployment);
  try {
    const text = await drills.script('if [ -e "$1" ]; then cat "$1"; fi', [`${reports}/latest.json`], { signal });
    return text === "" ? undefined : (JSON.parse(text) as DrillReport);
  } catch (error) {
    remark(`note: the last drill can't be asked for: ${(error as Error).message}`);
    return undefined;
  }
}

/** Makes this computer and the machine that drills forget what was removed on purpose: else they would miss it. */
async function forget(
  stack: string,
  removed: string[],
  { settings }: Deployment,
  drills: Remote | undefined,
  signal: AbortSignal,
): Promise<void> {
  const seen = readSeen(stack);
  if (seen !== undefined) writeSeen(stack, forgotten(seen, removed));
  if (drills === undefined || removed.length === 0) return;
  const { deployment } = settings;
  const ledger = `${drillNames(deployment).reports}/ledger.json`;
  const words = ["python3", "-B", chtNames(deployment).package, "forget", ledger];
  const reason = await drills.run(words, { stdin: JSON.stringify(removed), signal }).then(
    ({ code, stderr }) => (code === 0 ? undefined : stderr.trim().split("\n").at(-1)),
    (error: Error) => error.message,
  );
  if (reason !== undefined) {
    remark(`note: the machine that drills will miss what was removed, until this is run again: ${reason}`);
  }
}

if (require.main === module || process.argv[1] === __filename) void command("retention", retention);
