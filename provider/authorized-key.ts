import { z } from "zod";
import { accountName, type Inputs, type Kind, machineName, oneLine } from "./resource";
import { encode } from "./shell";

interface AuthorizedKeyInputs extends Inputs {
  user: string;
  publicKey: string;
  command: string;
  restrictions: string;
  otherKeys: string[];
  protection: string;
}

const publicKey = z
  .string()
  .trim()
  .regex(/^(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/=]+( [^\n\r]*)?$/, "must be one public key in OpenSSH's form");

const PROTECTION = "0644 root in 0755 root";

/** A line of authorized_keys, taken apart: the options before the key, and the key with its comment. */
export function parseLine(line: string): { options: string[]; key: string } {
  if (/^(ssh-|ecdsa-|sk-)\S+ /.test(line)) return { options: [], key: line };
  // Blanks and commas inside quotes belong to an option (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
  const before = /^(?:[^" \t]|"(?:\\.|[^"\\])*")+/.exec(line)?.[0] ?? "";
  const options = before.match(/(?:[^,"]|"(?:\\.|[^"\\])*")+/g) ?? [];
  return { options, key: line.slice(before.length).trim() };
}

/** The line that allows a key one command. */
export function formatLine(inputs: { publicKey: string; command: string; restrictions: string }): string {
  const command = inputs.command.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
  return `${inputs.restrictions},command="${command}" ${inputs.publicKey}\n`;
}

type Allowed = Pick<AuthorizedKeyInputs, "publicKey" | "otherKeys" | "command" | "restrictions">;

function sameKey(one: string, other: string): boolean {
  return one.split(" ").slice(0, 2).join(" ") === other.split(" ").slice(0, 2).join(" ");
}

/** What a user's authorized_keys allows, as the inputs that would have made it. */
export function observeKeys(text: string, wanted: Allowed): Allowed {
  const lines = text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  const own = lines.find((line) => sameKey(parseLine(line).key, wanted.publicKey));
  const { key, options } = parseLine(own ?? "");
  const isCommand = (option: string) => option.startsWith("command=");
  const command = options.find(isCommand)?.slice('command="'.length, -1) ?? "";
  // A further key counts only with the limits that it was given; any other line shows as it is.
  const limited = new Map(wanted.otherKeys.map((other) => [formatLine({ ...wanted, publicKey: other }).trim(), other]));
  return {
    publicKey: key || "(removed)",
    command: command.replaceAll('\\"', '"').replaceAll("\\\\", "\\") || "(any)",
    restrictions: options.filter((option) => !isCommand(option)).join(",") || "(none)",
    otherKeys: lines.filter((line) => line !== own).map((line) => limited.get(line) ?? line),
  };
}

/** A user's keys: see `AuthorizedKey` in `index.ts`. */
export const authorizedKey: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    user: accountName,
    publicKey,
    otherKeys: z.array(publicKey).default([]),
    command: oneLine,
    // Observed, not chosen.
    restrictions: z.literal("restrict").default("restrict"),
    protection: z.literal(PROTECTION).default(PROTECTION),
  }),
  identity: ["machine", "user"],
  async read(machines, inputs) {
    const wanted = inputs as AuthorizedKeyInputs;
    const { machine, user } = wanted;
    const answer = await machines(machine).read({
      library: "authorized_key",
      name: "authorized_key_read",
      arguments: [user],
    });
    const [file = "", directory, ...text] = answer.output.split("\n");
    if (file === "") return undefined;
    const observed = observeKeys(text.join("\n"), wanted);
    return { inputs: { ...inputs, ...observed, protection: `${file} in ${directory}` }, outputs: {} };
  },
  async apply(machines, inputs, before) {
    const { machine, user, ...key } = inputs as AuthorizedKeyInputs;
    const lines = [key.publicKey, ...key.otherKeys].map((publicKey) => formatLine({ ...key, publicKey }));
    await machines(machine).act({
      library: "authorized_key",
      name: "authorized_key_apply",
      arguments: [user, encode(lines.join("")), `${before === undefined}`],
    });
    return {};
  },
  async remove(machines, inputs) {
    const { machine, user } = inputs as AuthorizedKeyInputs;
    await machines(machine).act({ library: "authorized_key", name: "authorized_key_remove", arguments: [user] });
  },
  id: ({ machine, user }) => `${machine}:${user}`,
};
