import * as pulumi from "@pulumi/pulumi";
import type { BackupSettings, Settings } from "../config";
import { missedAfter } from "../config/calendar";
import { fileOf } from "../contract";
import * as host from "../provider";
import type { Machine } from "../provider/connection";
import { searchPath } from "./borg";
import type { BorgRepository } from "./borg-repository";
import { makeFirstBackup } from "./first-backup";
import { renderHostFile } from "./host-files";
import { chtNames } from "./names";
import { type Programs, type ProgramsArgs, programs } from "./programs";

export interface ChtBackupArgs extends Omit<ProgramsArgs, "rename"> {
  /** Where the CHT is on its machine. */
  cht: Settings["cht"];
  /** When and how backups are made. */
  settings: BackupSettings;
  /** Where backups go. */
  repository: BorgRepository;
  /** Directory on the server that holds the repositories of all deployments. */
  dataDirectory: string;
  /** The machine's connection, where the first backup is to be made at once. Default: the schedule starts it. */
  firstBackup?: Machine;
}

/**
 * The backup of a CHT deployment: the programs in a Python environment of their own, what they are to back up and
 * how, a timer, and a unit that raises the alarm when a backup fails.
 */
export class ChtBackup extends pulumi.ComponentResource {
  readonly programs: Programs;

  constructor(name: string, args: ChtBackupArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:ChtBackup", name, {}, opts);
    const { machine, deployment, repository } = args;
    const { settings, service, timer, failedService } = chtNames(deployment);
    const DEPLOYMENT = deployment;
    // One after the other: packages are installed under one lock, and a file needs its directory.
    const child = { parent: this, dependsOn: repository.foundations };

    this.programs = programs(args, child);
    const { environment, package: packageTree, alerts } = this.programs;

    const settingsFile = new host.File(
      "backup-settings",
      {
        machine,
        path: `${settings}/settings.json`,
        content: fileOf("backup", {
          deployment,
          chtHome: args.cht.home,
          composeProject: args.cht.composeProject,
          couchdbData: args.cht.couchdbData,
          // `offsite` is an alias in ssh_config: the server may move without borg taking it for another repository.
          repository: repository.location,
          compression: args.settings.compression,
          // Another chunker makes the next backup store everything once more.
          chunker: args.settings.chunker,
          // KiB a second; 0 is without limit.
          uploadRate: args.settings.uploadRate,
          // Seconds. A copy or a drill may hold the repository for a while.
          lockWait: 600,
          // Seconds. An upload that breaks off loses at most this much.
          checkpointInterval: 300,
        }),
      },
      child,
    );

    const failure = new host.Unit(
      "failure-alert-service",
      { machine, unit: failedService, content: renderHostFile("cht/cht-backup-failed.service", { DEPLOYMENT }) },
      { ...child, dependsOn: [environment, alerts, settingsFile, packageTree] },
    );
    const backup = new host.Unit(
      "nightly-backup-service",
      {
        machine,
        unit: service,
        content: renderHostFile("cht/cht-backup.service", {
          DEPLOYMENT,
          SEARCH_PATH: searchPath(chtNames(deployment).programs),
        }),
      },
      { ...child, dependsOn: [repository, environment, settingsFile, failure, packageTree] },
    );
    const clock = new host.Unit(
      "nightly-backup-timer",
      {
        machine,
        unit: timer,
        content: renderHostFile("cht/cht-backup.timer", {
          DEPLOYMENT,
          SCHEDULE: args.settings.schedule,
          RANDOM_DELAY: args.settings.randomDelay,
          MISSED_AFTER: missedAfter(args.settings.schedule, args.settings.randomDelay),
        }),
        enabled: true,
        active: true,
      },
      { ...child, dependsOn: backup },
    );

    if (args.firstBackup !== undefined) {
      makeFirstBackup(args.firstBackup, deployment, repository.repositoryId, { parent: this, dependsOn: clock });
    }
    this.registerOutputs({ service, timer });
  }
}
