/** The lab's stack: its passphrase, its settings and its deployment. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { labFolder, project } from "../toolchain/paths";
import { identityFile, type Reached } from "./boot";
import type { Machine } from "./machines";
import { labSettings, mergeSettings } from "./settings";

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

/** Writes the stack file where it doesn't say what is so. Says whether it did. */
export function writeSettings(machines: Record<Machine, Reached>): boolean {
  const newPassphrase = ensurePassphrase();
  const text = existsSync(stackFile) ? readFileSync(stackFile, "utf8") : "";
  // Relative to the project, so that the file means the same wherever the project is.
  const settings = labSettings(machines, identityFile.slice(project.length + 1));
  const merged = mergeSettings(text, settings, newPassphrase);
  if (merged === text) return false;
  writeWhole(stackFile, merged, 0o644);
  return true;
}
