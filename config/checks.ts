/** The mistakes that a schema can't find: they need several settings, the stack or the kind of a value. One line each. */
import type { z } from "zod";
import { machinesSchema } from "../provider/connection";
import { asMapping, core, found, mustBe } from "../provider/mistakes";
import { awsMistakes } from "./aws-checks";
import { bucketSchema } from "./bucket";
import { chtSchema } from "./cht";
import { deploymentRule, isDeployment } from "./deployment";
import { scratchOf } from "./drill";
import { serverSchema } from "./server";

/** The mistakes that a schema can't find: they need several settings, the stack or the kind of a value. */
export function furtherMistakes(given: Record<string, unknown>, stack: string, secret: Set<string>): string[] {
  const lines: string[] = [];
  if (given["cht-backup:deployment"] === undefined && !isDeployment(stack)) {
    lines.push(
      `cht-backup:deployment: missing, and the stack's name ${found(stack).replace("found ", "")} can't stand in; must be ` +
        `${deploymentRule}, for instance moh`,
    );
  }
  lines.push(...machineMistakes(given["host:machines"], asMapping(given["cht-backup:server"])?.aws !== undefined));
  const alerts = given["cht-backup:alerts"];
  if (Array.isArray(alerts) && alerts.length > 0 && !secret.has("cht-backup:alerts")) {
    lines.push(inClear("cht-backup:alerts", "--path 'cht-backup:alerts[0]'"));
  }
  if (given["cht-backup:passphrase"] !== undefined && !secret.has("cht-backup:passphrase")) {
    lines.push(inClear("cht-backup:passphrase", "cht-backup:passphrase"));
  }
  const pings = asMapping(asMapping(given["cht-backup:watch"])?.pings) ?? {};
  if (Object.keys(pings).length > 0 && !secret.has("cht-backup:watch")) {
    lines.push(inClear("cht-backup:watch.pings", `--path 'cht-backup:watch.pings.${Object.keys(pings)[0]}'`));
  }
  lines.push(...bucketMistakes(given, secret), ...awsMistakes(given));
  const directories = (given["cht-backup:cht"] as { couchdbData?: unknown } | undefined)?.couchdbData;
  if (Array.isArray(directories)) {
    directories.forEach((directory, index) => {
      if (directories.indexOf(directory) < index) {
        lines.push(
          `cht-backup:cht.couchdbData[${index}]: ${found(directory)} a second time; must be another directory`,
        );
      }
    });
  }
  lines.push(...drillMistakes(given, stack), ...retentionMistakes(given));
  return lines;
}

/** @param words of `config set`: where the secret goes */
const inClear = (at: string, words: string) =>
  `${at}: found in clear; must be secret, for instance \`npm run pulumi -- config set --secret ${words}\``;

function machineMistakes(given: unknown, makesServer: boolean): string[] {
  const machines = asMapping(given);
  if (machines === undefined) return [];
  const schema = machinesSchema.valueType;
  const lines: string[] = [];
  for (const name of ["cht", "server"]) {
    if (machines[name] !== undefined || (makesServer && name === "server")) continue;
    lines.push(`host:machines.${name}: missing; ${mustBe(schema)}`);
  }
  for (const [name, machine] of Object.entries(machines)) {
    const of = asMapping(machine);
    const { shape } = core(schema) as z.ZodObject;
    // A name that isn't known may be `address` misspelt, and is a mistake already.
    if (of === undefined || !Object.keys(of).every((key) => key in shape)) continue;
    if (of.address !== undefined || (makesServer && name === "server")) continue;
    lines.push(`host:machines.${name}.address: missing; ${mustBe(shape.address as z.ZodType)}`);
  }
  const [one, other] = [machines.cht, machines.server].map((machine) => schema.safeParse(machine).data);
  if (one?.address && one.address === other?.address && (one.port ?? 22) === (other.port ?? 22)) {
    lines.push(
      `host:machines.server.address: ${found(one.address)}, which is the machine cht; must be another machine: ` +
        "whoever takes over or loses the first must not have the backups, too",
    );
  }
  return lines;
}

