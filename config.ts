/**
 * The settings of a stack: which there are, their defaults, what is allowed. The only reader of Pulumi's
 * configuration. `docs/settings.md` is made from the texts in here (`npm run docs`).
 */
import * as pulumi from "@pulumi/pulumi";
import { z } from "zod";
import { chtNames } from "./components/names";
import {
  awsMistakes,
  type BucketAws,
  bucketAwsSchema,
  chtNetworks,
  SERVER_ADMIN,
  type ServerAws,
  serverAwsSchema,
} from "./config-aws";
import {
  isAlertAddress,
  isCalendar,
  isChunker,
  isCompression,
  isEndpoint,
  isPath,
  isPinnedImage,
  isTimeSpan,
} from "./config-formats";
import { hostPattern, type Machine, type Machines, machinesSchema } from "./provider/connection";
import { asMapping, core, found, mistakesIn, mustBe, type Path } from "./provider/mistakes";

const pathRule =
  "an absolute path without `.` or `..` in it, of letters, digits and the characters `_`, `.`, `+`, `@`, `-`";
const path = () => z.string().refine(isPath);

const deploymentRule =
  "lower-case letters, digits and dashes, a letter first, 21 characters at most, not ending in `-failed`, `-overdue` " +
  "or `-cleanup`";
/** A deployment with one of these endings would have the units of the deployment without it. */
const isDeployment = (name: string) => /^[a-z][a-z0-9-]{0,20}$/.test(name) && !/-(failed|overdue|cleanup)$/.test(name);

const accessKeyIdRule = "3 to 128 letters, digits and the characters `_`, `.`, `-`";
const accessKeyId = () => z.string().regex(/^[A-Za-z0-9_.-]{3,128}$/);
const secretAccessKeyRule = "8 to 128 letters, digits and the characters `_`, `.`, `+`, `/`, `=`, `-`; and secret";
const secretAccessKey = () => z.string().regex(/^[A-Za-z0-9_.+/=-]{8,128}$/);

