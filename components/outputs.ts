/** Texts for the operator, among the stack's outputs. Pure. */
import * as pulumi from "@pulumi/pulumi";
import type { StackBucket } from "../config";
import { type Machine, sshCommandLine } from "../provider/connection";
import { borgByHand } from "./borg";
import { bucketNames, chtNames, serverNames } from "./names";

/** The three commands to know, ready to paste. */
export function commandsToKnow(deployment: string, cht: Machine): Record<string, string> {
  const names = chtNames(deployment);
  return {
    backUpNow: sshCommandLine(cht, `systemctl start ${names.service}`),
    lastRun: sshCommandLine(cht, `journalctl --unit ${names.service} --lines 50`),
    listArchives: sshCommandLine(cht, `${borgByHand(names.package)} list`),
  };
}

/**
 * What `pulumi destroy` leaves, and where.
 * @param drillMachine the machine that drills, where it isn't the CHT machine
 * @param bucket the bucket, where there is one
 * @param volumeId the data volume of a server that the stack makes, which takes nothing else with it
 */
export function keptByDestroy(
  deployment: string,
  dataDirectory: string,
  drillMachine: string | undefined,
  bucket: Pick<StackBucket, "name" | "prefix" | "aws"> | undefined,
  volumeId: pulumi.Output<string> | undefined,
): Record<string, pulumi.Input<string>> {
  const { user, repository, state: ledger } = serverNames(deployment, dataDirectory);
  const { settings, state } = chtNames(deployment);
  return {
    ...(volumeId && {
      volume: pulumi.interpolate`AWS: the data volume ${volumeId}, with what is said of the server below, for cht-backup:server.aws.volumeId`,
    }),
    repository: `server: ${repository}, with all archives`,
    ledger: `server: ${ledger}, the ledger of archives and what the audit found`,
    account: `server: user ${user}, the owner of the repository; without a key nobody logs in as it`,
    passphrase: `cht: ${settings}/passphrase; without it and the repository's key, both in the recovery kit, no archive can be read`,
    state: `cht: ${state}, borg's cache, the report of the last backup and those of drills`,
    packages: "cht and server: borgbackup and python3-venv, which others may use",
    ...(drillMachine === undefined
      ? {}
      : {
          drills: `${drillMachine}: ${state}, reports of drills and borg's cache; borgbackup, python3-venv and Docker`,
        }),
    ...(bucket === undefined
      ? {}
      : {
          bucket:
            `${bucket.name}/${bucket.prefix}, with all copies; locks aren't lengthened any more, so they end` +
            (bucket.aws === undefined
              ? ""
              : "; the recovery kit's key still reads it, and cht-backup:bucket.aws.adopt takes it again"),
          copies: `server: ${bucketNames(deployment).state}, reports of copies; python3-venv`,
        }),
  };
}
