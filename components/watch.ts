/** What every machine gets that looks each hour whether all is well, and what it looks at there. */

import * as pulumi from "@pulumi/pulumi";
import type { StackBucket, StackSettings } from "../config";
import { longestDays, longestHours } from "../config/calendar";
import { fileOf, type WatchSettings } from "../contract";
import * as host from "../provider";
import { renderHostFile } from "./host-files";
import { bucketNames, chtNames, drillNames, retentionNames, serverNames } from "./names";
import { fingerprintOf } from "./ssh-fingerprint";

/** The part of the settings that this needs. */
type Wanted = Pick<StackSettings, "deployment" | "schedule" | "drill" | "watch" | "server" | "retention">;
type Pings = Pick<StackSettings, "pings">;
type Bucket = Pick<StackBucket, "maxAgeHours" | "schedule" | "checkSchedule"> | undefined;

interface WatchArgs {
  /** Name of the machine in `host:machines`. */
  machine: string;
  /** What the machine does for the deployment. */
  role: WatchSettings["role"];
  /** Begins the names of its resources. */
  prefix: string;
  names: { settings: string; package: string; state: string; watchService: string; watchTimer: string };
  /** `watch.json`. */
  file: pulumi.Input<WatchSettings>;
  deployment: string;
  metricsDirectory: string;
  /** Addresses of a service outside, by what they are called for, a secret. */
  pings: StackSettings["pings"];
  /** What of these is done there. */
  calls: readonly ("backup" | "drill" | "copy" | "retention")[];
  /** What is looked at there. */
  after: pulumi.Resource[];
}

/** A timer and a service that look, on one machine. */
export class Watch extends pulumi.ComponentResource {
  constructor(name: string, args: WatchArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:Watch", name, {}, opts);
    const { machine, role, prefix, names, deployment } = args;
    const child = { parent: this, dependsOn: args.after };
    const file = new host.File(
      `${prefix}-settings`,
      {
        machine,
        path: `${names.settings}/watch.json`,
        content: pulumi.output(args.file).apply((of) => fileOf("watch", of)),
      },
      child,
    );
    // Each machine has those of its own runs, so that whoever takes it over can't keep the others' from being missed.
    const own = args.pings.apply((all) => Object.fromEntries(args.calls.map((of) => [of, all[of]])));
    new host.File(
      `${prefix}-pings`,
      {
        machine,
        path: `${names.settings}/pings.json`,
        mode: "0600",
        content: own.apply((of) => `${JSON.stringify(of)}\n`),
      },
      child,
    );
    const service = new host.Unit(
      `${prefix}-service`,
      {
        machine,
        unit: names.watchService,
        content: renderHostFile("watch/cht-watch.service", {
          DEPLOYMENT: deployment,
          PACKAGE: names.package,
          SETTINGS: names.settings,
          STATE: names.state,
          METRICS: args.metricsDirectory,
          ROLE: role,
        }),
      },
      { ...child, dependsOn: file },
    );
    new host.Unit(
      `${prefix}-timer`,
      {
        machine,
        unit: names.watchTimer,
        content: renderHostFile("watch/cht-watch.timer", { DEPLOYMENT: deployment }),
        enabled: true,
        active: true,
      },
      { ...child, dependsOn: service },
    );
    this.registerOutputs({ timer: names.watchTimer });
  }
}

/** Hours that a run may take, and be late, before its absence is an alarm. */
const [LATE, LEAST] = [4, 26];

/** After how many hours without a backup the alarm is raised. */
export const backupOverdueHours = ({ schedule, watch }: Pick<Wanted, "schedule" | "watch">): number =>
  watch.backupOverdueHours ?? Math.max(LEAST, longestHours(schedule) + LATE);

/** What holds on each machine, before it is said what is there. */
function commonly({ deployment, watch }: Wanted) {
  return {
    deployment,
    repository: null,
    reserve: null,
    reserveBytes: 0,
    bucketState: null,
    drills: false,
    certificate: false,
    server: null,
    backupOverdueHours: null,
    silentHours: null,
    drillLogin: null,
    copyOverdueHours: null,
    checkOverdueHours: null,
    retentionOverdueHours: null,
    quotaBytes: 0,
    drillOverdueDays: null,
    // A later upload takes hours; after a compaction it is a full copy.
    hangingHours: 36,
    diskFullDays: watch.diskFullDays,
    certificateDays: watch.certificateDays,
    remindHours: 24,
    graceMinutes: 30,
    metricsDirectory: watch.metricsDirectory,
  };
}

/** What a machine that drills looks at, for that. */
function drills({ deployment, drill }: Wanted, bucketToo: boolean) {
  const { programs } = chtNames(deployment);
  const names = drillNames(deployment);
  return {
    drills: true,
    drillOverdueDays: drill?.overdueAfterDays ?? null,
    timers: [names.timer, names.overdueTimer],
    services: [names.service],
    environments: bucketToo ? [`${programs}/bucket-venv`] : [],
  };
}

