import * as pulumi from "@pulumi/pulumi";
import type { StackBucket } from "../config";
import { missedAfter } from "../config/calendar";
import { fileOf } from "../contract";
import * as host from "../provider";
import { searchPath } from "./borg";
import { bucketCredentials } from "./bucket-credentials";
import { readHostFile, renderHostFile } from "./host-files";
import { bucketNames, serverNames } from "./names";
import type { OffsiteServer } from "./offsite-server";

export interface BucketCopyArgs {
  deployment: string;
  /** Where the repository is. */
  server: OffsiteServer;
  /** Directory on the server that holds the repositories of all deployments. */
  dataDirectory: string;
  bucket: StackBucket;
  /** What has to be there before anything is copied. */
  before: pulumi.Resource[];
}

/** How long a copy waits for borg's lock, in seconds. A backup holds it as long as it runs; the next trigger comes. */
const LOCK_WAIT = 600;

/**
 * The third copy: units on the offsite server that copy the repository to a bucket after each backup and check what is
 * there. They run as the account that owns the repository; only root can read the bucket's key. Alarms are raised by the
 * server's own program. Copies in the bucket stay when the stack is destroyed.
 */
export class BucketCopy extends pulumi.ComponentResource {
  constructor(name: string, args: BucketCopyArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:BucketCopy", name, {}, opts);
    const { deployment, bucket } = args;
    const { machine } = args.server;
    const { user, home, repository, snapshot } = serverNames(deployment, args.dataDirectory);
    const { settings, programs, state, ...units } = bucketNames(deployment);
    const [DEPLOYMENT, SERVER_USER, SERVER_HOME, REPOSITORY_PATH] = [deployment, user, home, repository];
    // The account comes first, and packages are installed under one lock.
    const child = { parent: this, dependsOn: [args.server, ...args.before] };

    // The name is of the days when rclone uploaded: it is the resource's in the states of all deployments.
    const packages = new host.Packages("bucket-rclone", { machine, packages: ["python3-venv"] }, child);
    const directory = new host.Directory(
      "bucket-settings-directory",
      { machine, path: settings, mode: "0750", group: user },
      child,
    );
    const inside = { ...child, dependsOn: directory };
    const programDirectory = new host.Directory("bucket-program-directory", { machine, path: programs }, child);
    const environment = new host.PythonEnvironment(
      "bucket-environment",
      { machine, path: `${programs}/venv`, requirements: readHostFile("server/requirements.txt") },
      { ...child, dependsOn: [packages, programDirectory] },
    );
    const needed: pulumi.Resource[] = [
      environment,
      // In it the repository's files are linked: it must be on the repository's file system.
      new host.Directory(
        "bucket-snapshot-directory",
        { machine, path: snapshot, mode: "0700", owner: user, group: user, ownsContents: true },
        child,
      ),
      new host.File(
        "bucket-settings",
        {
          machine,
          path: `${settings}/bucket.json`,
          content: fileOf("bucket", {
            deployment,
            repository,
            snapshot,
            state,
            endpoint: bucket.endpoint,
            region: bucket.region,
            bucket: bucket.name,
            prefix: bucket.prefix,
            pathStyle: bucket.pathStyle,
            // Null: the machine's role.
            credentials: bucket.writer === undefined ? null : `${settings}/credentials`,
            mode: bucket.mode === "compliance" ? "COMPLIANCE" : "GOVERNANCE",
            keepDays: bucket.keepDays,
            lockDays: bucket.lockDays,
            lockWait: LOCK_WAIT,
            leastInterval: bucket.leastIntervalMinutes * 60,
            maxAge: bucket.maxAgeHours,
            uploadRate: bucket.uploadRate,
            storageClass: bucket.storageClass,
            readBack: bucket.readBack,
          }),
        },
        inside,
      ),
    ];

    if (bucket.writer !== undefined) {
      const path = `${settings}/credentials`;
      needed.push(bucketCredentials("bucket-credentials", machine, path, bucket.writer, inside));
    }

    const failure = new host.Unit(
      "bucket-alert-service",
      {
        machine,
        unit: units.failedService,
        content: renderHostFile("server/cht-bucket-failed.service", { DEPLOYMENT }),
      },
      { ...child, dependsOn: needed },
    );
    const after = { ...child, dependsOn: failure };
    const copy = new host.Unit(
      "bucket-copy-service",
      {
        machine,
        unit: units.copyService,
        content: renderHostFile("server/cht-bucket-copy.service", {
          DEPLOYMENT,
          SERVER_USER,
          SERVER_HOME,
          // The server's borg, which the guard takes too.
          SEARCH_PATH: searchPath(serverNames(deployment, args.dataDirectory).programs),
        }),
      },
      after,
    );
    const check = new host.Unit(
      "bucket-check-service",
      {
        machine,
        unit: units.checkService,
        content: renderHostFile("server/cht-bucket-check.service", { DEPLOYMENT, SERVER_USER }),
      },
      after,
    );
    const running = { machine, enabled: true, active: true };
    const RANDOM_DELAY = bucket.randomDelay;
    const triggers = [
      new host.Unit(
        "bucket-copy-path",
        {
          ...running,
          unit: units.copyPath,
          content: renderHostFile("server/cht-bucket-copy.path", { DEPLOYMENT, REPOSITORY_PATH }),
        },
        { ...child, dependsOn: copy },
      ),
      new host.Unit(
        "bucket-copy-timer",
        {
          ...running,
          unit: units.copyTimer,
          content: renderHostFile("server/cht-bucket-copy.timer", {
            DEPLOYMENT,
            SCHEDULE: bucket.schedule,
            RANDOM_DELAY,
            MISSED_AFTER: missedAfter(bucket.schedule, RANDOM_DELAY),
          }),
        },
        { ...child, dependsOn: copy },
      ),
      new host.Unit(
        "bucket-check-timer",
        {
          ...running,
          unit: units.checkTimer,
          content: renderHostFile("server/cht-bucket-check.timer", {
            DEPLOYMENT,
            SCHEDULE: bucket.checkSchedule,
            RANDOM_DELAY,
            MISSED_AFTER: missedAfter(bucket.checkSchedule, RANDOM_DELAY),
          }),
        },
        { ...child, dependsOn: check },
      ),
    ];
    // Last, for it fails where the bucket isn't protected as it should be, which nothing here can change.
    new host.BucketProtection(
      "bucket-protection",
      {
        machine,
        bucket: bucket.name,
        programs,
        program: serverNames(deployment, args.dataDirectory).package,
        settings: `${settings}/bucket.json`,
        mode: bucket.mode.toUpperCase(),
        days: bucket.lockDays,
      },
      { ...child, dependsOn: triggers },
    );
    this.registerOutputs({ bucket: bucket.name, prefix: bucket.prefix, timer: units.copyTimer });
  }
}

/** What an operator should know of the third copy before it is made, in one line; undefined where there is nothing. */
export function bucketWarning(bucket: Pick<StackBucket, "name" | "mode" | "lockDays"> | undefined): string | undefined {
  if (bucket === undefined) {
    return (
      "cht-backup:bucket is none: there is no third copy, and whoever takes over the server can destroy the backups. " +
      "3-2-1 (three copies, on two kinds of storage, one of them elsewhere) isn't met."
    );
  }
  if (bucket.mode === "governance") return undefined;
  return (
    `cht-backup:bucket.mode is compliance, which is final: what is copied to ${bucket.name} can't be deleted, nor its lock ` +
    `shortened, for ${bucket.lockDays} days and longer while copies go on, by anybody, the account's owner included.`
  );
}
