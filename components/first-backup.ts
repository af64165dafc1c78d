import type * as pulumi from "@pulumi/pulumi";
import type { Machine } from "../provider/connection";
import { borgByHand } from "./borg";
import { chtNames } from "./names";
import { runRemotely } from "./remote-script";

/**
 * Makes the first backup of a repository, once, and shows what it says until it has ended. One that takes longer than
 * 20 minutes goes on by itself: a first upload can take days.
 *
 * @param repositoryId a new repository gets a first backup again
 */
export function makeFirstBackup(
  machine: Machine,
  deployment: string,
  repositoryId: pulumi.Output<string>,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  const names = chtNames(deployment);
  return runRemotely(
    "first-backup",
    {
      order: {
        name: "cht",
        machine,
        words: [names.service, "1200", `${names.state}/last-backup.json`, `${borgByHand(names.package)} list --json`],
      },
      script: "cht/first_backup.sh",
      once: repositoryId,
    },
    opts,
  );
}
