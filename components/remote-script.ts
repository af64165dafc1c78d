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
 * runs it again. Another login or another text of the script is no reason to run it again.
 * @throws RunError for an identity file that can't be read
 */
export function runRemotely(name: string, args: RemoteScriptArgs, opts: pulumi.CustomResourceOptions): pulumi.Resource {
  // Loaded here and not above: the SDK takes time, which a stack that doesn't use it would pay at every preview.
  const command: typeof import("@pulumi/command") = require("@pulumi/command");
  const { login } = args;
  return new command.remote.Command(
    name,
    {
      connection: {
        host: login.host,
        port: login.port ?? 22,
        user: login.user,
        hostKey: login.hostKey,
        privateKey:
          login.identityFile === undefined ? undefined : pulumi.secret(readKey(login.identityFile, args.machine)),
        dialErrorLimit: args.attempts,
      },
      create: [...(login.sudo ? ["sudo", "-n"] : []), "bash", "-s", "--", ...args.words].join(" "),
      stdin: readHostFile(args.script),
    },
    // Another operator's key, another way to the machine, another text of the script: none is a reason to run it again.
    { ...opts, replacementTrigger: args.once, ignoreChanges: ["connection", "create", "stdin"] },
  );
}

function readKey(identityFile: string, machine: string): string {
  try {
    return readFileSync(identityFile.replace(/^~(?=\/)/, homedir()), "utf8");
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code;
    throw new pulumi.RunError(
      `${machine}.identityFile: ${identityFile} can't be read (${reason}); must be the path of a private key`,
    );
  }
}
