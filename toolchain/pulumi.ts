/**
 * `npm run pulumi -- ARGUMENTS`: the Pulumi CLI that was found, with these arguments.
 *
 * For the stack `lab` (named by `--stack lab`, `-s lab` or PULUMI_STACK) it uses the lab's own state and passphrase
 * in `.lab/`. For any other, or where none is named, the backend, the login and the passphrase are the user's own.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { homedir, hostname, tmpdir } from "node:os";
import { basename, delimiter, dirname, join } from "node:path";
import { awsCredentialProblem } from "../components/aws-credentials";
import { type Result, type RunOptions, run } from "./command";
import { destroys, keptText, withoutOutputs } from "./kept";
import { main } from "./main";
import { credentialAdvice, profileOf, stateInS3 } from "./missing-credential";
import { missingPlugins, pluginAdvice, withEvents } from "./missing-plugin";
import { labFolder, project } from "./paths";
import { plainLines } from "./plain";
import { livingProcess } from "./process";
import { Problem, Progress } from "./progress";
import { type Cli, ensureCli, findCli } from "./pulumi-cli";
import { writeLooked } from "./state-files";
import { bucketAdvice } from "./taken-bucket";

/** The stack that the arguments or the environment name, or undefined. */
export function namedStack(args: readonly string[], env: NodeJS.ProcessEnv): string | undefined {
  for (const [index, arg] of args.entries()) {
    if (arg === "--") break;
    if (arg === "--stack" || arg === "-s") return args[index + 1];
    const match = /^(?:--stack|-s)=(.*)$/.exec(arg) ?? /^-s([^-=].*)$/.exec(arg);
    if (match) return match[1];
  }
  return env.PULUMI_STACK || undefined;
}

/** Options of Pulumi's that npm doesn't know. */
const swallowed = ["stack", "exclude", "refresh", "secret", "secrets-provider", "show-secrets", "skip-preview"];

/**
 * What to say where npm has kept options for itself, as it does without `--` before them: Pulumi would go on without
 * them, perhaps with another stack. Undefined where it has kept none. Pure.
 * @param env npm notes in it what it was given
 */
export function swallowedOptions(args: readonly string[], env: NodeJS.ProcessEnv): string | undefined {
  const names = swallowed.filter((name) => env[`npm_config_${name.replace("-", "_")}`] !== undefined);
  const given = names.filter((name) => !args.some((arg) => arg.split("=")[0] === `--${name}`));
  if (given.length === 0) return undefined;
  const options = given.map((name) => `--${name}`).join(" and ");
  const right = `npm run pulumi -- ${args[0] ?? "preview"} --stack STACK`;
  return `npm has kept ${options} for itself, and nothing was done: it needs \`--\` before Pulumi's arguments, \`${right}\``;
}

/** What the CLI's environment needs on top of this process's, for these arguments. */
export function cliEnvironment(
  stack: string | undefined,
  cli: Cli,
  env: NodeJS.ProcessEnv,
  args: readonly string[],
): NodeJS.ProcessEnv {
  const result: NodeJS.ProcessEnv = {
    ...env,
    PATH: `${cli.folder}${delimiter}${env.PATH ?? ""}`,
    PULUMI_SKIP_UPDATE_CHECK: "true",
    // The look at what is there (`refresh: always`) then goes by today's settings, and not by those that the state has kept:
    // a machine that has moved couldn't be got past. A destroy looks by the state's all the same, and would only need a program
    // that runs.
    PULUMI_RUN_PROGRAM: env.PULUMI_RUN_PROGRAM || String(!destroys(args)),
  };
  if (stack !== "lab") return result;
  // A passphrase of the user's own would be taken before the file.
  delete result.PULUMI_CONFIG_PASSPHRASE;
  return {
    ...result,
    PULUMI_BACKEND_URL: `file://${join(labFolder, "state")}`,
    PULUMI_CONFIG_PASSPHRASE_FILE: join(labFolder, "passphrase"),
    // The lab's stack uses no plugin but the project's own; looking for others' would cost seconds.
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
  };
}

/** A CLI that was killed leaves its lock on the lab's stack behind; it is removed when its process is gone. */
export function removeStaleLocks(state: string = join(labFolder, "state")): void {
  for (const { file, living } of locks(state)) if (!living) rmSync(file, { force: true });
}

function prepare(args: readonly string[], env: NodeJS.ProcessEnv): string | undefined {
  const stack = namedStack(args, env);
  if (stack === "lab") {
    mkdirSync(join(labFolder, "state"), { recursive: true, mode: 0o700 });
    removeStaleLocks();
  }
  return stack;
}

let building: Promise<Cli> | undefined;

/** What asks for the CLI at the same time waits for the same build. */
async function cliOrBuild(): Promise<Cli> {
  const found = await findCli();
  if (found !== undefined) return found;
  building ??= ensureCli(new Progress());
  return building;
}

/**
 * Runs the CLI and captures its output. `env` in the options is the environment to begin with; the lab's settings
 * are put on top when the arguments or that environment name the stack `lab`.
 */
export async function pulumi(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  const env = options.env ?? process.env;
  const cli = await cliOrBuild();
  const stack = prepare(args, env);
  return run(cli.command, args, { cwd: project, ...options, env: cliEnvironment(stack, cli, env, args) });
}

/** Says on standard error what to do about plugins that the CLI, by its events, couldn't get, and a bucket it couldn't make. */
function adviseOnErrors(file: string): void {
  const events = existsSync(file) ? readFileSync(file, "utf8") : "";
  const { dependencies } = JSON.parse(readFileSync(join(project, "package.json"), "utf8"));
  for (const name of missingPlugins(events)) {
    const version = dependencies[`@pulumi/${name}`];
    process.stderr.write(pluginAdvice(name, version, { os: process.platform, arch: process.arch }));
  }
  process.stderr.write(bucketAdvice(events) ?? "");
}