/** Every setting by its full name. What isn't in here is a mistake. */
export const settingsSchema = z.strictObject({
  "host:machines": machinesSchema.meta({
    description:
      "The machines and how your computer reaches them over SSH. `cht` is the machine that runs the CHT, `server` " +
      "the one that keeps the backups: another machine, for whoever takes over the first must not reach both. With " +
      "`cht-backup:server.aws` the stack makes `server`; then it has at most `identityFile`.",
    allowed: "a mapping that has `cht` and `server`, each with at least `address`",
    example: "{ cht: { address: cht.example.org, user: ubuntu }, server: { address: backup.example.org } }",
  }),
  "cht-backup:deployment": z
    .string()
    .refine(isDeployment)
    .optional()
    .meta({
      description:
        "Name of the CHT deployment. It is part of every user, path and unit on the machines, so several " +
        "deployments can share a server, and it can't be changed later without a second, new repository.",
      allowed: deploymentRule,
      example: "moh",
      fallback: "the stack's name",
    }),
  "cht-backup:cht": z
    .strictObject({
      home: path().default("/home/ubuntu/cht").meta({
        description: "The directory that holds `compose/` and `upgrade-service/`.",
        allowed: pathRule,
        example: "/srv/cht",
      }),
      composeProject: z
        .string()
        .regex(/^[a-z0-9][a-z0-9_-]*$/)
        .default("cht")
        .meta({
          description: "Name of the CHT's project in Docker Compose.",
          allowed: "lower-case letters, digits, dashes and underscores, a letter or digit first",
          example: "cht",
        }),
      couchdbData: z
        .array(path().meta({ description: "One data directory.", allowed: pathRule, example: "/srv/couchdb1" }))
        .default([])
        .meta({
          description: "CouchDB's data directories: one, or one of every node of a cluster.",
          allowed: "a list of absolute paths, none twice",
          example: "[/srv/couchdb1, /srv/couchdb2, /srv/couchdb3]",
          fallback:
            "what CouchDB's containers have mounted; without them what `upgrade-service/.env` names: `COUCHDB_DATA`, or `DB1_DATA` and the others of a cluster",
        }),
    })
    .prefault({})
    .meta({
      description: "The CHT deployment on the machine `cht`.",
      allowed: "a mapping of `home`, `composeProject`, `couchdbData`",
      example: "{ home: /srv/cht }",
    }),
  "cht-backup:server": z
    .strictObject({
      dataDirectory: path().default("/srv/cht-backup").meta({
        description: "The directory on the machine `server` that holds the repositories of all deployments.",
        allowed: pathRule,
        example: "/mnt/backup",
      }),
      address: z
        .string()
        .regex(hostPattern)
        .optional()
        .meta({
          description:
            "Where the CHT machine reaches the server. Give it where that is another address than your computer's, " +
            "or where `host:machines.server.address` is an alias that only your ssh configuration knows.",
          allowed: "a host name or an IP address",
          example: "10.0.0.2",
          fallback: "`host:machines.server.address`",
        }),
      port: z.int().min(1).max(65535).optional().meta({
        description: "The port on which the CHT machine reaches the server's SSH.",
        allowed: "a port, a number from 1 to 65535",
        example: "2222",
        fallback: "`host:machines.server.port`, else 22",
      }),
      reserveMebibytes: z
        .int()
        .min(1)
        .max(1_048_576)
        .default(1024)
        .meta({
          description:
            "Disk space held back in a file, in MiB. When the disk is full, borg needs some even to list; " +
            "deleting the file is the way out.",
          allowed: "a whole number of MiB from 1 to 1048576",
          example: "1024",
        }),
      limits: z
        .strictObject({
          commitsPerDay: z
            .int()
            .min(300)
            .max(100_000)
            .default(600)
            .meta({
              description:
                "Transactions that the server takes within a day. A long first upload makes one every five minutes (288); " +
                "who makes thousands wants to fill the disk, or the bucket.",
              allowed: "a whole number from 300 to 100000",
              example: "600",
            }),
          sessionDays: z.int().min(1).max(365).default(45).meta({
            description: "How long one session may last, in days: longer than the first upload takes on your link.",
            allowed: "a whole number from 1 to 365",
            example: "45",
          }),
          idleHours: z
            .int()
            .min(1)
            .max(720)
            .default(48)
            .meta({
              description:
                "How long a session may say nothing, in hours, until it is ended and gives its lock back. A backup says " +
                "nothing while it reads what is stored already.",
              allowed: "a whole number from 1 to 720",
              example: "48",
            }),
        })
        .prefault({})
        .meta({
          description:
            "What a client may do at most, so that a CHT host in other hands can't keep the server busy, or full. An honest " +
            "deployment doesn't meet these limits.",
          allowed: "a mapping of `commitsPerDay`, `sessionDays`, `idleHours`",
          example: "{ sessionDays: 90 }",
        }),
      aws: serverAwsSchema.optional(),
    })
    .prefault({})
    .meta({
      description: "The offsite server.",
      allowed: "a mapping of `dataDirectory`, `address`, `port`, `reserveMebibytes`, `aws`",
      example: "{ dataDirectory: /mnt/backup }",
    }),
  "cht-backup:schedule": z
    .string()
    .refine(isCalendar)
    .default("*-*-* 02:00:00")
    .meta({
      description:
        "When backups start, in the CHT machine's time zone unless another one is added. A run that was missed " +
        "because the machine was off is made up for when it is on again; one whose time the zone leaves out, when " +
        "summer time begins, a few hours later.",
      allowed: "a calendar expression of systemd.time(7)",
      example: '"*-*-* 02:00:00 Africa/Nairobi"',
    }),
  "cht-backup:randomDelay": z.string().refine(isTimeSpan).default("30min").meta({
    description: "How much later than scheduled a backup may start, so that many deployments don't start at once.",
    allowed: "a time span of systemd.time(7) with its unit, or 0",
    example: "1h 30min",
  }),
  "cht-backup:compression": z
    .string()
    .refine(isCompression)
    .default("zstd,3")
    .meta({
      description: "How borg compresses. A higher level stores little less and takes much more processor time.",
      allowed:
        "one of `none`, `lz4`, `zstd,1` to `zstd,22`, `zlib,0` to `zlib,9`, `lzma,0` to `lzma,9`, " +
        "or `auto,` before one of these",
      example: "zstd,3",
    }),
  "cht-backup:chunker": z
    .string()
    .refine(isChunker)
    .default("fixed,262144")
    .meta({
      description:
        "How borg cuts files. CouchDB's files grow at their end only, so chunks at fixed offsets store some two " +
        "thirds less a day than borg's default. Sensible: `fixed,262144` where a shard's file is smaller than " +
        "100 MB, `fixed,1048576` above. A change makes the next backup a full copy.",
      allowed:
        "`default`, `fixed,SIZE` (bytes, 64 to 20971479), or `buzhash,MIN,MAX,MASK,WINDOW` " +
        "(exponents 6 to 23 with MIN ≤ MASK ≤ MAX, an odd window)",
      example: "fixed,1048576",
    }),
  "cht-backup:uploadRate": z.int().min(0).max(10_000_000).default(0).meta({
    description: "The most that a backup sends, in KiB a second; 0 is no limit.",
    allowed: "a whole number of KiB a second from 0 to 10000000",
    example: "2048",
  }),
  "cht-backup:alerts": z
    .array(
      z.string().refine(isAlertAddress).meta({
        description: "One address.",
        allowed: "an address as apprise takes it, a service and what it needs",
        example: "mailtos://user:password@mail.example.org?to=oncall@example.org",
      }),
    )
    .default([])
    .meta({
      description:
        "Where a failed backup is reported: addresses of apprise (mail, SMS, chat and many more). They hold " +
        "passwords, so each is a secret: `npm run pulumi -- config set --secret --path 'cht-backup:alerts[0]'` asks for it. " +
        "What can't be delivered is tried again for a week. Without an address every `preview` and `up` says so.",
      allowed: "a list of secret addresses",
      example: '[{ secure: "…" }]',
    }),
  "cht-backup:drill": z
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
    }),
  "cht-backup:bucket": z
    .strictObject({
      name: z
        .string()
        .regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/)
        .meta({
          description:
            "The bucket's name. It exists already, with versioning and object lock (docs/bucket.md), or `aws` makes it.",
          allowed: "3 to 63 lower-case letters, digits, dots and dashes, a letter or digit at both ends",
          example: "moh-backup-copy",
        }),
      region: z
        .string()
        .regex(/^[A-Za-z0-9-]{1,40}$/)
        .default("us-east-1")
        .meta({
          description: "The bucket's region.",
          allowed: "letters, digits and dashes",
          example: "eu-west-1",
        }),
      endpoint: z.string().refine(isEndpoint).optional().meta({
        description: "Where the bucket is reached, for a storage that speaks S3 elsewhere than at AWS.",
        allowed: "an address of `https://` (or `http://`), a host name and perhaps a port, without a path",
        example: "https://s3.example.org",
        fallback: "AWS, in `region`",
      }),
      pathStyle: z.boolean().optional().meta({
        description: "Whether the bucket's name goes into the path of addresses instead of the host name.",
        allowed: "true or false",
        example: "false",
        fallback: "true with an `endpoint`, false at AWS",
      }),
      prefix: z
        .string()
        .regex(/^(?!.*(?:^|\/)\.\.?\/)(?:[A-Za-z0-9._-]+\/){1,10}$/)
        .optional()
        .meta({
          description:
            "What the names of all objects begin with, so that several deployments can share a bucket. Another prefix is " +
            "another, new copy.",
          allowed: "letters, digits and the characters `.`, `_`, `-`, ending in `/`",
          example: "country/moh/",
          fallback: "`DEPLOYMENT/`",
        }),
      mode: z.enum(["compliance", "governance"]).meta({
        description:
          "How copies are locked. In `compliance` nobody can delete a copy or shorten its lock until that ends, the " +
          "owner of the account included: that is the point, and it is final (each `up` says so). In `governance` those " +
          "with a special right can; begin with it to try. The bucket's own default retention must have the same mode, " +
          "or compliance. Copies in governance mode stay so: for compliance later, take another `prefix`, too.",
        allowed: "`compliance` or `governance`",
        example: "compliance",
      }),
      keepDays: z
        .int()
        .min(1)
        .max(3650)
        .default(30)
        .meta({
          description:
            "For how many days a finished copy stays whole at least, even when no other comes. Each run lengthens locks that " +
            "would end earlier.",
          allowed: "a whole number of days from 1 to 3650",
          example: "90",
        }),
      lockDays: z
        .int()
        .min(2)
        .max(7300)
        .default(60)
        .meta({
          description:
            "For how many days a lock is set or lengthened; the bucket's default retention must be at least as long. The " +
            "more days between `keepDays` and this, the fewer requests.",
          allowed: "a whole number of days from 2 to 7300, more than `keepDays`",
          example: "120",
        }),
      uploadRate: z.int().min(0).max(10_000_000).default(0).meta({
        description: "The most that a copy sends, in KiB a second; 0 is no limit.",
        allowed: "a whole number of KiB a second from 0 to 10000000",
        example: "2048",
      }),
      storageClass: z
        .enum(["STANDARD_IA", "GLACIER_IR"])
        .optional()
        .meta({
          description:
            "Storage class of the repository's segments; the few small files that change stay in the standard class. " +
            "docs/costs.md compares them.",
          allowed: "`STANDARD_IA` or `GLACIER_IR`",
          example: "GLACIER_IR",
          fallback: "the standard class",
        }),
      schedule: z
        .string()
        .refine(isCalendar)
        .default("*-*-* 06:00:00")
        .meta({
          description:
            "When a copy is made that no backup started, in the server's time zone unless another one is added: a net, " +
            "for the copy starts by itself after each backup. It also lengthens locks, so it must come daily.",
          allowed: "a calendar expression of systemd.time(7)",
          example: '"*-*-* 06:00:00 Africa/Nairobi"',
        }),
      leastIntervalMinutes: z
        .int()
        .min(0)
        .max(1440)
        .default(30)
        .meta({
          description:
            "How long after a copy the next one begins at the earliest; what comes in meanwhile is copied then, all of it " +
            "once. Whoever takes over the CHT machine can't have a copy made, and locked, of each of thousands of commits.",
          allowed: "a whole number of minutes from 0 to 1440, less than `maxAgeHours`",
          example: "60",
        }),
      checkSchedule: z.string().refine(isCalendar).default("Wed *-*-* 12:00:00").meta({
        description: "When the bucket is checked against the newest copy's index, in the server's time zone.",
        allowed: "a calendar expression of systemd.time(7)",
        example: "monthly",
      }),
      randomDelay: z.string().refine(isTimeSpan).default("30min").meta({
        description: "How much later than scheduled a copy or a check may start.",
        allowed: "a time span of systemd.time(7) with its unit, or 0",
        example: "10min",
      }),
      readBack: z
        .union([z.int().min(0).max(1_000_000), z.literal("all")])
        .default(20)
        .meta({
          description:
            "How many segments (500 MB each) a check reads back and compares with their checksums, chosen anew each " +
            "time. What is read leaves the bucket's network, which most providers charge for.",
          allowed: "a whole number from 0 to 1000000, or `all`",
          example: "5",
        }),
      maxAgeHours: z
        .int()
        .min(1)
        .max(87_600)
        .default(48)
        .meta({
          description:
            "How old the newest copy may be, while there is something new to copy, before the alarm is raised. Where drills " +
            "are made from the bucket, their machine raises one of its own a day later, whether there is something new or " +
            "not: it must be more than there are hours from one backup to the next.",
          allowed: "a whole number of hours from 1 to 87600",
          example: "30",
        }),
      accessKeyId: accessKeyId()
        .optional()
        .meta({
          description:
            "Access key of the writer, who may put, get, list and lengthen locks, and nothing else " +
            "(components/bucket-writer-policy.json). It lies on the server.",
          allowed: accessKeyIdRule,
          example: "AKIAIOSFODNN7EXAMPLE",
          fallback: "none: it must be given, unless `aws` makes the bucket",
        }),
      secretAccessKey: secretAccessKey().optional().meta({
        description:
          "The writer's secret: `npm run pulumi -- config set --secret --path 'cht-backup:bucket.secretAccessKey'`.",
        allowed: secretAccessKeyRule,
        fallback: "none: it must be given, unless `aws` makes the bucket",
      }),
      reader: z
        .strictObject({
          accessKeyId: accessKeyId().meta({
            description: "The reader's access key.",
            allowed: accessKeyIdRule,
            example: "AKIAIOSFODNN7EXAMPLE",
          }),
          secretAccessKey: secretAccessKey().meta({
            description:
              "The reader's secret: `npm run pulumi -- config set --secret --path 'cht-backup:bucket.reader.secretAccessKey'`.",
            allowed: secretAccessKeyRule,
          }),
        })
        .optional()
        .meta({
          description:
            "The key for reading, which a restore from the bucket uses and the recovery kit shows " +
            "(components/bucket-reader-policy.json). It lies on no machine, but on the one that drills from the bucket " +
            "(`cht-backup:drill.from`).",
          allowed: "a mapping of `accessKeyId` and `secretAccessKey`",
          fallback: "the writer's, which can read, too",
        }),
      aws: bucketAwsSchema.optional(),
    })
    .optional()
    .meta({
      description:
        "The third copy: an S3 bucket, to which the server copies the repository after every backup, and where copies are " +
        "locked. `none`, or leaving it out, is allowed: then every `up` says that 3-2-1 isn't met.",
      allowed: "`none`, or a mapping of `name`, `mode`, `accessKeyId`, `secretAccessKey` (or `aws`) and others",
      example: "none",
      fallback: "`none`",
    }),
  "cht-backup:retention": z
    .strictObject({
      keepWithin: z.int().min(1).max(36_500).default(7).meta({
        description: "All archives of the last so many days stay.",
        allowed: "a whole number of days from 1 to 36500",
        example: "14",
      }),
      daily: z.int().min(0).max(36_500).default(14).meta({
        description: "Of so many days the last archive stays. Days without an archive don't count.",
        allowed: "a whole number of days from 0 to 36500",
        example: "30",
      }),
      weekly: z.int().min(0).max(5200).default(6).meta({
        description: "Of so many weeks (Monday to Sunday), this one included, the last archive stays.",
        allowed: "a whole number of weeks from 0 to 5200",
        example: "12",
      }),
      monthly: z.int().min(0).max(1200).default(4).meta({
        description: "Of so many months, this one included, the last archive stays.",
        allowed: "a whole number of months from 0 to 1200",
        example: "12",
      }),
      yearly: z.int().min(0).max(100).default(2).meta({
        description: "Of so many years, this one included, the last archive stays.",
        allowed: "a whole number of years from 0 to 100",
        example: "7",
      }),
    })
    .prefault({})
    .meta({
      description:
        "Which archives `npm run retention` keeps; without it none is ever removed (docs/retention.md). Times are the " +
        "server's, UTC. A compaction of CouchDB, some once a month, makes the next archive a full copy, so each month that " +
        "is kept takes about the size of the data: the defaults some six of it.",
      allowed: "a mapping of `keepWithin`, `daily`, `weekly`, `monthly`, `yearly`",
      example: "{ daily: 30, monthly: 12 }",
    }),
  "cht-backup:passphrase": z
    .string()
    .regex(/^\S([^\r\n]*\S)?$/)
    .optional()
    .meta({
      description:
        "The passphrase of the repository, a secret: `npm run pulumi -- config set --secret cht-backup:passphrase`. Without it " +
        "and the repository's key, no archive can be read. A shorter one is taken only for a repository that was made with it " +
        "by hand (docs/adopting.md).",
      allowed: "one line of 16 characters or more, without spaces at its ends",
      fallback: "a random one, made by the first `pulumi up` and kept encrypted in the stack",
    }),
  "cht-backup:firstBackup": z
    .boolean()
    .default(true)
    .meta({
      description:
        "Whether `pulumi up` makes the first backup once everything is in place, and shows it for up to 20 minutes; a longer " +
        "one goes on by itself. Pulumi's Command plugin starts it, by the same ssh as everything else.",
      allowed: "true or false",
      example: "false",
    }),
  "cht-backup:recoveryKit": z
    .string()
    .regex(/^\d{4}-\d\d-\d\d [0-9a-f]{64}$/)
    .optional()
    .meta({
      description:
        "When the last recovery kit was made, and a digest of what it must agree with: the repository's key and the " +
        "server's place. `npm run recovery-kit` writes it; `pulumi up` reminds when a new kit is due.",
      allowed: "what `npm run recovery-kit` writes: a date and 64 hexadecimal digits",
      fallback: "none has been made",
    }),
});

