import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import * as pulumi from "@pulumi/pulumi";
import type { Machine } from "../provider/connection";

/**
 * Starts the first backup of a repository, once. It runs on by itself: a first upload can take days.
 *
 * @param repositoryId a new repository gets a first backup again
 */
export function startFirstBackup(
  machine: Machine,
  service: string,
  repositoryId: pulumi.Output<string>,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  // Loaded here and not above: the SDK takes time, which a stack that doesn't use it would pay at every preview.
  const command: typeof import("@pulumi/command") = require("@pulumi/command");
  return new command.remote.Command(
    "first-backup",
    {
      connection: {
        host: machine.address,
        port: machine.port ?? 22,
        user: machine.user,
        hostKey: machine.hostKey,
        privateKey: machine.identityFile === undefined ? undefined : pulumi.secret(readKey(machine.identityFile)),
      },
      create: `${machine.sudo ? "sudo -n " : ""}systemctl start --no-block ${service}`,
      triggers: [repositoryId],
    },
    // Another way to the machine is no reason to back up again.
    { ...opts, ignoreChanges: ["connection"] },
  );
}

function readKey(identityFile: string): string {
  try {
    return readFileSync(identityFile.replace(/^~(?=\/)/, homedir()), "utf8");
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code;
    throw new pulumi.RunError(
      `host:machines.cht.identityFile: ${identityFile} can't be read (${reason}); must be the path of a private key`,
    );
  }
}
