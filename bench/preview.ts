/** A preview with nothing to say, beside an empty program's and beside Ansible's check mode. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { project } from "../toolchain/paths";
import { Problem, type Progress } from "../toolchain/progress";
import { checkMode } from "./ansible";
import { comparison, inTurns, seconds } from "./figures";
import { benchFolder, mustRun } from "./stack";

const program = 'import * as pulumi from "@pulumi/pulumi";\n\nexport const stack = pulumi.getStack();\n';
/** Compiler options as in Pulumi's template `typescript`. */
const compilerOptions = {
  strict: true,
  outDir: "bin",
  target: "es2020",
  module: "commonjs",
  moduleResolution: "node",
  sourceMap: true,
  experimentalDecorators: true,
  pretty: true,
  noFallthroughCasesInSwitch: true,
  noImplicitReturns: true,
  forceConsistentCasingInFileNames: true,
};

/** Makes an empty program with a stack. Node finds the SDK in the project's own packages, two folders up. */
async function emptyProgram(name: string, options: Record<string, unknown>): Promise<string> {
  const folder = join(benchFolder, name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "Pulumi.yaml"), stringify({ name, runtime: { name: "nodejs", options } }));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name, main: "index.ts" }));
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["index.ts"] }));
  writeFileSync(join(folder, "index.ts"), program);
  const stacks = JSON.parse((await mustRun(name, ["stack", "ls", "--json"], folder)).stdout) as { name: string }[];
  if (!stacks.some((stack) => stack.name.endsWith(name))) {
    await mustRun(name, ["stack", "init", name, "--no-select"], folder);
  }
  await mustRun(name, ["up", "--yes", "--skip-preview"], folder);
  return folder;
}

/** One preview that has to find no change. */
function preview(stack: string, folder: string): Promise<number> {
  return seconds(() => mustRun(stack, ["preview", "--expect-no-changes"], folder));
}

/** Measures; returns a table and figures. */
export async function benchPreview(rounds: number, progress: Progress) {
  const { runtime } = parse(readFileSync(join(project, "Pulumi.yaml"), "utf8"));
  const nodeargs = runtime.options.nodeargs.replace("./", `${project}/`);
  const prepared = await progress.step("preparing an empty program and a playbook", async () => ({
    template: await emptyProgram("empty-template", { packagemanager: "npm" }),
    loader: await emptyProgram("empty-loader", { ...runtime.options, nodeargs }),
    tsx: await emptyProgram("empty-tsx", { typescript: false, nodeargs: "--require tsx/cjs" }),
    ansible: await checkMode(),
  }));
  // The first run of each fills caches of files and connections.
  const { stdout } = await mustRun("lab", ["preview", "--expect-no-changes"]);
  const unchanged = Number(/^\s+(\d+) unchanged$/m.exec(stdout)?.[1]);
  if (!(unchanged > 1)) throw new Problem(`the preview of the lab found no resources:\n${stdout}`);
  await prepared.ansible.run();

  const results = await progress.step(`preview, ${rounds} rounds`, () =>
    inTurns(
      rounds,
      {
        "cht-backup": () => preview("lab", project),
        "empty program, Pulumi's template": () => preview("empty-template", prepared.template),
        "empty program, tsx": () => preview("empty-tsx", prepared.tsx),
        "empty program, our loader": () => preview("empty-loader", prepared.loader),
        "Ansible, check mode": () => seconds(() => prepared.ansible.run()),
      },
      (text) => progress.note(text),
    ),
  );
  const { tasks } = prepared.ansible;
  return {
    rows: comparison("preview without a change", results),
    words: [
      `The preview reads ${unchanged - 1 - 3} resources on two machines in one SSH connection each; components don't count.`,
      `Ansible runs ${tasks} tasks for them (pipelining, kept connections, no facts; packages by dpkg-query).`,
    ],
    figures: { seconds: results, unchanged, tasks },
  };
}