type Values = z.output<typeof settingsSchema>;

/** The settings of one stack, every default filled in. */
export interface Settings {
  /** Every machine of `host:machines`. The address of one that the stack makes is empty. */
  machines: Machines & Record<"cht" | "server", Machine>;
  /** Name of the deployment. */
  deployment: string;
  cht: Values["cht-backup:cht"];
  server: Required<Omit<Values["cht-backup:server"], "aws">> & {
    /** Undefined where the server exists already; else `address` may be empty until `withMade`. */
    aws?: (Omit<ServerAws, "chtNetworks"> & { chtNetworks: readonly string[] }) | undefined;
  };
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
  /** Addresses of apprise, in clear: for nothing but `pulumi.secret`. */
  alerts: string[];
  /** The passphrase in clear, for nothing but `pulumi.secret`; absent: one is made. */
  passphrase: string | undefined;
  firstBackup: boolean;
  /** When the last recovery kit was made and what it agrees with; absent: none has been made. */
  recoveryKit: string | undefined;
  /** Which archives stay: see `cht-backup:retention`. */
  retention: Values["cht-backup:retention"];
  /** The drill; undefined where it is switched off. */
  drill: Drill | undefined;
  /** The third copy; undefined where there is none. */
  bucket: Bucket | undefined;
}

