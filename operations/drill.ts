/** `npm run drill`: rehearses a restore now, or says what the last rehearsal came to. */
import { readHostFile } from "../components/host-files";
import { drillNames } from "../components/names";
import { plainJson, plainLines } from "../toolchain/plain";
import { command, exitCodes, optionsOf, Refused, remark } from "./main";
import { Remote } from "./remote";
import { readDeployment } from "./stack";

const help = `Usage: npm run drill -- --stack STACK [OPTIONS]

Rehearses a restore now, on the machine that the settings name (cht-backup:drill.machine): the newest archive, of the
repository on the server or of its newest copy in the bucket (cht-backup:drill.from), is restored beside everything else,
checked, opened by a CouchDB that can reach nobody but that machine itself, and removed again. Shows what is being done, then the report. A drill that is running already is followed.

  --stack STACK   the stack
  --report        only print the last report
  --json          print the report as JSON
  --help          this text

Exit codes: 0 the archive restores; 1 it doesn't, or the drill was cut off, and the report says why; 2 not possible, the
reason is said; 130 after Ctrl-C: the drill goes on, and --report tells how it ended.
`;

/** The newest report in both forms, a form feed between them. */
const readReport = 'if [ -e "$1.json" ]; then cat "$1.json"; printf "\\f"; cat "$1.txt"; fi';

async function drill(signal: AbortSignal): Promise<number> {
  const options = optionsOf(help, {
    report: { type: "boolean" },
    json: { type: "boolean" },
  });
  if (options === undefined) return exitCodes.right;
  const { stack } = options;
  const { json } = options;
  // With its output: before the first `up` that says what is missing, and SSH wouldn't.
  const { drill, deployment, machines } = (await readDeployment(stack)).settings;
  if (drill === undefined)
    throw new Refused(`the drill is switched off in the stack ${stack}: cht-backup:drill.enabled`);
  const machine = machines[drill.machine];
  if (machine === undefined) throw new Refused(`${drill.machine} isn't in host:machines`);
  const { service, reports } = drillNames(deployment);
  const remote = new Remote(drill.machine, machine);
  try {
    if (options.report) {
      const [report = "", page = ""] = (await remote.script(readReport, [`${reports}/latest`], { signal })).split("\f");
      if (report === "") throw new Refused(`no drill has ended on the machine ${drill.machine} so far`);
      const parsed = JSON.parse(report) as { ok: boolean };
      process.stdout.write(json ? plainJson(parsed) : plainLines(page));
      return parsed.ok ? exitCodes.right : exitCodes.wrong;
    }
    const words = ["bash", "-c", readHostFile("drill/follow.sh"), "follow.sh"];
    const { code, stdout } = await remote.run([...words, service, `${reports}/latest.${json ? "json" : "txt"}`], {
      keepOpen: true,
      signal,
      onError: remark,
    });
    if (signal.aborted) {
      remark(`The drill goes on. Its report: npm run drill -- --stack ${stack} --report`);
    }
    // A drill that didn't come to a report has printed none.
    if (stdout !== "") process.stdout.write(json ? plainJson(JSON.parse(stdout)) : plainLines(stdout));
    return code === 0 || code === 1 ? code : exitCodes.refused;
  } finally {
    remote.close();
  }
}

if (require.main === module || process.argv[1] === __filename) void command("drill", drill);
