/** The example for AWS with its placeholders filled in, as by an operator. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { project } from "../toolchain/paths";

const values: Record<string, string> = {
  "<the CHT host's address>": "198.51.100.20",
  "<ssh-ed25519 …>": `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI${"A".repeat(43)}`,
  "<your address>": "203.0.113.7",
  "<a name of your own>": "moh-backup-copy",
};

/** The settings of `Pulumi.prod.yaml`, by which server and bucket are made at AWS. */
export function exampleForAws() {
  let text = readFileSync(join(project, "Pulumi.prod.yaml"), "utf8");
  for (const [placeholder, value] of Object.entries(values)) text = text.replaceAll(placeholder, value);
  return parse(text).config;
}
