import type * as pulumi from "@pulumi/pulumi";
import type { Machine } from "../provider/connection";
import { runRemotely } from "./remote-script";

/**
 * Makes the first backup of a repository, once, and shows what it says until it has ended. One that takes longer than
 * 20 minutes goes on by itself: a first upload can take days.
 *
 * @param repositoryId a new repository gets a first backup again
 */
export function makeFirstBackup(
  machine: Machine,
  service: string,
  repositoryId: pulumi.Output<string>,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  const { address, port, user, hostKey, identityFile, sudo } = machine;
  return runRemotely(
    "first-backup",
    {
      login: { host: address, port, user, hostKey, identityFile, sudo },
      machine: "host:machines.cht",
      script: "cht/first_backup.sh",
      words: [service],
      once: repositoryId,
    },
    opts,
  );
}
