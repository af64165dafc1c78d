/** `cht-backup:watch`: what each machine looks at every hour, and when somebody hears of it. */
import { z } from "zod";
import { path, pathRule } from "./formats";

const pingsOf = (what: string) =>
  z
    .string()
    .regex(/^https?:\/\/[^\s/]+(\/\S*)?$/)
    .optional()
    .meta({
      description: `Called when ${what} begins, succeeds or fails.`,
      allowed: "an address of a service such as healthchecks.io, as it gives it for a check",
      example: "https://hc-ping.com/0a1b2c3d-0000-4000-8000-000000000000",
      fallback: "nobody is called",
    });

export const watchSchema = z
  .strictObject({
    backupOverdueHours: z
      .int()
      .min(1)
      .max(20_000)
      .optional()
      .meta({
        description:
          "After how many hours without a complete backup the alarm is raised. The server raises one of its own four " +
          "hours later, when nothing new has come in.",
        allowed: "a whole number of hours from 1 to 20000",
        example: "50",
        fallback: "four hours more than there are between two times of `cht-backup:schedule`, 26 at least",
      }),
    diskFullDays: z
      .int()
      .min(1)
      .max(3650)
      .default(30)
      .meta({
        description:
          "How many days before a disk is full, at the pace of the last weeks, somebody is told. Nearly full, it is an " +
          "alarm in any case.",
        allowed: "a whole number of days from 1 to 3650",
        example: "60",
      }),
    retentionDays: z
      .int()
      .min(1)
      .max(3650)
      .default(60)
      .meta({
        description:
          "After how many days without `npm run retention` somebody is reminded of it, where no machine is trusted with it " +
          "(`cht-backup:retention.machine`).",
        allowed: "a whole number of days from 1 to 3650",
        example: "180",
      }),
    certificateDays: z.int().min(1).max(365).default(14).meta({
      description: "How many days before the CHT's certificate ends somebody is told.",
      allowed: "a whole number of days from 1 to 365",
      example: "21",
    }),
    metricsDirectory: path()
      .default("/var/lib/prometheus/node-exporter")
      .meta({
        description:
          "Where each machine writes its metrics for node_exporter's textfile collector. Where the directory isn't there, " +
          "nothing is written. Read docs/monitoring.md.",
        allowed: pathRule,
        example: "/var/lib/node_exporter/textfile",
      }),
    pings: z
      .strictObject({
        backup: pingsOf("a backup"),
        drill: pingsOf("a drill"),
        copy: pingsOf("a copy to the bucket"),
        retention: pingsOf("retention on a schedule"),
      })
      .prefault({})
      .meta({
        description:
          "Addresses of a service outside that notices when nothing comes any more, from any machine. Whoever knows one " +
          "can keep it from noticing: they are secret.",
        allowed: "a secret mapping of `backup`, `drill`, `copy`, `retention`",
        example: "{ backup: { secure: … } }",
      }),
  })
  .prefault({})
  .meta({
    description:
      "Every hour each machine looks whether all that should happen has happened, and tells `cht-backup:alerts` what isn't " +
      "well: at once, then once a day, then that it is over (docs/runbook.md has a section for each). The server notices " +
      "when the CHT machine falls silent, and the other way round.",
    allowed: "a mapping of `backupOverdueHours`, `diskFullDays`, `certificateDays`, `metricsDirectory`, `pings`",
    example: "{ diskFullDays: 60 }",
  });
