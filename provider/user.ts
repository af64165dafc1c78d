import { z } from "zod";
import { absolutePath, accountName, type Inputs, type Kind, machineName } from "./resource";

interface UserInputs extends Inputs {
  user: string;
  home: string;
  shell: string;
}

/** A system user: see `User` in `index.ts`. */
export const user: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    user: accountName,
    home: absolutePath,
    shell: absolutePath.default("/bin/sh"),
  }),
  identity: ["machine", "user"],
  async read(machines, inputs) {
    const { machine, user } = inputs as UserInputs;
    const answer = await machines(machine).read({ library: "user", name: "user_read", arguments: [user] });
    const [home, shell] = answer.output.trim().split(":");
    return home ? { inputs: { ...inputs, home, shell }, outputs: {} } : undefined;
  },
  async apply(machines, inputs) {
    const { machine, user, home, shell } = inputs as UserInputs;
    await machines(machine).act({ library: "user", name: "user_apply", arguments: [user, home, shell] });
    return {};
  },
  async remove(machines, inputs) {
    const { machine, user } = inputs as UserInputs;
    await machines(machine).act({ library: "user", name: "user_remove", arguments: [user] });
  },
  id: ({ machine, user }) => `${machine}:${user}`,
};
