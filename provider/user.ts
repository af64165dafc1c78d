import { z } from "zod";
import { absolutePath, accountName, type Inputs, type Kind, machineName } from "./resource";

interface UserInputs extends Inputs {
  user: string;
  home: string;
  shell: string;
  groups: string;
  homeProtection: string;
  password: string;
}

const HOME_MODE = "0755";
const HOME_PROTECTION = `root root ${HOME_MODE}`;

/** A system user: see `User` in `index.ts`. */
export const user: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    user: accountName,
    home: absolutePath,
    shell: absolutePath.default("/bin/sh"),
    // Observed, not chosen: no further groups, no password, and a home that belongs to root.
    groups: z.literal("").default(""),
    password: z.literal("none").default("none"),
    homeProtection: z.literal(HOME_PROTECTION).default(HOME_PROTECTION),
  }),
  identity: ["machine", "user"],
  async read(machines, inputs) {
    const { machine, user } = inputs as UserInputs;
    const answer = await machines(machine).read({ library: "user", name: "user_read", arguments: [user] });
    const [account = "", groups = "", homeProtection, password = ""] = answer.output.split("\n");
    const [home, shell] = account.split(":");
    if (!home) return undefined;
    const observed = { home, shell, groups: groups.trim(), homeProtection, password: password || "none" };
    return { inputs: { ...inputs, ...observed }, outputs: {} };
  },
  async apply(machines, inputs) {
    const { machine, user, home, shell } = inputs as UserInputs;
    await machines(machine).act({ library: "user", name: "user_apply", arguments: [user, home, shell, HOME_MODE] });
    return {};
  },
  async remove(machines, inputs) {
    const { machine, user } = inputs as UserInputs;
    await machines(machine).act({ library: "user", name: "user_remove", arguments: [user] });
  },
  id: ({ machine, user }) => `${machine}:${user}`,
};
