import { z } from "zod";
import { accountName, type Inputs, type Kind, machineName, oneLine } from "./resource";

interface MemberInputs extends Inputs {
  user: string;
  group: string;
}

/** A user's membership in a group: see `GroupMember` in `index.ts`. */
export const groupMember: Kind = {
  inputs: z.strictObject({ machine: machineName, user: oneLine, group: accountName }),
  identity: ["machine", "user", "group"],
  async read(machines, inputs) {
    const { machine, user, group } = inputs as MemberInputs;
    const call = { library: "group_member", name: "group_member_read", arguments: [user, group] };
    const answer = await machines(machine).read(call);
    return answer.output.trim() === "yes" ? { inputs, outputs: {} } : undefined;
  },
  async apply(machines, inputs) {
    const { machine, user, group } = inputs as MemberInputs;
    await machines(machine).act({ library: "group_member", name: "group_member_apply", arguments: [user, group] });
    return {};
  },
  async remove() {
    // Whether it was one before, nobody knows any more.
  },
  id: ({ machine, user, group }) => `${machine}:${group}:${user}`,
};