/** What the CHT machine looks at. */
export function chtWatch(settings: Wanted, address: string): WatchSettings {
  const names = chtNames(settings.deployment);
  const here = settings.drill?.machine === "cht";
  const drill = here ? drills(settings, settings.drill?.from !== "server") : undefined;
  return {
    ...commonly(settings),
    ...drill,
    role: "cht",
    state: names.state,
    disk: names.state,
    environments: [`${names.programs}/venv`, ...(drill?.environments ?? [])],
    timers: [names.timer, names.alertLaterPath, ...(drill?.timers ?? [])],
    services: [names.service, ...(drill?.services ?? [])],
    certificate: true,
    server: { address, port: settings.server.port, knownHosts: `${names.settings}/known_hosts` },
    backupOverdueHours: backupOverdueHours(settings),
  };
}

/** Whether a machine of its own drills, and logs in on the server to see whether it may. */
const drillsLogIn = ({ drill }: Pick<Wanted, "drill">) =>
  drill !== undefined && drill.from !== "bucket" && drill.machine !== "cht" && drill.machine !== "server";

/**
 * What the server looks at, with nothing but what came in.
 *
 * @param drillKeys public keys of another machine that drills
 */
export function serverWatch(settings: Wanted, bucket: Bucket, drillKeys: readonly string[]): WatchSettings {
  const { deployment, server, retention, watch } = settings;
  const names = serverNames(deployment, server.dataDirectory);
  const retentionDays = retention.machine === undefined ? watch.retentionDays : longestDays(retention.schedule) + 2;
  const copies = bucketNames(deployment);
  return {
    ...commonly(settings),
    role: "server",
    state: names.state,
    disk: names.home,
    repository: names.repository,
    reserve: names.reserve,
    reserveBytes: server.reserveMebibytes * 1024 * 1024,
    environments: [`${names.programs}/venv`, ...(bucket ? [`${copies.programs}/venv`] : [])],
    timers: [
      ...[names.sealPath, names.auditPath, names.auditTimer, names.alertLaterPath],
      ...(bucket ? [copies.copyPath, copies.copyTimer, copies.checkTimer] : []),
    ],
    services: [names.sealService, names.auditService, ...(bucket ? [copies.copyService, copies.checkService] : [])],
    silentHours: backupOverdueHours(settings) + LATE,
    drillLogin: drillsLogIn(settings) ? { fingerprints: drillKeys.map(fingerprintOf), silentHours: LEAST } : null,
    retentionOverdueHours: retentionDays * 24,
    quotaBytes: server.limits.quotaGibibytes * 1024 ** 3,
    ...(bucket && {
      bucketState: copies.state,
      copyOverdueHours: Math.max(bucket.maxAgeHours, (longestDays(bucket.schedule) + 1) * 24),
      checkOverdueHours: (longestDays(bucket.checkSchedule) + 2) * 24,
    }),
  };
}

/** Whether the machine that drills starts retention, too. */
const startsRetention = ({ drill, retention }: Pick<Wanted, "drill" | "retention">) =>
  drill !== undefined && retention.machine === drill.machine;

/** What another machine that drills looks at. */
export function drillWatch(settings: Wanted, address: string): WatchSettings {
  const names = chtNames(settings.deployment);
  const { from, server } = settings.drill ?? {};
  const drill = drills(settings, from !== "server");
  const retention = startsRetention(settings) ? [retentionNames(settings.deployment)] : [];
  return {
    ...commonly(settings),
    ...drill,
    role: "drill",
    state: names.state,
    disk: names.state,
    environments: [`${names.programs}/venv`, ...drill.environments],
    timers: [names.alertLaterPath, ...drill.timers, ...retention.map(({ timer }) => timer)],
    services: [...drill.services, ...retention.map(({ service }) => service)],
    server:
      server !== undefined && drillsLogIn(settings)
        ? { address, port: server.port, knownHosts: `${names.settings}/known_hosts` }
        : null,
  };
}

/**
 * Every machine looks whether all is well, and tells what isn't.
 *
 * @param address where the CHT machine reaches the server
 * @param drillKeys public keys of another machine that drills
 * @param after everything that is looked at, by the machine that looks
 */
export function watchAll(
  settings: Wanted & Pings,
  bucket: Bucket,
  address: pulumi.Input<string>,
  drillKeys: pulumi.Input<string>[],
  after: { cht: pulumi.Resource[]; server: pulumi.Resource[]; drill: pulumi.Resource[] },
): void {
  const { deployment, drill, server, pings } = settings;
  const common = { deployment, pings, metricsDirectory: settings.watch.metricsDirectory };
  new Watch("cht-watch", {
    machine: "cht",
    role: "cht",
    prefix: "watch",
    names: chtNames(deployment),
    file: pulumi.output(address).apply((of) => chtWatch(settings, of)),
    ...common,
    calls: drill?.machine === "cht" ? ["backup", "drill"] : ["backup"],
    after: after.cht,
  });
  new Watch("server-watch", {
    machine: "server",
    role: "server",
    prefix: "server-watch",
    names: serverNames(deployment, server.dataDirectory),
    file: pulumi.all(drillKeys).apply((keys) => serverWatch(settings, bucket, keys)),
    ...common,
    calls: ["copy"],
    after: after.server,
  });
  if (drill === undefined || drill.machine === "cht") return;
  new Watch("drill-watch", {
    machine: drill.machine,
    role: "drill",
    // Another machine gets new ones.
    prefix: `drill-${drill.machine}-watch`,
    names: chtNames(deployment),
    file: pulumi.output(drill.server.address ?? address).apply((of) => drillWatch(settings, of)),
    ...common,
    calls: startsRetention(settings) ? ["drill", "retention"] : ["drill"],
    after: after.drill,
  });
}