/** The address that the CLI has kept of the last login; undefined where there is none. */
function keptLogin(env: NodeJS.ProcessEnv): string | undefined {
  const folder = env.PULUMI_CREDENTIALS_PATH || env.PULUMI_HOME || join(env.HOME || homedir(), ".pulumi");
  try {
    return JSON.parse(readFileSync(join(folder, "credentials.json"), "utf8")).current;
  } catch {
    return undefined;
  }
}

/** Locks of stacks in a folder of states, with the processes of this computer that made them. */
function locks(state: string): { file: string; stack: string; pid: number; living: boolean }[] {
  const folder = join(state, ".pulumi", "locks");
  let names: string[];
  try {
    names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  } catch {
    return [];
  }
  return names
    .filter((name) => name.endsWith(".json"))
    .flatMap((name) => {
      try {
        const lock = JSON.parse(readFileSync(join(folder, name), "utf8")) as { pid: number; hostname: string };
        if (lock.hostname !== hostname()) return [];
        const living = livingProcess(lock.pid) !== undefined;
        return [{ file: join(folder, name), stack: basename(dirname(name)), pid: lock.pid, living }];
      } catch {
        // Another process has just removed it, or it isn't a lock that this code knows: Pulumi will say so.
        return [];
      }
    });
}

/**
 * What to do about a stack that a run has left locked, in npm's words; undefined where none has.
 * @param stack the stack that the arguments name; undefined: any
 * @param backend where the state is, as the CLI has it
 */
export function lockAdvice(stack: string | undefined, backend: string | undefined): string | undefined {
  const [, path] = /^file:\/\/(.*)$/.exec(backend ?? "") ?? [];
  if (path === undefined) return undefined;
  const bare = stack?.split("/").at(-1);
  const left = locks(path.replace(/^~(?=\/|$)/, homedir())).find(
    (lock) => !lock.living && (bare === undefined || lock.stack === bare),
  );
  if (left === undefined) return undefined;
  return (
    `\nThe stack ${left.stack} is still locked by a run on this computer that was cut off (process ${left.pid}). Unlock it:\n` +
    `  npm run pulumi -- cancel --stack ${left.stack}\n`
  );
}

/** Says on standard error what to do where the state is in S3 and this computer has no credential for it. */
function adviseOnCredential(args: readonly string[], env: NodeJS.ProcessEnv): void {
  const address = stateInS3(args, env, keptLogin(env));
  const problem = address && awsCredentialProblem(profileOf(address), env);
  if (address && problem) process.stderr.write(credentialAdvice(address, problem));
}

/** Whether a command that ended well has compared the machines with the stack. Pure. */
export const compares = (args: readonly string[]) =>
  ["preview", "up", "refresh"].includes(args.find((arg) => !arg.startsWith("-")) ?? "") &&
  !args.some((arg) => arg === "--help" || arg === "-h");

/**
 * Runs the CLI on this process's input and output and returns its exit code. Where it couldn't get a plugin, or has no
 * credential for its state, this says what to do about it; after a `destroy`, what is kept.
 */
export async function pulumiInherited(args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<number> {
  const cli = await cliOrBuild();
  const stack = prepare(args, env);
  const folder = mkdtempSync(join(tmpdir(), "cht-backup-events-"));
  try {
    const events = join(folder, "events.json");
    const shown = withoutOutputs(args);
    const watched = withEvents(shown, events);
    const settled = cliEnvironment(stack, cli, env, args);
    const code = await runInherited(cli.command, watched?.args ?? shown, { ...settled, ...watched?.env });
    if (code === 0) {
      const kept = existsSync(events) ? keptText(readFileSync(events, "utf8")) : undefined;
      if (kept !== undefined) process.stdout.write(plainLines(kept));
      if (stack !== undefined && compares(args)) writeLooked(stack, { at: Math.round(Date.now() / 1000) });
    } else {
      adviseOnErrors(events);
      adviseOnCredential(args, settled);
      const advice = lockAdvice(stack, settled.PULUMI_BACKEND_URL || keptLogin(settled));
      if (advice !== undefined) process.stderr.write(advice);
    }
    return code;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function runInherited(command: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  // A terminal that closes would end the CLI at once, with the stack locked. As a signal that is ignored, it stays so in a
  // program that takes the shell's place.
  const words = ["-c", 'trap "" HUP; exec "$@"', "sh", command, ...args];
  const [program, programArgs] = process.platform === "win32" ? [command, args] : ["sh", words];
  const child = spawn(program, programArgs, { cwd: project, env, stdio: "inherit" });
  // On a terminal Ctrl-C reaches the CLI by itself; a second signal would make it give up at once instead of
  // finishing what it is doing. Elsewhere it is passed on. A terminal that closes is the same wish.
  const passOn = (signal: NodeJS.Signals) => {
    if (signal === "SIGHUP") child.kill("SIGINT");
    else if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  };
  const signals: NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of signals) process.on(signal, passOn);
  try {
    return await new Promise<number>((done, fail) => {
      child.on("error", fail);
      child.on("close", (code, signal) => done(code ?? (signal === "SIGINT" ? 130 : 143)));
    });
  } finally {
    for (const signal of signals) process.off(signal, passOn);
  }
}

if (require.main === module || process.argv[1] === __filename) {
  void main("pulumi", () => {
    const args = process.argv.slice(2);
    const problem = swallowedOptions(args, process.env);
    if (problem !== undefined) throw new Problem(problem);
    return pulumiInherited(args);
  });
}
