import { z } from "zod";
import { Refused } from "./refused";
import { type Kind, type Machines, machineName } from "./resource";

async function hostKey(machines: Machines, machine: string): Promise<Record<string, unknown>> {
  const answer = await machines(machine).read({ library: "ssh_key", name: "ssh_key_of_host", arguments: [] });
  if (answer.exitCode !== 0) {
    throw new Refused(`${machine}: has no Ed25519 host key (${answer.output.trim()}); make one with \`ssh-keygen -A\``);
  }
  return { publicKey: answer.output.trim() };
}

/** The machine's own key: see `SshHostKey` in `index.ts`. */
export const sshHostKey: Kind = {
  inputs: z.strictObject({ machine: machineName }),
  identity: ["machine"],
  async read(machines, inputs) {
    return { inputs, outputs: await hostKey(machines, inputs.machine) };
  },
  apply: (machines, inputs) => hostKey(machines, inputs.machine),
  async remove() {
    // It was there before us.
  },
  id: ({ machine }) => `${machine}:ssh-host-key`,
};
