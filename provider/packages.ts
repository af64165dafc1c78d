import { z } from "zod";
import { type Inputs, type Kind, machineName } from "./resource";

const packageName = z.string().regex(/^[a-z0-9][a-z0-9+.-]+$/, "must be the name of a Debian package");

interface PackagesInputs extends Inputs {
  packages: string[];
  minimum: Record<string, string>;
}

/** Lowest versions as the shell functions take them: `NAME=VERSION` with blanks between. */
function leastVersions(minimum: Record<string, string>): string {
  return Object.entries(minimum)
    .map(([name, version]) => `${name}=${version}`)
    .join(" ");
}

/** Packages of the distribution: see `Packages` in `index.ts`. */
export const packages: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    packages: z.array(packageName).min(1),
    minimum: z.record(packageName, z.string().regex(/^[0-9][A-Za-z0-9.+~:-]*$/, "must be a version")).default({}),
  }),
  identity: ["machine"],
  async read(machines, inputs) {
    const { machine, packages, minimum } = inputs as PackagesInputs;
    const answer = await machines(machine).read({
      library: "packages",
      name: "packages_read",
      arguments: [leastVersions(minimum), ...packages],
    });
    const versions = new Map(answer.output.split("\n").map((line) => line.split(" ") as [string, string]));
    return {
      inputs: { ...inputs, packages: packages.filter((name) => versions.has(name)) },
      outputs: { versions: Object.fromEntries([...versions].filter(([name]) => packages.includes(name))) },
    };
  },
  async apply(machines, inputs) {
    const { machine, packages, minimum } = inputs as PackagesInputs;
    await machines(machine).act({
      library: "packages",
      name: "packages_apply",
      arguments: [leastVersions(minimum), ...packages],
    });
    const observed = await this.read(machines, inputs, {});
    return observed?.outputs ?? {};
  },
  async remove() {
    // Another stack, or the administrator, may use them.
  },
  id: ({ machine, packages }) => `${machine}:${(packages as string[]).join(",")}`,
};
