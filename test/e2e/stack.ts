/** The lab's stack, as an operator drives it: `npm run pulumi -- … --stack lab`. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { stackFile } from "../../lab/stack";
import { type Result, run } from "../../toolchain/command";
import { pulumi } from "../../toolchain/pulumi";
import { type Change, changesOf } from "./preview";

/** Runs the CLI on the stack `lab` and returns whatever comes of it. */
export function labStack(...args: string[]): Promise<Result> {
  return pulumi([...args, "--stack", "lab", "--color", "never"]);
}

/** A command that must succeed. @returns its output */
export async function mustSucceed(...args: string[]): Promise<string> {
  const result = await labStack(...args);
  assert.equal(result.code, 0, result.stdout + result.stderr);
  return result.stdout;
}

/** What a plain preview announces. */
export async function previewChanges(): Promise<Change[]> {
  return changesOf(await mustSucceed("preview", "--json"));
}

/** An `up` that must succeed. @returns its output */
export function up(): Promise<string> {
  return mustSucceed("up", "--yes", "--skip-preview");
}

/** Connections of our plugin to this lab's machines, which are no other lab's. */
export async function connections(): Promise<string[]> {
  const { stdout } = await run("ps", ["-eww", "-o", "args"]);
  const machines = Object.values(parse(readFileSync(stackFile, "utf8")).config["host:machines"]);
  const addresses = (machines as { address: string }[]).map(({ address }) => address);
  const ours = (words: string[]) => addresses.some((address) => words.includes(address));
  return stdout.split("\n").filter((line) => line.includes("/host-ssh-") && ours(line.split(" ")));
}

/** Asserts what a pipeline would: nothing has drifted. */
export async function assertNoDrift(): Promise<void> {
  const result = await labStack("preview", "--expect-no-changes");
  assert.equal(result.code, 0, result.stdout + result.stderr);
}
