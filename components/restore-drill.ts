import * as pulumi from "@pulumi/pulumi";
import type { AccessKey, Drill, StackBucket } from "../config";
import { missedAfter } from "../config-formats";
import * as host from "../provider";
import { bucketCredentials, type Programs, scriptFile } from "./archive-client";
import { searchPath } from "./borg";
import type { BorgRepository } from "./borg-repository";
import type { DrillMachine } from "./drill-machine";
import { readHostFile, renderHostFile } from "./host-files";
import { chtNames, drillNames } from "./names";

export interface RestoreDrillArgs extends Omit<Drill, "server"> {
  deployment: string;
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
    const { machine, deployment, repository, other, scratch, bucket } = args;
    const { settings, programs, state } = chtNames(deployment);
    const names = drillNames(deployment);
    const DEPLOYMENT = deployment;
    const child = { parent: this };
    if (args.from !== "server" && bucket === undefined) {
      throw new pulumi.RunError(`cht-backup:drill.from is ${args.from}, and there is no key for reading the bucket`);
    }
    const inside = { ...child, dependsOn: other?.directory ?? repository.foundations };
    const needed: pulumi.Input<pulumi.Resource>[] = [
      args.programs.environment,
      args.programs.alerts,
      ...args.programs.scripts,
    ];

    const scripts = {
      restore: ["confined", "couch_server", "restore", "verify"],
      drill: ["compose_text", "drill", "ledger", "reading", "reports"],
    };
    for (const [folder, files] of Object.entries(scripts)) {
      for (const file of files) needed.push(this.script(file.replace("_", "-"), `${folder}/${file}.py`, args));
    }
    const drillSettings = {
      deployment,
      repository: repository.location,
      scratch,
      scratchGibibytes: args.scratchGibibytes,
      keep: args.keep,
      overdueAfterDays: args.overdueAfterDays,
      network: names.network,
      image: args.couchdbImage ?? null,
      // Elsewhere than on the CHT machine an archive doesn't choose what is fetched and run.
      pull: machine === "cht" || args.couchdbImage !== undefined,
      memoryMebibytes: args.memoryMebibytes,
      cpus: args.cpus,
    };
    const lines = (value: object) => `${JSON.stringify(value, null, 2)}\n`;
    let content: pulumi.Input<string> = lines(drillSettings);
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
        lines({ ...drillSettings, from: args.from, bucket: settingsOf(id) }),
      );
      for (const [script, file] of Object.entries({
        bucket: "server/bucket.py",
        "bucket-fetch": "restore/bucket_fetch.py",
        "bucket-source": "drill/bucket_source.py",
      })) {
        needed.push(this.script(script, file, args));
      }
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
    if (args.docker !== undefined) {
      // Loaded here and not above: it takes time, which a stack that doesn't use it would pay at every preview.
      const { keepDocker }: typeof import("./drill-docker") = require("./drill-docker");
      needed.push(...keepDocker(machine, args.docker, names.network, args.couchdbImage, other?.engine, child));
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
          SCHEDULE: args.schedule,
          RANDOM_DELAY: args.randomDelay,
          MISSED_AFTER: missedAfter(args.schedule, args.randomDelay),
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
    this.registerOutputs({});
  }

  private script(name: string, file: string, args: RestoreDrillArgs): pulumi.Resource {
    return scriptFile(`script-${name}`, file, args, { parent: this, dependsOn: args.programs.directory });
  }
}
