/** `cht-backup:retention`: which archives stay. */
import { z } from "zod";
import { isCalendar, isTimeSpan } from "./calendar";

export const retentionSchema = z
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
    machine: z
      .string()
      .optional()
      .meta({
        description:
          "The machine that has the server remove what no longer stays, on a schedule: the one that drills, for it has the " +
          "passphrase, but never `cht`, or whoever takes that over could remove backups, too. It gets a key (mode 0600) that " +
          "lets the server do this, by the policy that the server has, and nothing else. A doubt raises the alarm, and " +
          "nothing is removed.",
        allowed: "the name in `cht-backup:drill.machine`, other than `cht`",
        example: "server",
        fallback: "none: somebody runs `npm run retention` now and then",
      }),
    schedule: z.string().refine(isCalendar).default("Sat *-*-* 12:00:00").meta({
      description: "When `machine` starts it, in that machine's time zone unless another one is added.",
      allowed: "a calendar expression of systemd.time(7)",
      example: "monthly",
    }),
    randomDelay: z.string().refine(isTimeSpan).default("1h").meta({
      description: "How much later than scheduled it may start.",
      allowed: "a time span of systemd.time(7) with its unit, or 0",
      example: "10min",
    }),
  })
  .prefault({})
  .meta({
    description:
      "Which archives stay. `npm run retention`, or `machine` on a schedule, removes the others (docs/retention.md). Times are the " +
      "server's, UTC. A compaction of CouchDB, some once a month, makes the next archive a full copy, so each month that " +
      "is kept takes about the size of the data: the defaults some six of it.",
    allowed: "a mapping of `keepWithin`, `daily`, `weekly`, `monthly`, `yearly`, `machine` and others",
    example: "{ daily: 30, monthly: 12 }",
  });

type Retention = Omit<z.output<typeof retentionSchema>, "machine" | "schedule" | "randomDelay">;

/** The policy as the server's program reads it: days of which everything stays, and how many of each period do. Pure. */
export function policyOf({ keepWithin, daily, weekly, monthly, yearly }: Retention) {
  return { within: keepWithin, daily, weekly, monthly, yearly };
}
