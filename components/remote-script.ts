import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import * as pulumi from "@pulumi/pulumi";
import { readHostFile } from "./host-files";

/** How the Command plugin logs in. It has an SSH of its own: no configuration file, no jump host. */
export interface Login {
  host: pulumi.Input<string>;
  port?: pulumi.Input<number> | undefined;
  user: pulumi.Input<string>;
  /** The host key in OpenSSH's form. Without one any is taken. */
  hostKey?: pulumi.Input<string> | undefined;
  /** Path of a private key. Default: the agent. */
  identityFile?: string | undefined;
  /** Whether to become root with `sudo`. */
  sudo: boolean;
}

export interface RemoteScriptArgs {
  login: Login;
  /** What messages call the machine, for instance `host:machines.cht`. */
  machine: string;
  /** The bash script: a path inside `hosts/`. It may not read its standard input. */
  script: string;
  /** Its arguments, words that a shell takes as they are. */
  words: string[];
  /** The script runs once for each value of this. */
  once: pulumi.Input<string>;
  /** How many attempts to log in may fail, some seconds apart. Default: the plugin's, 10. */
  attempts?: number;
}

/**
 * Runs a script on a machine once, as root, and shows what it prints. A script that fails fails the `up`, and the next one
 * runs it again. Another login or another text of the script is no reason to run it again: then an `up` only logs in.
 * @throws RunError for an identity file that can't be read, or needs a passphrase and isn't in the agent
 */
export function runRemotely(name: string, args: RemoteScriptArgs, opts: pulumi.CustomResourceOptions): pulumi.Resource {
  // Loaded here and not above: the SDK takes time, which a stack that doesn't use it would pay at every preview.
  const command: typeof import("@pulumi/command") = require("@pulumi/command");
  const { login } = args;
  const privateKey = login.identityFile === undefined ? undefined : keyForPlugin(login.identityFile, args.machine);
  return new command.remote.Command(
    name,
    {
      connection: {
        host: login.host,
        port: login.port ?? 22,
        user: login.user,
        hostKey: login.hostKey,
        privateKey: privateKey === undefined ? undefined : pulumi.secret(privateKey),
        dialErrorLimit: args.attempts,
      },
      create: [...(login.sudo ? ["sudo", "-n"] : []), "bash", "-s", "--", ...args.words].join(" "),
      stdin: readHostFile(args.script),
      // Instead of `ignoreChanges`: what it names keeps its old value even where the script runs anew, and that is on a machine
      // that has moved, or by a key that is gone. Without this command an update would run the script.
      update: "true",
      // Else an update sends what the script printed along as environment variables, which sshd refuses.
      addPreviousOutputInEnv: false,
    },
    { ...opts, replacementTrigger: args.once },
  );
}

/** The private key for the plugin; undefined where the agent has it: no key in the state, and no change by another operator. */
function keyForPlugin(identityFile: string, machine: string): string | undefined {
  const path = identityFile.replace(/^~(?=\/)/, homedir());
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code;
    throw new pulumi.RunError(
      `${machine}.identityFile: ${identityFile} can't be read (${reason}); must be the path of a private key`,
    );
  }
  const agent = process.env.SSH_AUTH_SOCK;
  if (agent !== undefined && agent !== "") {
    const { stdout } = spawnSync("ssh-add", ["-L"], { encoding: "utf8", timeout: 5000 });
    if (isOffered(stdout ?? "", text)) return undefined;
  }
  if (!isEncryptedKey(text)) return text;
  throw new pulumi.RunError(
    `${machine}.identityFile: ${identityFile} needs a passphrase, for which the Command plugin can't ask; must be in your ` +
      `ssh agent: \`ssh-add ${identityFile}\`, or leave identityFile out where the agent has the key`,
  );
}

/** Whether a private key, in PEM or OpenSSH's form, is encrypted with a passphrase. */
export function isEncryptedKey(text: string): boolean {
  const cipher = opensshKey(text)?.cipher;
  return cipher === undefined ? /^(-----BEGIN |Proc-Type: .*)ENCRYPTED\b/m.test(text) : cipher !== "none";
}

/**
 * Whether the plugin gets to the agent's copy of a private key. It offers the agent's keys in their order, and sshd hangs up
 * after six. One that isn't in OpenSSH's form doesn't say which public key is its own.
 * @param list what `ssh-add -L` prints
 */
export function isOffered(list: string, text: string): boolean {
  const offered = list.split("\n").slice(0, 5);
  const publicKey = opensshKey(text)?.publicKey;
  return publicKey !== undefined && offered.some((line) => line.split(" ")[1] === publicKey);
}

/** What a private key in OpenSSH's form (PROTOCOL.key) says in clear. */
function opensshKey(text: string): { cipher: string; publicKey: string } | undefined {
  const [, body] = text.match(/-----BEGIN OPENSSH PRIVATE KEY-----([^-]*)-----END/) ?? [];
  if (body === undefined) return undefined;
  const bytes = Buffer.from(body, "base64");
  const magic = "openssh-key-v1\0";
  if (!bytes.toString("latin1").startsWith(magic)) return undefined;
  let at = magic.length;
  const next = () => {
    const start = at + 4;
    at = start + bytes.readUInt32BE(at);
    return bytes.subarray(start, at);
  };
  try {
    const cipher = next().toString("latin1");
    next(); // The key derivation's name,
    next(); // and its options;
    at += 4; // the number of keys, which is always 1.
    return { cipher, publicKey: next().toString("base64") };
  } catch {
    return undefined; // Cut off: the plugin says what it thinks of it.
  }
}
