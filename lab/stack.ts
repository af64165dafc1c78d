/** The lab's stack: its passphrase, its settings and its deployment. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { labFolder, project } from "../toolchain/paths";
import { Problem } from "../toolchain/progress";
import { pulumi } from "../toolchain/pulumi";
import { identityFile, type Reached } from "./boot";
import { bucketSecrets, bucketSettings } from "./bucket";
import { canDrill } from "./images";
import type { Machine } from "./machines";
import { labSettings, mergeSettings, missingBucketSecrets } from "./settings";

/** The file that Pulumi reads the passphrase of the stack's secrets from. */
export const passphraseFile = join(labFolder, "passphrase");
export const stackFile = join(project, "Pulumi.lab.yaml");

/** Writes a file so that it is there whole or not at all. */
function writeWhole(path: string, text: string, mode: number): void {
  writeFileSync(`${path}.new`, text, { mode });
  renameSync(`${path}.new`, path);
}

/** Makes the passphrase where it is missing. Says whether it did. */
export function ensurePassphrase(): boolean {
  if (existsSync(passphraseFile)) return false;
  mkdirSync(labFolder, { recursive: true, mode: 0o700 });
  writeWhole(passphraseFile, randomBytes(24).toString("base64url"), 0o600);
  return true;
}

/** Writes the stack file where it doesn't say what is so. */
export function writeSettings(machines: Record<Machine, Reached>): void {
  // Relative to the project, so that the file means the same wherever the project is.
  merge(labSettings(machines, identityFile.slice(project.length + 1), canDrill()), ensurePassphrase());
}

/** Tells the stack, which must be there, of the bucket. Its secrets are set once, by Pulumi, which encrypts them. */
export async function writeBucketSettings(): Promise<void> {
  const missing = missingBucketSecrets(readFileSync(stackFile, "utf8"));
  const secrets = bucketSecrets();
  for (const { path, of } of missing) {
    // The value goes by standard input: arguments are for everybody to see.
    const set = ["config", "set", "--stack", "lab", "--secret", "--path", path];
    const result = await pulumi(set, { stdin: secrets[of] });
    if (result.code !== 0) throw new Problem(`pulumi config set failed: ${result.stderr.trim()}`);
  }
  merge({ "cht-backup:bucket": bucketSettings }, false);
}

function merge(settings: Record<string, unknown>, newPassphrase: boolean): void {
  const text = existsSync(stackFile) ? readFileSync(stackFile, "utf8") : "";
  const merged = mergeSettings(text, settings, newPassphrase);
  if (merged !== text) writeWhole(stackFile, merged, 0o644);
}