/** A key of the bucket, in clear: for nothing but `pulumi.secret`, and the standard input of programs. */
export interface AccessKey {
  accessKeyId: string;
  secretAccessKey: string;
}

/** The bucket's settings: see `cht-backup:bucket`. */
export interface Bucket
  extends Omit<
    Values["cht-backup:bucket"] & object,
    "endpoint" | "pathStyle" | "prefix" | "storageClass" | "accessKeyId" | "secretAccessKey" | "reader" | "aws"
  > {
  /** Null: AWS. */
  endpoint: string | null;
  pathStyle: boolean;
  /** Ends in `/`. */
  prefix: string;
  /** Null: the standard one. */
  storageClass: "STANDARD_IA" | "GLACIER_IR" | null;
  /** Undefined where the stack makes the bucket. */
  writer: AccessKey | undefined;
  /** May be the writer's. Undefined until `withMade` where the stack makes the bucket. */
  reader: AccessKey | undefined;
  /** Undefined where the bucket exists already. */
  aws?: BucketAws | undefined;
}

/** The drill's settings: see `cht-backup:drill`. */
export interface Drill
  extends Omit<Values["cht-backup:drill"], "enabled" | "manageDocker" | "serverAddress" | "serverPort"> {
  /** Where archives are extracted to. */
  scratch: string;
  /** Where `machine` reaches the server, and on which port. */
  server: { address: string; port: number };
  /** How the Docker plugin reaches `machine`; undefined where the stack doesn't keep network and image. */
  docker: Machine | undefined;
}

