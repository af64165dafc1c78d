import { z } from "zod";
import { Refused } from "./refused";
import { absolutePath, accountName, fileMode, type Inputs, type Kind, machineName } from "./resource";

interface DirectoryInputs extends Inputs {
  path: string;
  mode: string;
  owner: string;
  group: string;
  ownsContents: boolean;
}

/** A directory: see `Directory` in `index.ts`. */
export const directory: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    path: absolutePath,
    mode: fileMode.default("0755"),
    owner: accountName.default("root"),
    group: accountName.default("root"),
    ownsContents: z.boolean().default(false),
  }),
  identity: ["machine", "path"],
  async read(machines, inputs) {
    const { machine, path, ownsContents } = inputs as DirectoryInputs;
    const answer = await machines(machine).read({
      library: "directory",
      name: ownsContents ? "directory_read_contents" : "directory_read",
      arguments: [path],
    });
    if (answer.exitCode !== 0) throw new Refused(`${machine}: ${path} can't be read: ${answer.output.trim()}`);
    const [kind, mode, owner, group, contents] = answer.output.trim().split(" ");
    if (kind === "missing") return undefined;
    const observed = ownsContents ? { mode, owner, group, ownsContents: contents === "same" } : { mode, owner, group };
    return {
      inputs: { ...inputs, ...(kind === "directory" ? observed : { mode: "(not a directory)" }) },
      outputs: {},
    };
  },
  async apply(machines, inputs) {
    const { machine, path, mode, owner, group, ownsContents } = inputs as DirectoryInputs;
    await machines(machine).act({
      library: "directory",
      name: ownsContents ? "directory_apply_contents" : "directory_apply",
      arguments: [path, mode, owner, group],
    });
    return {};
  },
  async remove(machines, inputs) {
    const { machine, path } = inputs as DirectoryInputs;
    await machines(machine).act({ library: "directory", name: "directory_remove", arguments: [path] });
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
