/** Settings as tests of them give them: right ones to begin with, and what is said of wrong ones. */
import assert from "node:assert/strict";
import * as pulumi from "@pulumi/pulumi";
import { readSettings, type Settings } from "../../../config";

export const machines = {
  cht: { address: "cht.example.org", user: "ubuntu" },
  server: { address: "backup.example.org" },
};

/** A configuration as Pulumi hands it over: every value is a text, a structured one as JSON. */
function configuration(settings: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(
    Object.entries({ "host:machines": machines, "cht-backup:firstBackup": false, ...settings })
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
  );
}

export function read(settings: Record<string, unknown>, secrets: string[] = [], stack = "moh"): Settings {
  return readSettings(configuration(settings), stack, secrets);
}

/** The lines of the error, without the first. */
export function mistakes(settings: Record<string, unknown>, secrets: string[] = [], stack = "moh"): string[] {
  try {
    read(settings, secrets, stack);
  } catch (error) {
    assert.ok(pulumi.RunError.isInstance(error), String(error));
    const [first, ...lines] = (error as Error).message.split("\n  ");
    const count = lines.length === 1 ? "1 mistake" : `${lines.length} mistakes`;
    assert.equal(first, `${count} in the settings of stack ${stack} (docs/settings.md lists them all):`);
    return lines;
  }
  return [];
}

export const hostKey = "AAAAC3NzaC1lZDI1NTE5AAAAIDchlaMSlsqghPIoqQnY3dW3bNcFuEd9egd7VQ/ugsoX";
/** The beginning of a key: its type. */
export const rsaKey = Buffer.from("\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01", "latin1").toString("base64");

export const bucket = {
  name: "moh-backup-copy",
  mode: "governance",
  accessKeyId: "WRITER",
  secretAccessKey: "hunter2+secret/key=",
};

export const operatorKey = `ssh-ed25519 ${hostKey}`;
export const aws = {
  region: "eu-west-1",
  operatorKeys: [operatorKey],
  operatorNetworks: ["203.0.113.7/32"],
  chtNetworks: ["198.51.100.20/32"],
};
/** Settings of a stack that makes its server. */
export const made = (changes: Record<string, unknown>, others: Record<string, unknown> = {}) => ({
  "host:machines": { cht: machines.cht },
  "cht-backup:server": { aws: { ...aws, ...changes } },
  ...others,
});
export const madeBucket = (changes: Record<string, unknown>) => ({
  "cht-backup:bucket": { name: "moh-backup-copy", region: "eu-west-1", mode: "governance", aws: {}, ...changes },
});

/** Wrong settings, each with the one line that it is answered with. */
export type Wrong = [what: string, settings: Record<string, unknown>, line: RegExp, secrets?: string[]];

export function wrongSettings(wrong: Wrong[]): void {
  describe("wrong settings", () => {
    for (const [what, settings, line, secrets] of wrong) {
      it(`${what} is one clear line`, () => {
        const lines = mistakes(settings, secrets);
        assert.equal(lines.length, 1, lines.join("\n"));
        assert.match(lines[0] ?? "", line);
        assert.doesNotMatch(lines[0] ?? "", /hunter2/);
      });
    }
  });
}