/** The settings as resources take them: what is secret is Pulumi's secret. */
export interface StackSettings extends Omit<Settings, "alerts" | "passphrase" | "bucket"> {
  alerts: pulumi.Output<string[]>;
  passphrase: pulumi.Output<string> | undefined;
  bucket: StackBucket | undefined;
}

export interface StackBucket extends Omit<Bucket, "writer" | "reader"> {
  /** Undefined where the stack makes the bucket, or the machine's role writes. */
  writer: pulumi.Output<AccessKey> | undefined;
  reader: Pick<AccessKey, "accessKeyId"> | undefined;
  /** The whole key for reading, where drills are made from the bucket; undefined elsewhere, too. */
  readerKey: pulumi.Output<AccessKey> | undefined;
}

/** What only the stack knows, of what it has made itself. */
export interface Made {
  /** Where the server is. */
  serverAddress?: string | undefined;
  /** The key for reading the bucket. */
  bucketReader?: AccessKey | undefined;
}

/** Settings with what the stack has made put where it would be if it had existed already. Pure. */
export function withMade<
  P extends Pick<Settings, "machines" | "server"> & {
    bucket: { reader: { accessKeyId: string } | undefined } | undefined;
  },
>(settings: P, { serverAddress, bucketReader }: Made): P {
  const { machines, server, bucket } = settings;
  return {
    ...settings,
    machines: { ...machines, server: { ...machines.server, address: machines.server.address || serverAddress || "" } },
    server: { ...server, address: server.address || serverAddress || "" },
    bucket: bucket && { ...bucket, reader: bucket.reader ?? bucketReader },
  };
}

