import { z } from "zod";
import { Refused } from "./refused";
import { absolutePath, type Inputs, type Kind, machineName } from "./resource";
import { decode, encode } from "./shell";

interface PythonEnvironmentInputs extends Inputs {
  path: string;
  requirements: string;
  files: string;
}

const AS_INSTALLED = "as installed";

/** Names of the requirements that lack a pinned version or a hash. */
export function unlockedRequirements(text: string): string[] {
  return text
    .replaceAll("\\\n", " ")
    .split("\n")
    .map((line) => line.replace(/(^|\s)#.*$/, "").trim())
    .filter((line) => line !== "")
    .filter((line) => !/^[A-Za-z0-9._[\],-]+\s*==\s*\S+.*--hash=sha256:[0-9a-f]{64}/.test(line))
    .map((line) => line.split(/[\s=;]/)[0] ?? line);
}

/** A locked virtual environment: see `PythonEnvironment` in `index.ts`. */
export const pythonEnvironment: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    path: absolutePath,
    requirements: z.string().min(1),
    // Observed, not chosen: no file has changed since.
    files: z.literal(AS_INSTALLED).default(AS_INSTALLED),
  }),
  identity: ["machine", "path"],
  long: ["requirements"],
  verify({ requirements }, unknown) {
    const unlocked = unknown.has("requirements") ? [] : unlockedRequirements(requirements as string);
    return unlocked.length === 0
      ? []
      : [{ property: "requirements", reason: `needs a version (==) and hashes for: ${unlocked.join(", ")}` }];
  },
  async read(machines, inputs, outputs) {
    const { machine, path } = inputs as PythonEnvironmentInputs;
    const answer = await machines(machine).read({
      library: "python_environment",
      name: "python_environment_read",
      arguments: [path],
    });
    if (answer.exitCode !== 0) throw new Refused(`${machine}: ${path} can't be read: ${answer.output.trim()}`);
    const [digest, requirements] = answer.output.split("\n");
    if (!digest) return undefined;
    const files = digest === outputs.digest ? AS_INSTALLED : "changed since";
    return { inputs: { ...inputs, requirements: decode(requirements ?? ""), files }, outputs };
  },
  async apply(machines, inputs) {
    const { machine, path, requirements } = inputs as PythonEnvironmentInputs;
    const digest = await machines(machine).act({
      library: "python_environment",
      name: "python_environment_apply",
      arguments: [path, encode(requirements)],
    });
    return { digest: digest.trim() };
  },
  async remove(machines, inputs) {
    const { machine, path } = inputs as PythonEnvironmentInputs;
    await machines(machine).act({
      library: "python_environment",
      name: "python_environment_remove",
      arguments: [path],
    });
  },
  id: ({ machine, path }) => `${machine}:${path}`,
};
