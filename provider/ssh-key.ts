import { z } from "zod";
import { Refused } from "./refused";
import { absolutePath, type Inputs, type Kind, machineName, oneLine } from "./resource";

interface SshKeyInputs extends Inputs {
  path: string;
  comment: string;
  mode: string;
  owner: string;
}

/** A key pair made on the machine: see `SshKey` in `index.ts`. */
export const sshKey: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    path: absolutePath,
    comment: oneLine,
    // Observed, not chosen: ssh refuses a private key that others can read.
    mode: z.literal("0600").default("0600"),
    owner: z.literal("root").default("root"),
  }),
  identity: ["machine", "path"],
  async read(machines, inputs) {
    const { machine, path } = inputs as SshKeyInputs;
    const answer = await machines(machine).read({ library: "ssh_key", name: "ssh_key_read", arguments: [path] });
    if (answer.exitCode !== 0) throw new Refused(`${machine}: ${path} can't be read: ${answer.output.trim()}`);
    const [facts = "", key = ""] = answer.output.split("\n");
    if (facts === "" || key === "unusable") return undefined;
    const [mode, owner] = facts.split(" ");
    const [type, blob, ...comment] = key.trim().split(" ");
    return {
      inputs: { ...inputs, mode, owner, comment: comment.join(" ") },
      outputs: { publicKey: `${type} ${blob} ${comment.join(" ")}` },
    };
  },
  async apply(machines, inputs) {
    const { machine, path, comment } = inputs as SshKeyInputs;
    const publicKey = await machines(machine).act({
      library: "ssh_key",
      name: "ssh_key_apply",
      arguments: [path, comment],
    });
    return { publicKey: publicKey.trim() };
  },
  async remove(machines, inputs) {
    const { machine, path } = inputs as SshKeyInputs;
    await machines(machine).act({ library: "ssh_key", name: "ssh_key_remove", arguments: [path] });
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
