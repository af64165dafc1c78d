/** What the scripts of `hosts/` need beside them. */
import { readdirSync } from "node:fs";
import { basename, join } from "node:path";

const scripts = readdirSync(join(__dirname, "..", "..", "hosts"), { recursive: true, encoding: "utf8" });

/** The scripts, by their file names, that a script imports when it begins. */
export function importsOf(script: string): string[] {
  const names = new Set(scripts.map((file) => basename(file)));
  return [...script.matchAll(/^(?:import|from) (\w+)/gm)]
    .map(([, name]) => `${name}.py`)
    .filter((name) => names.has(name));
}
