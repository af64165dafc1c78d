import { z } from "zod";
import { unlockedRequirements } from "./python-environment";
import { absolutePath, type Inputs, type Kind, machineName, oneLine } from "./resource";
import { decode, encode, type ShellCall } from "./shell";

const packageName = z.string().regex(/^[a-z0-9][a-z0-9+.-]+$/, "must be the name of a Debian package");
const choice = z
  .string()
  .regex(/^[a-z0-9][a-z0-9+.-]+(\|[a-z0-9][a-z0-9+.-]+)*$/, "must be the name of a Debian package, or several with |");

const AS_BUILT = "as built";

/** How a package is built where the distribution has none that is new enough: see `Build` in `index.ts`. */
const buildSchema = z.strictObject({
  path: absolutePath,
  requirements: z.string().min(1),
  tools: z.string().min(1),
  check: oneLine,
  packages: z.array(packageName).min(1),
});

/** What {@link packagesCall} is made of. */
export interface Wanted {
  packages: string[];
  minimum?: Record<string, string>;
  unless?: string | undefined;
  build?: z.output<typeof buildSchema> | undefined;
}

interface PackagesInputs extends Inputs, Wanted {
  minimum: Record<string, string>;
}

/** Lowest versions as the shell functions take them: `NAME=VERSION` with blanks between. */
function leastVersions(minimum: Record<string, string>): string {
  return Object.entries(minimum)
    .map(([name, version]) => `${name}=${version}`)
    .join(" ");
}

/**
 * The call that installs packages. Pure.
 * @param digest of what was built before, as it was then; empty: nothing known
 */
export function packagesCall({ packages, minimum = {}, unless, build }: Wanted, digest = ""): ShellCall {
  const least = leastVersions(minimum);
  if (build === undefined) {
    return { library: "packages", name: "packages_apply", arguments: [least, unless ?? "", ...packages] };
  }
  const { path, requirements, tools, check } = build;
  return {
    library: "packages",
    name: "packages_apply_or_build",
    arguments: [least, ...packages, digest, path, encode(requirements), encode(tools), check, ...build.packages],
  };
}

/** Packages of the distribution: see `Packages` in `index.ts`. */
export const packages: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    packages: z.array(choice).min(1),
    minimum: z.record(packageName, z.string().regex(/^[0-9][A-Za-z0-9.+~:-]*$/, "must be a version")).default({}),
    unless: oneLine.optional(),
    build: buildSchema.optional(),
    // Observed, not chosen: nothing has changed of what was built.
    built: z.literal(AS_BUILT).optional(),
  }),
  identity: ["machine"],
  verify({ packages, unless, build }, unknown) {
    if (build !== undefined && !unknown.has("build")) {
      if ((packages as string[]).length > 1 || unless !== undefined) {
        return [{ property: "build", reason: "goes with one package, and without `unless`" }];
      }
      const { requirements, tools } = build as NonNullable<Wanted["build"]>;
      const unlocked = [...unlockedRequirements(requirements), ...unlockedRequirements(tools)];
      if (unlocked.length > 0) {
        return [{ property: "build", reason: `needs a version (==) and hashes for: ${unlocked.join(", ")}` }];
      }
    }
    // What is there tells which of several was taken only to who knows what it is for.
    const several = unknown.has("packages") ? [] : (packages as string[]).filter((each) => each.includes("|"));
    return unless === undefined && several.length > 0
      ? [{ property: "packages", reason: `needs \`unless\` beside a choice such as ${several[0]}` }]
      : [];
  },
  complete(inputs) {
    return inputs.build === undefined ? inputs : { ...inputs, built: AS_BUILT };
  },
  async read(machines, inputs, outputs) {
    const { machine, packages, minimum, unless, build } = inputs as PackagesInputs;
    const answer = await machines(machine).read({
      library: "packages",
      name: "packages_read",
      arguments: [leastVersions(minimum), unless ?? "", build?.path ?? "", build?.check ?? "", ...packages],
    });
    if (unless !== undefined) {
      return { inputs: { ...inputs, unless: answer.output.trim() === "yes" ? unless : "(fails)" }, outputs: {} };
    }
    const lines = answer.output.split("\n").map((line) => line.split(" ") as [string, string, string?]);
    const [, digest, requirements] = lines.find(([word]) => word === "built") ?? [];
    if (build !== undefined && digest !== undefined) {
      if (digest === "broken") return { inputs: { ...inputs, built: "doesn't work" }, outputs };
      const known = outputs.digest ?? digest;
      const seen = { ...inputs, build: { ...build, requirements: decode(requirements ?? "") }, built: AS_BUILT };
      return { inputs: digest === known ? seen : { ...seen, built: "changed since" }, outputs: { digest: known } };
    }
    const versions = new Map(lines.map(([name, version]) => [name, version]));
    return {
      inputs: { ...inputs, packages: packages.filter((name) => versions.has(name)) },
      outputs: { versions: Object.fromEntries([...versions].filter(([name]) => packages.includes(name))) },
    };
  },
  async apply(machines, inputs, before) {
    const wanted = inputs as PackagesInputs;
    await machines(wanted.machine).act(packagesCall(wanted, String(before?.outputs.digest ?? "")));
    const observed = await this.read(machines, inputs, {});
    return observed?.outputs ?? {};
  },
  async remove(machines, inputs) {
    // Packages stay: another stack, or the administrator, may use them. What was built is this resource's own.
    const { machine, build } = inputs as PackagesInputs;
    if (build === undefined) return;
    await machines(machine).act({ library: "packages", name: "packages_remove_built", arguments: [build.path] });
  },
  id: ({ machine, packages }) => `${machine}:${(packages as string[]).join(",")}`,
};
