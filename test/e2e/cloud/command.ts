/** The Command plugin: it runs what it is told on this computer, with the text on standard input; it knows no look. */
import { run } from "../../../toolchain/command";
import { type StandIn, serve } from "./standin";

/** Runs one of the commands. @throws Error as the plugin's own, with all that the command printed */
async function runHere(command: unknown, { stdin, environment }: Record<string, unknown>) {
  if (command === undefined) return {};
  const { code, stdout, stderr } = await run("/bin/sh", ["-c", String(command)], {
    env: { ...process.env, ...(environment as Record<string, string> | undefined) },
    stdin: String(stdin ?? ""),
    timeoutMs: 1_200_000,
  });
  if (code !== 0) throw new Error(`exit status ${code}: running ${JSON.stringify(command)}:\n${stdout}${stderr}`);
  return { stdout: stdout.trimEnd(), stderr: stderr.trimEnd() };
}

const local: StandIn = {
  replaces: ["triggers"],
  create: async (inputs) => ({ outputs: await runHere(inputs.create, inputs) }),
  update: (inputs) => runHere(inputs.update ?? inputs.create, inputs),
  remove: async (_, outputs) => void (await runHere(outputs.delete, outputs)),
};

/** As stacks of earlier versions have it. Nothing of the test goes by it to a machine; its end needs none. */
const remote: StandIn = {
  async remove(_, outputs) {
    if (outputs.delete !== undefined) throw new Error("it would log in");
  },
};

serve("1.2.1", { "command:local:Command": local, "command:remote:Command": remote });
