/**
 * What a machine says of a deployment's backups (`chtbackup watch report`). Whoever took it over chooses every word, so what
 * isn't of the right kind is read as nothing. Times are seconds since 1970 by that machine's clock, sizes bytes.
 */
import { z } from "zod";
import { plain } from "../../toolchain/plain";

const figure = z.number().nullable().catch(null);
const text = z.string().catch("");
/** A list without what isn't of the right kind. */
const listOf = <T extends z.ZodType>(element: T) =>
  z
    .array(z.unknown())
    .catch([])
    .transform((all) => all.flatMap((each) => element.safeParse(each).data ?? []));

const run = z.object({
  ok: z.boolean().catch(false),
  finishedAt: figure,
  lastSuccessAt: figure,
  problems: z.array(z.unknown()).catch([]),
});
const fact = <T extends z.ZodRawShape>(more: T) => run.extend(more).nullable().catch(null);

const diskSchema = z.object({
  path: text,
  total: figure,
  free: figure,
  repository: figure,
  data: figure,
  bucket: figure,
  /** False: the disk space that should be held back is gone. */
  reserve: z.boolean().nullable().catch(null),
  growthPerWeek: figure,
  /** When it will be full at that pace; null: not in sight. */
  fullAt: figure,
});
export type Disk = z.output<typeof diskSchema>;

const unitSchema = z.object({ unit: text, state: text, next: figure, masked: z.boolean().catch(false) });

const factsSchema = z.object({
  backup: fact({ files: figure, originalSize: figure, deduplicatedSize: figure }),
  copy: fact({ uploadedBytes: figure }),
  check: fact({}),
  drill: fact({ from: text, seconds: figure, counts: z.record(z.string(), z.number()).catch({}) }),
  retention: fact({ removed: figure, freed: figure }),
  audit: fact({ archives: figure }),
  disk: diskSchema.nullable().catch(null),
  lastTransactionAt: figure,
  certificateEnds: figure,
  units: listOf(unitSchema),
});
export type Facts = z.output<typeof factsSchema>;

const conditionSchema = z.object({
  id: text,
  severity: text,
  title: text,
  text: text,
  todo: text,
  link: text,
  since: figure,
  /** The one that it follows from. */
  hiddenBy: text,
});
export type Reported = z.output<typeof conditionSchema>;

const reportSchema = z.object({
  deployment: z.string(),
  role: text,
  host: text,
  at: figure,
  facts: factsSchema.catch(factsSchema.parse({})),
  conditions: z.array(conditionSchema),
});
export type Report = z.output<typeof reportSchema>;

/**
 * Reads what a machine printed. Pure.
 * @returns the report, with all that it holds besides as `raw`; or in a line why it is none
 */
export function readReport(printed: string, deployment: string): { report: Report; raw: object } | string {
  let raw: unknown;
  try {
    raw = JSON.parse(printed);
  } catch {
    return "it answered, but not with a report";
  }
  const { data: report } = reportSchema.safeParse(raw);
  if (report === undefined)
    return "it answered with a report that isn't in order: is another version of the programs on it?";
  if (report.deployment !== deployment) {
    return `it reports of the deployment ${plain(report.deployment)}, not of ${deployment}`;
  }
  return { report, raw: raw as object };
}
