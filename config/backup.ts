/** How backups run, each setting at the top level: when, how borg cuts, compresses and sends. */
import { z } from "zod";
import { isCalendar, isTimeSpan } from "./calendar";
import { isChunker, isCompression } from "./formats";

/** By their full names, in the order of docs/settings.md. `index.ts` hands them to the backup as they are. */
export const backupSettings = {
  "cht-backup:schedule": z
    .string()
    .refine(isCalendar)
    // UTC: each hour of a zone with summer time is one that some country leaves out.
    .default("*-*-* 00/4:17:00 UTC")
    .meta({
      description:
        "When backups start, in the CHT machine's time zone unless another one is added. Every four hours, as the CHT's " +
        "own guide has it: a day's work is the most that a clinic should have to enter again, and a run that finds little " +
        "new takes little. A run that was missed because the machine was off is made up for when it is on again; one " +
        "whose time the zone leaves out, when summer time begins, a few hours later.",
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
};

export const firstBackupSchema = z
  .boolean()
  .default(true)
  .meta({
    description:
      "Whether `pulumi up` makes the first backup once everything is in place, and shows it for up to 20 minutes; a longer " +
      "one goes on by itself. Pulumi's Command plugin starts it, by the same ssh as everything else.",
    allowed: "true or false",
    example: "false",
  });
