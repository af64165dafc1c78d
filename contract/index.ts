/**
 * What TypeScript writes and the programs on machines read: each file's form is declared here and nowhere else. JSON schemas
 * are generated from it into `hosts/chtbackup/schemas/` (`npm run docs`), go to the machines with the programs, and are what
 * these check the files by (`hosts/chtbackup/base/contract.py`).
 *
 * A description ends the sentence "NAME must be …", which an administrator reads who has changed a file by hand.
 */
import { z } from "zod";

/** A text of this form, from beginning to end; only what JavaScript's and Python's expressions have in common. */
const form = (pattern: RegExp, description: string) => z.string().regex(pattern).meta({ description });
const number = (least: number, description: string) => z.number().min(least).meta({ description });
const whole = (least: number, description: string) => z.int().min(least).meta({ description });

const deployment = () => form(/^[a-z][a-z0-9-]{0,30}$/, "a small letter, then up to 30 of a-z, 0-9 and -");
const absolutePath = () => form(/^\/[^\n]+$/, "an absolute path");
const location = () => form(/^.+$/, "a repository as borg names it");
const repositoryId = () => form(/^[0-9a-f]{64}$/, "the id of a repository of borg's: 64 hexadecimal digits");
const trueOrFalse = () => z.boolean().meta({ description: "true or false" });

/** After how many hours without one it is overdue; null: none is expected. */
const hours = (what: string) =>
  number(0, "")
    .nullable()
    .meta({ description: `after how many hours ${what} is overdue, or null` });

const again = " (`pulumi up` writes this file)";

/** `/etc/cht-backup/NAME/settings.json`: the backup, and borg called by hand with the deployment's settings. */
export const backupSettings = z.strictObject({
  deployment: deployment(),
  chtHome: form(/^.+$/, "text"),
  composeProject: form(/^.+$/, "text"),
  couchdbData: z.array(z.string()).meta({ description: "a list of directories" }),
  repository: form(/^.+$/, "text"),
  compression: form(/^[a-z0-9][a-z0-9,]*$/, `a compression of borg's, such as auto,zstd,3${again}`),
  chunker: form(/^[a-z0-9][a-z0-9,]*$/, `borg's chunker parameters, such as fixed,262144${again}`),
  uploadRate: whole(0, `a whole number: KiB a second, 0 for no limit${again}`),
  lockWait: whole(1, `a whole number: seconds to wait for the repository's lock${again}`),
  checkpointInterval: whole(1, `a whole number: seconds of an upload that may be lost${again}`),
});

/** `/etc/cht-backup-server/NAME/repository.json`: guard, seals, audit and retention on the server. */
export const repositorySettings = z.strictObject({
  deployment: deployment(),
  user: form(/^[a-z_][a-z0-9_-]{0,31}$/, "the account that receives the backups"),
  repository: absolutePath(),
  state: absolutePath(),
  spool: absolutePath(),
  nonce: absolutePath(),
  sealer: whole(0, "the number of the account that seals, 0 for root"),
  sealWait: whole(0, "a number of seconds from 0"),
  commitsPerDay: whole(1, "a whole number from 1"),
  sessionDays: number(0, "a number of days"),
  idleHours: number(0, "a number of hours"),
  quotaGibibytes: whole(0, "a whole number of GiB, 0 for no limit"),
});

/** `/etc/cht-backup-server/NAME/retention.json`: what the server removes where a machine starts it on a schedule. */
export const retentionSettings = z.strictObject({
  repository: repositoryId(),
  overdueAfterDays: z.number().gt(0).meta({ description: "a number of days" }),
  policy: z
    .strictObject({
      within: whole(1, "a whole number of days from 1"),
      daily: whole(0, "a whole number from 0"),
      weekly: whole(0, "a whole number from 0"),
      monthly: whole(0, "a whole number from 0"),
      yearly: whole(0, "a whole number from 0"),
    })
    .meta({ description: "the policy: within, daily, weekly, monthly, yearly" }),
});

/** `/etc/cht-backup/NAME/retention.json`: what starts that, on the machine that drills. */
export const scheduledRetention = z.strictObject({
  deployment: deployment(),
  repository: repositoryId(),
  command: z.array(z.string()).meta({ description: "a list of words: the command that starts it on the server" }),
});

/** `/etc/cht-backup-bucket/NAME/bucket.json`: the copy to the bucket. */
export const bucketSettings = z.strictObject({
  deployment: deployment(),
  repository: absolutePath(),
  snapshot: absolutePath(),
  state: absolutePath(),
  endpoint: form(/^https?:\/\/[^/\s]+\/?$/, "an address")
    .nullable()
    .meta({
      description: "an address such as https://s3.example.org, or null for AWS",
    }),
  region: form(/^[A-Za-z0-9-]+$/, "the bucket's region"),
  bucket: form(/^[A-Za-z0-9._-]+$/, "the bucket's name"),
  prefix: form(/^([A-Za-z0-9._-]+\/)*$/, "empty, or a name that ends in /"),
  pathStyle: trueOrFalse(),
  credentials: absolutePath().nullable().meta({
    description: "a file with the access key, or null for the machine's role",
  }),
  mode: z.enum(["COMPLIANCE", "GOVERNANCE"]).meta({ description: "COMPLIANCE or GOVERNANCE" }),
  keepDays: whole(1, "a number of days from 1"),
  lockDays: whole(1, "a number of days from 1"),
  lockWait: whole(1, "a number of seconds from 1"),
  leastInterval: whole(0, "a number of seconds from 0"),
  maxAge: whole(1, "a number of hours from 1"),
  uploadRate: whole(0, "KiB a second, 0 for no limit"),
  storageClass: z.enum(["STANDARD_IA", "GLACIER_IR"]).nullable().meta({
    description: "STANDARD_IA, GLACIER_IR, or null",
  }),
  readBack: z.union([z.literal("all"), z.int().min(0)]).meta({
    description: 'how many segments a check reads back, or "all"',
  }),
});