/** Whether drills are made from the bucket, ever: then their machine needs the key for reading. */
export function drillsRead({ drill }: Pick<Settings, "drill">): boolean {
  return drill !== undefined && drill.from !== "server";
}

/** Reads this stack's settings. Throws all mistakes at once, as a `RunError`: Pulumi prints it without a stack trace. */
export function loadSettings(): StackSettings {
  // The names of secret keys have no public function in the SDK; the engine hands them to the program in this variable.
  const secretKeys: string[] = JSON.parse(process.env.PULUMI_CONFIG_SECRET_KEYS || "[]");
  const all = readSettings(pulumi.runtime.allConfig(), pulumi.getStack(), secretKeys);
  const { alerts, passphrase, bucket, ...settings } = all;
  return {
    ...settings,
    alerts: pulumi.secret(alerts),
    passphrase: passphrase === undefined ? undefined : pulumi.secret(passphrase),
    bucket: bucket === undefined ? undefined : withoutSecrets(bucket, drillsRead(settings)),
  };
}

/** The reader's secret is no business of a stack, unless drills read: else only restores and the recovery kit use it. */
function withoutSecrets({ writer, reader, ...bucket }: Bucket, drillReads: boolean): StackBucket {
  return {
    ...bucket,
    reader: reader && { accessKeyId: reader.accessKeyId },
    readerKey: drillReads && reader ? pulumi.secret(reader) : undefined,
    writer: writer && pulumi.secret(writer),
  };
}

