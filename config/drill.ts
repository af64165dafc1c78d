/** `cht-backup:drill`: where, when and with what restores are rehearsed. */
import { z } from "zod";
import { chtNames } from "../components/names";
import { hasAddress, hostPattern, type Machine } from "../provider/connection";
import { isCalendar, isTimeSpan } from "./calendar";
import { isPath, isPinnedImage, pathRule } from "./formats";
import type { Machines } from "./machines";
import type { Server } from "./server";

export const drillSchema = z
  .strictObject({
    enabled: z
      .boolean()
      .default(true)
      .meta({
        description:
          "Whether restores are rehearsed. Without drills nothing proves that the backups can be restored, and " +
          "every `preview` and `up` says so.",
        allowed: "true or false",
        example: "false",
      }),
    machine: z
      .string()
      .default("cht")
      .meta({
        description:
          "Where: the machine that is trusted with the passphrase, and has room for one copy of everything. `cht` " +
          "has the passphrase already, so nobody new learns it; the drill takes disk and some processor time from " +
          "the CHT, and ends with that machine. `server` saves the network, but whoever takes over the server can " +
          "then read the archives. A third machine in `host:machines` shows that the archives open elsewhere, and is " +
          "one more to trust and to look after. One that isn't `cht` gets the passphrase (mode 0600), a key of its " +
          "own that may append and read, borg, Docker and the scripts; where it no longer drills, key and passphrase " +
          "are removed.",
        allowed: "the name of a machine in `host:machines`",
        example: "server",
      }),
    from: z
      .enum(["server", "bucket", "alternating"])
      .default("server")
      .meta({
        description:
          "Where a drill takes the repository from. `bucket`: the newest copy is fetched whole, compared with its " +
          "checksums and opened, and the server isn't asked, so that the third copy is proven, too. A copy that isn't " +
          "in order, is older than `cht-backup:bucket.maxAgeHours` and a day, or holds no archive younger than that, " +
          "makes the drill fail, and between the drills it is looked at every day: that alarm comes even from a server " +
          "that somebody has taken over. The machine gets the key for reading (`cht-backup:bucket.reader`, mode 0600); " +
          "one that isn't `cht` gets no key of the server's then. It takes scratch space for the repository, too, and " +
          "most providers charge for what leaves the bucket. `alternating`: every second drill.",
        allowed:
          "`server`, `bucket` or `alternating`; the others than `server` with `cht-backup:bucket` and its `reader`",
        example: "bucket",
      }),
    schedule: z
      .string()
      .refine(isCalendar)
      .default("Sun *-*-* 10:00:00")
      .meta({
        description:
          "When drills start, in that machine's time zone unless another one is added. A backup that starts " +
          "meanwhile waits, for ten minutes at most: keep the two apart.",
        allowed: "a calendar expression of systemd.time(7)",
        example: "Sat 12:00",
      }),
    randomDelay: z.string().refine(isTimeSpan).default("1h").meta({
      description: "How much later than scheduled a drill may start.",
      allowed: "a time span of systemd.time(7) with its unit, or 0",
      example: "10min",
    }),
    overdueAfterDays: z
      .int()
      .min(1)
      .max(3650)
      .default(9)
      .meta({
        description:
          "After how many days without a drill that succeeded the alarm is raised, every day anew. It must be more " +
          "than there are from one drill to the next.",
        allowed: "a whole number of days from 1 to 3650",
        example: "35",
      }),
    keep: z.int().min(1).max(1000).default(12).meta({
      description: "How many reports are kept.",
      allowed: "a whole number from 1 to 1000",
      example: "52",
    }),
    scratch: z
      .string()
      .refine((text) => isPath(text) && text.lastIndexOf("/") > 0 && !/^\/(var\/)?tmp\//.test(text))
      .optional()
      .meta({
        description:
          "Where the drill has a directory of its own (`cht-backup-DEPLOYMENT`, mode 0700) that archives are extracted " +
          "to. It needs room for one copy of everything. Owner and mode of what is there already stay as they are.",
        allowed: `${pathRule}, not directly below \`/\`, nor below \`/tmp\` or \`/var/tmp\``,
        example: "/mnt/scratch",
        fallback: "`/var/lib/cht-backup/DEPLOYMENT/drill`",
      }),
    scratchGibibytes: z.int().min(0).max(1_048_576).default(0).meta({
      description: "The most that a drill may extract, in GiB; 0: as much as there is room for.",
      allowed: "a whole number of GiB from 0 to 1048576",
      example: "200",
    }),
    memoryMebibytes: z.int().min(256).max(1_048_576).default(2048).meta({
      description: "The most memory that the drill's CouchDB gets, in MiB.",
      allowed: "a whole number of MiB from 256 to 1048576",
      example: "4096",
    }),
    cpus: z.number().min(0.1).max(256).default(1).meta({
      description: "How many processors the drill's CouchDB gets.",
      allowed: "a number from 0.1 to 256",
      example: "0.5",
    }),
    couchdbImage: z
      .string()
      .refine(isPinnedImage)
      .optional()
      .meta({
        description:
          "The CouchDB image for drills, pinned by its digest. `docker image inspect --format '{{.RepoDigests}}' " +
          "IMAGE` shows it on the CHT machine. On another machine it must be given, unless you look after network and " +
          "image yourself (`manageDocker: false`; then the image that the archive names must be there, it isn't fetched): " +
          "whoever makes the archives doesn't choose what runs there.",
        allowed: "NAME@sha256: and 64 hexadecimal digits",
        example: `public.ecr.aws/medic/cht-couchdb@sha256:${"0123456789abcdef".repeat(4)}`,
        fallback: "the image that the archive names",
      }),
    manageDocker: z
      .boolean()
      .default(true)
      .meta({
        description:
          "Whether the stack keeps the drill's network and image, by the Docker plugin. It logs in over SSH as the " +
          "machine's `user`, who must be in the group `docker` there (sudo isn't used); on a machine other than `cht` " +
          "the stack sees to that, too. A network of that name that is there already is taken over. With `false`, make " +
          "it yourself: `docker network create --internal cht-drill-DEPLOYMENT`.",
        allowed: "true or false",
        example: "false",
      }),
    serverAddress: z.string().regex(hostPattern).optional().meta({
      description: "Where that machine reaches the server. For a machine other than `cht`.",
      allowed: "a host name or an IP address",
      example: "10.0.0.2",
      fallback: "`127.0.0.1` on the server itself, else `cht-backup:server.address`",
    }),
    serverPort: z.int().min(1).max(65535).optional().meta({
      description: "The port on which that machine reaches the server's SSH. For a machine other than `cht`.",
      allowed: "a port, a number from 1 to 65535",
      example: "2222",
      fallback: "on the server itself `host:machines.server.port`, else 22; elsewhere `cht-backup:server.port`",
    }),
  })
  .prefault({})
  .meta({
    description:
      "The drill: on a schedule the newest archive is restored beside everything else, checked, opened by a CouchDB " +
      "that can reach nobody but the machine itself, and removed again. What came of it is a report in " +
      "`/var/lib/cht-backup/DEPLOYMENT/drills`; a drill that failed or didn't run goes to `cht-backup:alerts`.",
    allowed: "a mapping of `enabled`, `machine`, `schedule` and others",
    example: "{ machine: server }",
  });

type Given = z.output<typeof drillSchema>;

/** The drill's settings: see `cht-backup:drill`. */
export interface Drill extends Omit<Given, "enabled" | "manageDocker" | "serverAddress" | "serverPort"> {
  /** Where archives are extracted to. */
  scratch: string;
  /** Where `machine` reaches the server, and on which port. No address: that of the server which the stack makes. */
  server: { address: string | undefined; port: number };
  /** How the Docker plugin reaches `machine`; undefined where the stack doesn't keep network and image. */
  docker: Machine | undefined;
}

/** A directory that is the drill's alone, whoever else works where the operator has room. */
export function scratchOf(given: string | undefined, deployment: string): string {
  return given === undefined ? `${chtNames(deployment).state}/drill` : `${given}/cht-backup-${deployment}`;
}

/** @returns undefined where drills are switched off */
export function drillOf(given: Given, deployment: string, machines: Machines, server: Server): Drill | undefined {
  const { enabled, manageDocker, serverAddress, serverPort, ...drill } = given;
  if (!enabled) return undefined;
  const near = drill.machine === "server" ? { address: "127.0.0.1", port: machines.server.port ?? 22 } : server;
  const machine = machines[drill.machine];
  return {
    ...drill,
    scratch: scratchOf(drill.scratch, deployment),
    server: { address: serverAddress ?? near.address, port: serverPort ?? near.port },
    docker: manageDocker && machine !== undefined && hasAddress(machine) ? machine : undefined,
  };
}

/** Whether drills are made from the bucket, ever: then their machine needs the key for reading. */
export function drillsRead({ drill }: { drill: Drill | undefined }): boolean {
  return drill !== undefined && drill.from !== "server";
}