/** `/etc/cht-backup/NAME/drill.json`: the restore drill. */
export const drillSettings = z.strictObject({
  deployment: deployment(),
  repository: location(),
  scratch: absolutePath(),
  scratchGibibytes: number(0, "a number, 0 for no limit"),
  keep: whole(1, "a whole number from 1"),
  overdueAfterDays: z.number().gt(0).meta({ description: "a number of days" }),
  network: form(/^[A-Za-z0-9][A-Za-z0-9_.-]*$/, "a Docker network's name"),
  image: form(/^\S+$/, "an image's name").nullable().meta({ description: "an image's name or null" }),
  pull: trueOrFalse(),
  memoryMebibytes: whole(64, "a whole number from 64"),
  cpus: z.number().gt(0).meta({ description: "a number above 0" }),
  from: z.enum(["server", "bucket", "alternating"]).default("server").meta({
    description: "server, bucket or alternating",
  }),
  bucket: z
    .strictObject({
      bucket: form(/^.+$/, "the bucket's name"),
      prefix: z.string().meta({ description: "a text" }),
      region: form(/^.+$/, "the bucket's region"),
      endpoint: z.string().nullable().meta({ description: "an address, or null for AWS" }),
      pathStyle: trueOrFalse(),
      credentials: form(/^.+$/, "a file with the key for reading"),
      repositories: z.array(z.string()).meta({ description: "a list of borg's ids" }),
      maxAgeHours: number(0, "a number of hours"),
      python: form(/^.+$/, "the Python that has boto3"),
    })
    .optional()
    .meta({ description: "what says where the bucket is, with python, repositories and maxAgeHours" }),
});

/** `/etc/cht-backup/NAME/watch.json` and `/etc/cht-backup-server/NAME/watch.json`: what a machine watches, and how closely. */
export const watchSettings = z.strictObject({
  deployment: deployment(),
  role: z.enum(["cht", "server", "drill"]).meta({ description: "cht, server or drill" }),
  // Where the reports of this role are, and the watch keeps its own.
  state: absolutePath(),
  environments: z.array(absolutePath()).meta({ description: "a list of Python environments" }),
  // What should start by itself (timers and paths), and what it starts.
  timers: z.array(z.string()).meta({ description: "a list of units" }),
  services: z.array(z.string()).meta({ description: "a list of units" }),
  disk: absolutePath(),
  repository: absolutePath().nullable().meta({ description: "an absolute path, or null where there is none" }),
  reserve: absolutePath().nullable().meta({ description: "an absolute path, or null where there is none" }),
  reserveBytes: whole(0, "a whole number of bytes from 0"),
  // What copy and check of the bucket have said.
  bucketState: absolutePath().nullable().meta({ description: "an absolute path, or null where there is no bucket" }),
  drills: trueOrFalse(),
  // Whether the CHT's web server is here.
  certificate: trueOrFalse(),
  server: z
    .strictObject({
      address: form(/^[^\s-]\S*$/, "an address"),
      port: whole(1, "a port"),
      knownHosts: absolutePath(),
    })
    .nullable()
    .meta({ description: "address, port and knownHosts of the server, or null where it isn't watched from here" }),
  backupOverdueHours: hours("a backup"),
  silentHours: hours("an archive that came in"),
  // Another machine that drills logs in here every hour, see `probes.py`.
  drillLogin: z
    .strictObject({
      fingerprints: z.array(form(/^SHA256:[A-Za-z0-9+/]{43}$/, "a key's fingerprint")),
      silentHours: number(0, "a number of hours"),
    })
    .nullable()
    .default(null)
    .meta({
      description: "fingerprints of the drilling machine's keys and silentHours, or null where it doesn't log in",
    }),
  copyOverdueHours: hours("a copy"),
  checkOverdueHours: hours("a check"),
  retentionOverdueHours: hours("a retention"),
  quotaBytes: whole(0, "a whole number of bytes, 0 for no quota"),
  drillOverdueDays: z.number().gt(0).nullable().meta({ description: "a number of days, or null" }),
  hangingHours: number(0, "a number of hours"),
  diskFullDays: number(0, "a number of days"),
  certificateDays: number(0, "a number of days"),
  // After how long somebody is told again, and for how long something must hold, or be over, before it counts.
  remindHours: number(0, "a number of hours"),
  graceMinutes: number(0, "a number of minutes"),
  metricsDirectory: absolutePath().nullable().meta({ description: "an absolute path, or null" }),
});

export type WatchSettings = z.output<typeof watchSettings>;

/** All of them, by the file that holds their schema. */
export const contracts = {
  backup: backupSettings,
  repository: repositorySettings,
  retention: retentionSettings,
  "scheduled-retention": scheduledRetention,
  bucket: bucketSettings,
  drill: drillSettings,
  watch: watchSettings,
} as const;

/**
 * A file's text.
 *
 * @throws Error naming what isn't as it was declared: a fault of this program
 */
export function fileOf<C extends keyof typeof contracts>(contract: C, value: z.input<(typeof contracts)[C]>): string {
  return `${JSON.stringify(contracts[contract].parse(value), null, 2)}\n`;
}

/** The JSON schema of a contract, as the programs on machines read it. Pure. */
export function schemaOf(contract: keyof typeof contracts): string {
  return `${JSON.stringify(z.toJSONSchema(contracts[contract], { io: "input" }), null, 2)}\n`;
}
