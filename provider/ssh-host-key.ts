import { z } from "zod";
import { isPublicKey } from "./connection";
import { Refused } from "./refused";
import { type Kind, type Machines, machineName } from "./resource";
import type { ShellCall } from "./shell";

/** Asks a machine which host keys its SSH server offers. */
export const askForHostKeys: ShellCall = { library: "ssh_key", name: "ssh_key_of_host", arguments: [] };

/** Types of keys, the best first. */
const TYPES = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];

/**
 * The host key by which clients know a server: the one that they know already, while it is offered; else the best. Pure.
 * @param offered what `ssh_key_of_host` printed
 * @returns undefined where the server offers none that OpenSSH's clients take
 */
export function chooseHostKey(offered: string, known?: string): string | undefined {
  const [, list] = /^algorithms (.*)$/m.exec(offered) ?? [];
  const algorithms = list?.split(",");
  const allowed = (type: string) =>
    algorithms === undefined ||
    (type === "ssh-rsa" ? ["ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"] : [type]).some((name) =>
      algorithms.includes(name),
    );
  const keys = offered
    .split("\n")
    .map((line) => line.trim())
    // They get into files and into the recovery kit's commands.
    .filter((line) => isPublicKey(line) && allowed(line.split(" ")[0] ?? ""));
  if (known !== undefined && keys.includes(known)) return known;
  return TYPES.map((type) => keys.find((key) => key.startsWith(`${type} `))).find((key) => key !== undefined);
}

async function hostKey(machines: Machines, machine: string, known: unknown): Promise<Record<string, unknown>> {
  const answer = await machines(machine).read(askForHostKeys);
  if (answer.exitCode !== 0) {
    throw new Refused(`${machine}: its SSH server doesn't say which host keys it offers (${answer.output.trim()})`);
  }
  const publicKey = chooseHostKey(answer.output, typeof known === "string" ? known : undefined);
  if (publicKey === undefined) {
    throw new Refused(
      `${machine}: its SSH server offers no host key of the types ${TYPES.join(", ")}; make one with \`ssh-keygen -A\`, and ` +
        "check `HostKey` and `HostKeyAlgorithms` of sshd there",
    );
  }
  return { publicKey };
}

/** The machine's own key: see `SshHostKey` in `index.ts`. */
export const sshHostKey: Kind = {
  inputs: z.strictObject({ machine: machineName }),
  identity: ["machine"],
  async read(machines, inputs, outputs) {
    return { inputs, outputs: await hostKey(machines, inputs.machine, outputs.publicKey) };
  },
  apply: (machines, inputs, before) => hostKey(machines, inputs.machine, before?.outputs.publicKey),
  async remove() {
    // It was there before us.
  },
  id: ({ machine }) => `${machine}:ssh-host-key`,
};
