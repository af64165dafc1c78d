import { z } from "zod";
import { type Inputs, type Kind, machineName, oneLine } from "./resource";

const packageName = z.string().regex(/^[a-z0-9][a-z0-9+.-]+$/, "must be the name of a Debian package");
const choice = z
  .string()
  .regex(/^[a-z0-9][a-z0-9+.-]+(\|[a-z0-9][a-z0-9+.-]+)*$/, "must be the name of a Debian package, or several with |");

interface PackagesInputs extends Inputs {
  packages: string[];
  minimum: Record<string, string>;
  unless?: string;
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
    packages: z.array(choice).min(1),
    minimum: z.record(packageName, z.string().regex(/^[0-9][A-Za-z0-9.+~:-]*$/, "must be a version")).default({}),
    unless: oneLine.optional(),
  }),
  identity: ["machine"],
  verify({ packages, unless }, unknown) {
    // What is there tells which of several was taken only to who knows what it is for.
    const several = unknown.has("packages") ? [] : (packages as string[]).filter((each) => each.includes("|"));
    return unless === undefined && several.length > 0
      ? [{ property: "packages", reason: `needs \`unless\` beside a choice such as ${several[0]}` }]
      : [];
  },
  async read(machines, inputs) {
    const { machine, packages, minimum, unless } = inputs as PackagesInputs;
    const answer = await machines(machine).read({
      library: "packages",
      name: "packages_read",
      arguments: [leastVersions(minimum), unless ?? "", ...packages],
    });
    if (unless !== undefined) {
      return { inputs: { ...inputs, unless: answer.output.trim() === "yes" ? unless : "(fails)" }, outputs: {} };
    }
    const versions = new Map(answer.output.split("\n").map((line) => line.split(" ") as [string, string]));
    return {
      inputs: { ...inputs, packages: packages.filter((name) => versions.has(name)) },
      outputs: { versions: Object.fromEntries([...versions].filter(([name]) => packages.includes(name))) },
    };
  },
  async apply(machines, inputs) {
    const { machine, packages, minimum, unless } = inputs as PackagesInputs;
    await machines(machine).act({
      library: "packages",
      name: "packages_apply",
      arguments: [leastVersions(minimum), unless ?? "", ...packages],
    });
    const observed = await this.read(machines, inputs, {});
    return observed?.outputs ?? {};
  },
  async remove() {
    // Another stack, or the administrator, may use them.
  },
  id: ({ machine, packages }) => `${machine}:${(packages as string[]).join(",")}`,
};