/**
 * Reads the settings from a stack's configuration.
 *
 * @param all the whole configuration as Pulumi hands it over: texts, structured values as JSON
 * @param stack the stack's name, the default of the deployment's
 * @param secretKeys names in `all` whose values hold a secret
 * @throws pulumi.RunError with one line for every mistake
 */
export function readSettings(all: Record<string, string>, stack: string, secretKeys: Iterable<string>): Settings {
  const secret = new Set(secretKeys);
  const given: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(all)) {
    if (/^(cht-backup|host):/.test(key)) given[key] = decode(value, fields[key]);
  }
  if (given["cht-backup:bucket"] === "none") delete given["cht-backup:bucket"];
  const mistakes = [...mistakesIn(settingsSchema, given, isSecret(secret)), ...furtherMistakes(given, stack, secret)];
  if (mistakes.length > 0) {
    const count = mistakes.length === 1 ? "1 mistake" : `${mistakes.length} mistakes`;
    throw new pulumi.RunError(
      [`${count} in the settings of stack ${stack} (docs/settings.md lists them all):`, ...mistakes].join("\n  "),
    );
  }
  const values = settingsSchema.parse(given);
  const machines = values["host:machines"] as Settings["machines"];
  const deployment = values["cht-backup:deployment"] ?? stack;
  const { aws, ...place } = values["cht-backup:server"];
  if (aws !== undefined) machines.server = { ...machines.server, address: "", user: SERVER_ADMIN, sudo: true };
  const server = {
    ...place,
    address: place.address ?? machines.server.address,
    port: place.port ?? machines.server.port ?? 22,
    ...(aws && { aws: { ...aws, chtNetworks: chtNetworks(aws.chtNetworks, machines.cht.address) ?? [] } }),
  };
  const { enabled, manageDocker, serverAddress, serverPort, ...drill } = values["cht-backup:drill"];
  const near = drill.machine === "server" ? { address: "127.0.0.1", port: machines.server.port ?? 22 } : server;
  return {
    machines,
    deployment,
    cht: values["cht-backup:cht"],
    server,
    schedule: values["cht-backup:schedule"],
    randomDelay: values["cht-backup:randomDelay"],
    compression: values["cht-backup:compression"],
    chunker: values["cht-backup:chunker"],
    uploadRate: values["cht-backup:uploadRate"],
    alerts: values["cht-backup:alerts"],
    passphrase: values["cht-backup:passphrase"],
    firstBackup: values["cht-backup:firstBackup"],
    recoveryKit: values["cht-backup:recoveryKit"],
    retention: values["cht-backup:retention"],
    drill: enabled
      ? {
          ...drill,
          scratch: scratchOf(drill.scratch, deployment),
          server: { address: serverAddress ?? near.address, port: serverPort ?? near.port },
          docker: manageDocker ? machines[drill.machine] : undefined,
        }
      : undefined,
    bucket: bucketOf(values["cht-backup:bucket"], deployment),
  };
}

