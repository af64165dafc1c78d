/** `cht-backup:bucket`: the third copy, where it goes and how it is locked. */
import { z } from "zod";
import { type BucketAws, bucketAwsSchema } from "./aws-bucket";
import { isCalendar, isTimeSpan } from "./calendar";
import { isEndpoint } from "./formats";

const accessKeyIdRule = "3 to 128 letters, digits and the characters `_`, `.`, `-`";
const accessKeyId = () => z.string().regex(/^[A-Za-z0-9_.-]{3,128}$/);
const secretAccessKeyRule = "8 to 128 letters, digits and the characters `_`, `.`, `+`, `/`, `=`, `-`; and secret";
const secretAccessKey = () => z.string().regex(/^[A-Za-z0-9_.+/=-]{8,128}$/);

export const bucketSchema = z
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
  });

/** A key of the bucket, in clear: for nothing but `pulumi.secret`, and the standard input of programs. */
export interface AccessKey {
  accessKeyId: string;
  secretAccessKey: string;
}

type Given = NonNullable<z.output<typeof bucketSchema>>;

/** The bucket's settings: see `cht-backup:bucket`. */
export interface Bucket
  extends Omit<
    Given,
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

/** @param given undefined: there is no third copy */
export function bucketOf(given: Given | undefined, deployment: string): Bucket | undefined {
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
