/** `npm run alert-test`: sends one alarm to each address from each machine, and shows what came back. */
import { chtNames, serverNames } from "../components/names";
import { command, exitCodes, optionsOf, say } from "./main";
import { Remote } from "./remote";
import { readDeployment } from "./stack";

const help = `Usage: npm run alert-test -- --stack STACK

Sends a test to each address in cht-backup:alerts from each machine that raises alarms, and says what came of it. Look
whether it arrived: an address may take what nobody gets.

  --stack STACK   the stack
  --help          this text

Exit codes: 0 every address took it from every machine; 1 one didn't, or a machine can't be reached; 2 not possible, the
reason is said.
`;

/** How long a machine may take: an address that doesn't answer takes two minutes. */
const LIMIT = 600_000;

async function alertTest(signal: AbortSignal): Promise<number> {
  const options = optionsOf(help, {});
  if (options === undefined) return exitCodes.right;
  const { deployment, machines, drill, server } = (await readDeployment(options.stack)).settings;
  const [here, there] = [chtNames(deployment), serverNames(deployment, server.dataDirectory)];
  const senders = [
    { name: "cht", program: here.package, settings: `${here.settings}/settings.json` },
    { name: "server", program: there.package, settings: `${there.settings}/repository.json` },
  ];
  if (drill !== undefined && drill.machine !== "cht") {
    senders.push({ name: drill.machine, program: here.package, settings: `${here.settings}/drill.json` });
  }
  const limit = AbortSignal.any([signal, AbortSignal.timeout(LIMIT)]);
  // Side by side: a machine that is off keeps no other waiting.
  const codes = await Promise.all(
    senders.map(async ({ name, program, settings }) => {
      const machine = machines[name];
      if (machine === undefined) {
        say(`${name}: isn't in host:machines`);
        return exitCodes.wrong;
      }
      const remote = new Remote(name, machine);
      const told = (line: string) => say(`${name}: ${line}`);
      try {
        const words = ["/usr/bin/python3", "-sEB", program, "alert", "--test", settings];
        const { code, stdout } = await remote.run(words, { signal: limit, onError: told });
        for (const line of stdout.split("\n").filter((each) => each !== "")) told(line);
        return code === 0 ? exitCodes.right : exitCodes.wrong;
      } catch (error) {
        told((error as Error).message);
        return exitCodes.wrong;
      } finally {
        remote.close();
      }
    }),
  );
  return Math.max(...codes);
}

if (require.main === module || process.argv[1] === __filename) void command("alert-test", alertTest);