/** A directory that is the drill's alone, whoever else works where the operator has room. */
function scratchOf(given: string | undefined, deployment: string): string {
  return given === undefined ? `${chtNames(deployment).state}/drill` : `${given}/cht-backup-${deployment}`;
}

function bucketOf(given: Values["cht-backup:bucket"], deployment: string): Bucket | undefined {
  if (given === undefined) return undefined;
  const { accessKeyId, secretAccessKey, reader, ...bucket } = given;
  const writer =
    accessKeyId === undefined || secretAccessKey === undefined ? undefined : { accessKeyId, secretAccessKey };
  return {
    ...bucket,
    endpoint: bucket.endpoint ?? null,
    pathStyle: bucket.pathStyle ?? bucket.endpoint !== undefined,
    prefix: bucket.prefix ?? `${deployment}/`,
    storageClass: bucket.storageClass ?? null,
    writer,
    reader: reader ?? writer,
  };
}

const fields: Record<string, z.ZodType> = settingsSchema.shape;

/** Pulumi hands over every value as text. Where the setting isn't one, the text is JSON; what isn't stays a text. */
function decode(value: string, schema: z.ZodType | undefined): unknown {
  if (schema === undefined || core(schema) instanceof z.ZodString) return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** Values that are never shown: what Pulumi holds as a secret, and what should have been one. */
function isSecret(secret: Set<string>): (path: Path) => boolean {
  const always = ["cht-backup:passphrase", "cht-backup:alerts", "accessKeyId", "secretAccessKey"];
  return (path) => secret.has(String(path[0])) || path.some((part) => always.includes(String(part)));
}

/** The mistakes that a schema can't find: they need several settings, the stack or the kind of a value. */
function furtherMistakes(given: Record<string, unknown>, stack: string, secret: Set<string>): string[] {
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
    lines.push(
      "cht-backup:alerts: found in clear; must be secret, for instance " +
        "`npm run pulumi -- config set --secret --path 'cht-backup:alerts[0]'`",
    );
  }
  if (given["cht-backup:passphrase"] !== undefined && !secret.has("cht-backup:passphrase")) {
    lines.push(
      "cht-backup:passphrase: found in clear; must be secret, for instance `npm run pulumi -- config set --secret cht-backup:passphrase`",
    );
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
  lines.push(...drillMistakes(given, stack));
  return lines;
}

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
    { at: "secretAccessKey", value: bucket.secretAccessKey },
    { at: "reader.secretAccessKey", value: asMapping(bucket.reader)?.secretAccessKey },
  ];
  for (const { at, value } of places) {
    if (value === undefined || secret.has("cht-backup:bucket")) continue;
    lines.push(
      `cht-backup:bucket.${at}: found in clear; must be secret, for instance ` +
        `\`npm run pulumi -- config set --secret --path 'cht-backup:bucket.${at}'\``,
    );
  }
  for (const name of ["accessKeyId", "secretAccessKey"] as const) {
    if (bucket[name] !== undefined || asMapping(bucket.aws) !== undefined) continue;
    lines.push(
      `cht-backup:bucket.${name}: missing; ${mustBe(settingsSchema.shape["cht-backup:bucket"].unwrap().shape[name])}`,
    );
  }
  const { keepDays, lockDays, leastIntervalMinutes, maxAgeHours } =
    settingsSchema.shape["cht-backup:bucket"].unwrap().shape;
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
  const { "cht-backup:cht": cht, "cht-backup:server": server } = settingsSchema.shape;
  if (machine === "server") return [server.safeParse(given["cht-backup:server"]).data?.dataDirectory ?? []].flat();
  const { home, couchdbData } = cht.safeParse(given["cht-backup:cht"]).data ?? { home: [], couchdbData: [] };
  return machine === "cht" ? [home, ...couchdbData].flat() : [];
}
