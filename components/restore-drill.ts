import * as pulumi from "@pulumi/pulumi";
import type { AccessKey, Drill, StackBucket } from "../config";
import { missedAfter } from "../config/calendar";
import { fileOf } from "../contract";
import * as host from "../provider";
import { searchPath } from "./borg";
import type { BorgRepository } from "./borg-repository";
import { bucketCredentials } from "./bucket-credentials";
import type { DrillMachine } from "./drill-machine";
import { readHostFile, renderHostFile } from "./host-files";
import { chtNames, drillNames } from "./names";
import type { Programs } from "./programs";

export interface RestoreDrillArgs {
  deployment: string;
  settings: Drill;
  /** Whose archives are restored. */
  repository: BorgRepository;
  /** The machine where it isn't the CHT machine. */
  other?: DrillMachine;
  /** What runs on the machine: its own, or the backup's. */
  programs: Programs;
  /** Where drills take the repository from, at least every second one; undefined: from the server alone. */
  bucket: DrillBucket | undefined;
}

export interface DrillBucket {
  place: Omit<StackBucket, "writer" | "reader" | "readerKey">;
  /** The key for reading, a secret. */
  reader: pulumi.Output<AccessKey>;
}

/**
 * How many hours old the newest copy may be, seen from elsewhere than the server: a day more than the server itself
 * allows while it knows of something new to copy. From elsewhere it can't be seen whether there is, but a backup that
 * comes daily always brings something.
 */
export const oldestCopy = (maxAgeHours: number) => maxAgeHours + 24;

/**
 * The drill: a timer that restores the newest archive into a scratch directory, proves it and reports; another that
 * raises the alarm when none has succeeded for too long; a unit that tidies up at boot after one that was cut off.
 */
export class RestoreDrill extends pulumi.ComponentResource {
  constructor(name: string, args: RestoreDrillArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:RestoreDrill", name, {}, opts);
    const { deployment, repository, other, bucket } = args;
    // The drill's program reads the rest as it is: a new setting of its own needs no word here.
    const { machine, from, schedule, randomDelay, docker, couchdbImage, server, ...read } = args.settings;
    const { scratch } = read;
    const { settings, programs, state } = chtNames(deployment);
    const names = drillNames(deployment);
    const DEPLOYMENT = deployment;
    const child = { parent: this };
    if (from !== "server" && bucket === undefined) {
      throw new pulumi.RunError(`cht-backup:drill.from is ${from}, and there is no key for reading the bucket`);
    }
    const inside = { ...child, dependsOn: other?.directory ?? repository.foundations };
    const needed: pulumi.Input<pulumi.Resource>[] = [
      args.programs.environment,
      args.programs.alerts,
      args.programs.package,
    ];

    const drillSettings = {
      deployment,
      repository: repository.location,
      ...read,
      network: names.network,
      image: couchdbImage ?? null,
      // Elsewhere than on the CHT machine an archive doesn't choose what is fetched and run.
      pull: machine === "cht" || couchdbImage !== undefined,
    };
    let content: pulumi.Input<string> = fileOf("drill", drillSettings);
    if (bucket !== undefined) {
      const { place } = bucket;
      const [credentials, environment] = [`${settings}/bucket-credentials`, `${programs}/bucket-venv`];
      const settingsOf = (repositoryId: string) => ({
        bucket: place.name,
        prefix: place.prefix,
        region: place.region,
        endpoint: place.endpoint,
        pathStyle: place.pathStyle,
        credentials,
        repositories: [repositoryId],
        maxAgeHours: oldestCopy(place.maxAgeHours),
        python: `${environment}/bin/python`,
      });
      content = repository.repositoryId.apply((id) =>
        fileOf("drill", { ...drillSettings, from, bucket: settingsOf(id) }),
      );
      needed.push(
        new host.PythonEnvironment(
          `drill-${machine}-bucket-environment`,
          { machine, path: environment, requirements: readHostFile("server/requirements.txt") },
          { ...child, dependsOn: args.programs.environment },
        ),
        bucketCredentials(`drill-${machine}-bucket-credentials`, machine, credentials, bucket.reader, inside),
      );
    }
    needed.push(new host.File("drill-settings", { machine, path: `${settings}/drill.json`, content }, inside));
    // Below the state directory the drill makes it itself.
    if (!scratch.startsWith(`${state}/`)) {
      needed.push(new host.Directory("drill-scratch-directory", { machine, path: scratch, mode: "0700" }, child));
    }
    if (other !== undefined) {
      needed.push(
        other.compose,
        new host.File(
          `drill-${machine}-passphrase`,
          {
            machine,
            path: `${settings}/passphrase`,
            mode: "0600",
            content: pulumi.secret(pulumi.interpolate`${repository.passphrase}\n`),
          },
          inside,
        ),
      );
    }
    if (docker !== undefined) {
      // Loaded here and not above: it takes time, which a stack that doesn't use it would pay at every preview.
      const { keepDocker }: typeof import("./drill-docker") = require("./drill-docker");
      needed.push(...keepDocker(machine, docker, names.network, couchdbImage, other?.engine, child));
    }

    const failure = new host.Unit(
      "drill-alert-service",
      { machine, unit: names.failedService, content: renderHostFile("drill/cht-drill-failed.service", { DEPLOYMENT }) },
      { ...child, dependsOn: needed },
    );
    const after = { ...child, dependsOn: failure };
    new host.Unit(
      "drill-cleanup-service",
      {
        machine,
        unit: names.cleanupService,
        content: renderHostFile("drill/cht-drill-cleanup.service", { DEPLOYMENT, SCRATCH: scratch }),
        enabled: true,
      },
      after,
    );
    const drill = new host.Unit(
      "drill-service",
      {
        machine,
        unit: names.service,
        content: renderHostFile("drill/cht-drill.service", {
          DEPLOYMENT,
          SCRATCH: scratch,
          SEARCH_PATH: searchPath(programs),
        }),
      },
      after,
    );
    new host.Unit(
      "drill-timer",
      {
        machine,
        unit: names.timer,
        content: renderHostFile("drill/cht-drill.timer", {
          DEPLOYMENT,
          SCHEDULE: schedule,
          RANDOM_DELAY: randomDelay,
          MISSED_AFTER: missedAfter(schedule, randomDelay),
        }),
        enabled: true,
        active: true,
      },
      { ...child, dependsOn: drill },
    );
    const overdue = new host.Unit(
      "drill-overdue-service",
      {
        machine,
        unit: names.overdueService,
        content: renderHostFile("drill/cht-drill-overdue.service", {
          DEPLOYMENT,
          // It asks the bucket, where drills do.
          PRIVATE_NETWORK: bucket === undefined ? "yes" : "no",
          ADDRESS_FAMILIES: bucket === undefined ? "AF_UNIX" : "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        }),
      },
      after,
    );
    new host.Unit(
      "drill-overdue-timer",
      {
        machine,
        unit: names.overdueTimer,
        content: renderHostFile("drill/cht-drill-overdue.timer", { DEPLOYMENT }),
        enabled: true,
        active: true,
      },
      { ...child, dependsOn: overdue },
    );
    this.registerOutputs({ machine, timer: names.timer, reports: names.reports });
  }
}
