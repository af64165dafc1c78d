import { z } from "zod";
import { absolutePath, type Inputs, type Kind, machineName } from "./resource";

interface SpaceReserveInputs extends Inputs {
  path: string;
  mebibytes: number;
}

/** Disk space held back: see `SpaceReserve` in `index.ts`. */
export const spaceReserve: Kind = {
  inputs: z.strictObject({ machine: machineName, path: absolutePath, mebibytes: z.number().int().min(1) }),
  identity: ["machine", "path"],
  async read(machines, inputs) {
    const { machine, path } = inputs as SpaceReserveInputs;
    const answer = await machines(machine).read({
      library: "space_reserve",
      name: "space_reserve_read",
      arguments: [path],
    });
    const size = answer.output.trim();
    return size === "" ? undefined : { inputs: { ...inputs, mebibytes: Number(size) }, outputs: {} };
  },
  async apply(machines, inputs) {
    const { machine, path, mebibytes } = inputs as SpaceReserveInputs;
    await machines(machine).act({
      library: "space_reserve",
      name: "space_reserve_apply",
      arguments: [path, String(mebibytes)],
    });
    return {};
  },
  async remove(machines, inputs) {
    const { machine, path } = inputs as SpaceReserveInputs;
    await machines(machine).act({ library: "space_reserve", name: "space_reserve_remove", arguments: [path] });
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