function drillMistakes(given: Record<string, unknown>, stack: string): string[] {
  const drill = asMapping(given["cht-backup:drill"]) ?? {};
  const makesServer = asMapping(asMapping(given["cht-backup:server"])?.aws) !== undefined;
  const names = [...Object.keys(asMapping(given["host:machines"]) ?? {}), ...(makesServer ? ["server"] : [])];
  const { machine = "cht", scratch } = drill;
  const lines: string[] = [];
  if (typeof machine === "string" && names.length > 0 && machine !== "cht" && !names.includes(machine)) {
    lines.push(
      `cht-backup:drill.machine: ${found(machine)}, which isn't in host:machines; must be one of ${names.join(", ")}`,
    );
  }
  for (const name of ["serverAddress", "serverPort"]) {
    if (machine === "cht" && drill[name] !== undefined) {
      lines.push(
        `cht-backup:drill.${name}: ${found(drill[name])} for the machine cht; must be left out there: the drill goes the ` +
          "backup's way (cht-backup:server)",
      );
    }
  }
  if (drill.enabled !== false && drill.manageDocker !== false && drill.couchdbImage === undefined) {
    if (machine !== "cht" && names.includes(String(machine))) {
      lines.push(
        `cht-backup:drill.couchdbImage: missing for the machine ${machine}; must be the CHT's image with its digest there, ` +
          "or whoever makes the archives chooses what runs on it: `docker image inspect --format '{{.RepoDigests}}' IMAGE` " +
          "shows it on the CHT machine",
      );
    }
  }
  lines.push(...drillFromBucketMistakes(drill, asMapping(given["cht-backup:bucket"])));
  if (typeof scratch !== "string") return lines;
  const own = scratchOf(scratch, String(given["cht-backup:deployment"] ?? stack));
  const inside = (inner: string, outer: string) => `${inner}/`.startsWith(`${outer}/`);
  for (const taken of dataOn(String(machine), given)) {
    if (!inside(own, taken) && !inside(taken, own)) continue;
    lines.push(
      `cht-backup:drill.scratch: ${found(scratch)}, where the drill's own directory would be in ${taken} or hold it; must be ` +
        "elsewhere, for instance /mnt/scratch",
    );
  }
  return lines;
}

function retentionMistakes(given: Record<string, unknown>): string[] {
  const { machine } = asMapping(given["cht-backup:retention"]) ?? {};
  if (typeof machine !== "string") return [];
  const { enabled, machine: drills = "cht" } = asMapping(given["cht-backup:drill"]) ?? {};
  if (machine !== "cht" && enabled !== false && machine === drills) return [];
  const why =
    machine === "cht"
      ? "from which nothing may be removed: who takes it over must not have the backups, too"
      : "which doesn't drill, so that it hasn't the passphrase";
  return [
    `cht-backup:retention.machine: ${found(machine)}, ${why}; must be the machine in cht-backup:drill.machine, other than ` +
      "cht, or be left out",
  ];
}

function drillFromBucketMistakes(
  { enabled, from }: Record<string, unknown>,
  bucket?: Record<string, unknown>,
): string[] {
  if (enabled === false || (from !== "bucket" && from !== "alternating")) return [];
  if (bucket === undefined) {
    return [
      `cht-backup:drill.from: ${found(from)} without a bucket; must be server, or cht-backup:bucket must say where the ` +
        "copies are (docs/bucket.md)",
    ];
  }
  if (bucket.reader !== undefined || bucket.aws !== undefined) return [];
  return [
    `cht-backup:bucket.reader: missing with cht-backup:drill.from ${from}; must be a key for reading alone: the writer's ` +
      "stays on the server",
  ];
}

function bucketMistakes(given: Record<string, unknown>, secret: Set<string>): string[] {
  const bucket = asMapping(given["cht-backup:bucket"]);
  if (bucket === undefined) return [];
  const lines: string[] = [];
  const places = [
    { at: "cht-backup:bucket.secretAccessKey", value: bucket.secretAccessKey },
    { at: "cht-backup:bucket.reader.secretAccessKey", value: asMapping(bucket.reader)?.secretAccessKey },
  ];
  for (const { at, value } of places) {
    if (value === undefined || secret.has("cht-backup:bucket")) continue;
    lines.push(inClear(at, `--path '${at}'`));
  }
  for (const name of ["accessKeyId", "secretAccessKey"] as const) {
    if (bucket[name] !== undefined || asMapping(bucket.aws) !== undefined) continue;
    lines.push(`cht-backup:bucket.${name}: missing; ${mustBe(bucketSchema.unwrap().shape[name])}`);
  }
  const { keepDays, lockDays, leastIntervalMinutes, maxAgeHours } = bucketSchema.unwrap().shape;
  const [keep, lock] = [keepDays.safeParse(bucket.keepDays).data, lockDays.safeParse(bucket.lockDays).data];
  if (keep !== undefined && lock !== undefined && lock <= keep) {
    lines.push(
      `cht-backup:bucket.lockDays: ${found(lock)} with keepDays ${keep}; must be more: locks are lengthened in the days between`,
    );
  }
  const minutes = leastIntervalMinutes.safeParse(bucket.leastIntervalMinutes).data;
  const hours = maxAgeHours.safeParse(bucket.maxAgeHours).data;
  if (minutes !== undefined && hours !== undefined && minutes >= hours * 60) {
    lines.push(
      `cht-backup:bucket.leastIntervalMinutes: ${found(minutes)} with maxAgeHours ${hours}; must be less than these ` +
        "hours, or a copy that waits raises the alarm",
    );
  }
  return lines;
}

/** Directories with data that the settings name on a machine. */
function dataOn(machine: string, given: Record<string, unknown>): string[] {
  if (machine === "server")
    return [serverSchema.safeParse(given["cht-backup:server"]).data?.dataDirectory ?? []].flat();
  const { home, couchdbData } = chtSchema.safeParse(given["cht-backup:cht"]).data ?? { home: [], couchdbData: [] };
  return machine === "cht" ? [home, ...couchdbData].flat() : [];
}
