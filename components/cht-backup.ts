import * as pulumi from "@pulumi/pulumi";
import { missedAfter } from "../config-formats";
import * as host from "../provider";
import type { Machine } from "../provider/connection";
import { type Programs, type ProgramsArgs, programs } from "./archive-client";
import { searchPath } from "./borg";
import type { BorgRepository } from "./borg-repository";
import { makeFirstBackup } from "./first-backup";
import { renderHostFile } from "./host-files";
import { chtNames, serverNames } from "./names";

export interface ChtBackupArgs extends Omit<ProgramsArgs, "rename"> {
  /** Where backups go. */
  repository: BorgRepository;
  /** Directory on the server that holds the repositories of all deployments. */
  dataDirectory: string;
  /** The directory that holds `compose/` and `upgrade-service/`. */
  home: string;
  /** Name of the CHT's project in Docker Compose. */
  composeProject: string;
  /** CouchDB's data directories; none: what `upgrade-service/.env` names. */
  couchdbData: string[];
  /** A calendar expression of systemd.time(7). */
  schedule: string;
  /** A time span of systemd.time(7). */
  randomDelay: string;
  /** As borg's `--compression` takes it. */
  compression: string;
  /** As borg's `--chunker-params` takes it. */
  chunker: string;
  /** KiB a second; 0 is no limit. */
  uploadRate: number;
  /** The machine's connection, where the first backup is to be made at once. Default: the schedule starts it. */
  firstBackup?: Machine;
}

/**
 * The nightly backup of a CHT deployment: borgmatic in a Python environment of its own, a script that collects
 * what lives in Docker, a timer, and a unit that raises the alarm when a backup fails.
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
    const { environment, scripts, alerts } = this.programs;

    const settingsFile = new host.File(
      "backup-settings",
      {
        machine,
        path: `${settings}/settings.json`,
        content: `${JSON.stringify(
          {
            deployment,
            chtHome: args.home,
            composeProject: args.composeProject,
            couchdbData: args.couchdbData,
            repository: repository.location,
          },
          null,
          2,
        )}\n`,
      },
      child,
    );
    const borgmatic = new host.File(
      "borgmatic-configuration",
      {
        machine,
        path: `${settings}/borgmatic.yaml`,
        content: renderHostFile("cht/borgmatic.yaml", {
          DEPLOYMENT,
          REPOSITORY_PATH: serverNames(deployment, args.dataDirectory).repository,
          COMPRESSION: args.compression,
          CHUNKER: args.chunker,
          UPLOAD_RATE: args.uploadRate,
        }),
      },
      child,
    );

    const failure = new host.Unit(
      "failure-alert-service",
      { machine, unit: failedService, content: renderHostFile("cht/cht-backup-failed.service", { DEPLOYMENT }) },
      { ...child, dependsOn: [environment, alerts, settingsFile, ...scripts] },
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
      { ...child, dependsOn: [repository, environment, settingsFile, borgmatic, failure, ...scripts] },
    );
    const clock = new host.Unit(
      "nightly-backup-timer",
      {
        machine,
        unit: timer,
        content: renderHostFile("cht/cht-backup.timer", {
          DEPLOYMENT,
          SCHEDULE: args.schedule,
          RANDOM_DELAY: args.randomDelay,
          MISSED_AFTER: missedAfter(args.schedule, args.randomDelay),
        }),
        enabled: true,
        active: true,
      },
      { ...child, dependsOn: backup },
    );

    if (args.firstBackup !== undefined) {
      makeFirstBackup(args.firstBackup, deployment, repository.repositoryId, { parent: this, dependsOn: clock });
    }
    this.registerOutputs({});
  }
}
