/**
 * What a server and the copy in a bucket cost at AWS, computed from listed prices: the stack's output `monthlyCost`, and
 * what `npm run docs` writes docs/costs.md from. Pure.
 */

/** Prices in US dollars, as AWS lists them. A gigabyte is what AWS bills as one, 2^30 bytes. */
interface StorageClass {
  name: string;
  /** As the setting `cht-backup:bucket.storageClass` has it; null: the setting is left out. */
  id: string | null;
  /** A gigabyte for a month. */
  storage: number;
  /** A thousand of PUT, COPY, POST or LIST; a retention that is lengthened counts as one. */
  writes: number;
  /** A thousand of GET and all others. */
  reads: number;
  /** A gigabyte that is read. */
  retrieval: number;
  /** Days that are billed at least. */
  least: number;
}

export const prices = {
  date: "September 2025",
  regions: "us-east-1 (N. Virginia) and eu-west-1 (Ireland), where they are the same",
  classes: [
    { name: "Standard", id: null, storage: 0.023, writes: 0.005, reads: 0.0004, retrieval: 0, least: 0 },
    { name: "Standard-IA", id: "STANDARD_IA", storage: 0.0125, writes: 0.01, reads: 0.001, retrieval: 0.01, least: 30 },
    {
      name: "Glacier Instant Retrieval",
      id: "GLACIER_IR",
      storage: 0.004,
      writes: 0.02,
      reads: 0.01,
      retrieval: 0.03,
      least: 90,
    },
  ] satisfies StorageClass[],
  /** A gigabyte that leaves AWS for the internet, after the free ones of each month. */
  out: 0.09,
  outFree: 100,
  /** Of machines, in eu-west-1 (Ireland); us-east-1 is some 9 % cheaper. */
  machines: {
    region: "eu-west-1 (Ireland)",
    /** An hour of an instance with Linux, on demand. */
    instances: {
      "t4g.nano": 0.0046,
      "t4g.micro": 0.0092,
      "t4g.small": 0.0184,
      "t4g.medium": 0.0368,
      "t4g.large": 0.0736,
      "t3.nano": 0.0057,
      "t3.micro": 0.0114,
      "t3.small": 0.0228,
      "t3.medium": 0.0456,
      "t3.large": 0.0912,
    } as Record<string, number>,
    /** A gigabyte of a gp3 volume for a month, with the throughput that is included. */
    volume: 0.088,
    /** An hour of a public IPv4 address. IPv6 is free. */
    address: 0.005,
  },
};

/** What is taken for granted of a deployment. */
export const assumed = {
  /** Copies into the bucket in a month: one after each backup, every four hours. */
  copies: 180,
  /** Days of a month. */
  days: 30,
  /** Gigabytes of one of borg's segments: one object. */
  segment: 0.5,
  /** Objects that each backup replaces: index, hints, integrity and so on, the copy's index, a segment or two. */
  changed: 8,
  /** Requests that list, each with up to a thousand versions, and look at settings: a copy, and a check. */
  lists: 4,
  /** Days from one lengthening of the locks to the next: the defaults' lockDays less keepDays. */
  lengthening: 30,
  /** Hours of a month. */
  hours: 730,
  /** Gigabytes of a server's own disk, without the repositories'. */
  system: 8,
  /** Segments that the checks of a month read back: the default's 20, weekly. */
  readBack: 87,
};

/** How much of a first full copy a month adds. */
export const growths = [
  {
    name: "quiet",
    /** A plain day's share, and compactions of everything in a month. */
    plain: 0.003,
    compactions: 1 / 3,
  },
  { name: "busy", plain: 0.01, compactions: 1 },
];
export type Growth = (typeof growths)[number];
/** What a compaction stores anew, as a share of a first full copy: docs/measurements.md, 13.7 of 15.1 MB. */
export const COMPACTION = 0.91;

/** What retention by its defaults (config/retention.ts) leaves, in what this model needs. */
export const kept = {
  /** Months of which there is an archive, this one included. */
  months: 4,
  /** And archives of ends of years before. */
  years: 1,
  /** By how much a repository is larger than what its archives need: segments of which less than a quarter is free. */
  loose: 1.15,
  /**
   * Days for which the bucket keeps what the server has freed: 30 to 60 by the defaults of keepDays and lockDays, and
   * half of a week until the next run.
   */
  locked: 49,
};

/** What a month writes, as a share of a first full copy. */
function written({ plain, compactions }: Growth): number {
  return plain * (assumed.days - compactions) + compactions * COMPACTION;
}

/** Gigabytes on the server and in the bucket after some months in which nothing was removed. */
export function stored(size: number, growth: Growth, months: number): number {
  return size * (1 + written(growth) * months);
}

/**
 * Gigabytes on the server and in the bucket in the long run, where retention runs every week. A model: each compaction
 * from one kept archive to the next makes the later one a full copy, with the tails since then. The simulated year of
 * docs/measurements.md is what it is compared with.
 */
export function stays(size: number, growth: Growth): { server: number; bucket: number } {
  const copies = 1 + growth.compactions * (kept.months - 1) + kept.years;
  const tails = (growth.plain * assumed.days) / growth.compactions;
  // Ends of months lie anywhere between two compactions; what is newest has grown for half of that time, too.
  const server = size * (1 + COMPACTION * (copies - 1) + (tails / 2) * copies) * kept.loose;
  return { server, bucket: server + (size * written(growth) * kept.locked) / assumed.days };
}

/** US dollars for a month in which this many gigabytes are in the bucket: storage and requests. */
export function month(gigabytes: number, of: StorageClass): { storage: number; requests: number; checks: number } {
  const objects = gigabytes / assumed.segment;
  const lists = assumed.copies * (assumed.lists + objects / 1000);
  const lengthened = (objects * assumed.days) / assumed.lengthening;
  const writes = assumed.copies * assumed.changed + lists + lengthened;
  const read = Math.min(assumed.readBack, objects * 4.35) * assumed.segment;
  return {
    storage: gigabytes * of.storage,
    requests: (writes / 1000) * of.writes,
    checks: read * of.retrieval + Math.max(0, read - prices.outFree) * prices.out,
  };
}

/** US dollars for reading everything once, over the internet. */
export function restore(gigabytes: number, of: StorageClass): number {
  const requests = (gigabytes / assumed.segment / 1000) * of.reads;
  return gigabytes * of.retrieval + Math.max(0, gigabytes - prices.outFree) * prices.out + requests;
}

/** What a stack makes at AWS. */
export interface MadeAtAws {
  /** The server's type, for instance `t4g.small`; undefined: the server isn't made at AWS. */
  instanceType?: string | undefined;
  /** Size of the data volume, and of what the bucket holds when that is full. */
  dataGibibytes: number;
  /** Undefined: no bucket of the stack's own. A null storage class is the standard one. */
  bucket?: { storageClass: string | null } | undefined;
}

/** US dollars for a month, rounded to cents. What isn't made, or has no known price, is left out. */
export interface MonthlyCost {
  /** The instance. */
  server?: number;
  /** Its two volumes. */
  volume?: number;
  /** Its public IPv4 address. */
  address?: number;
  /** Storage, requests and checks of a bucket that holds as much as the data volume. */
  bucket?: number;
  /** Undefined where a part has no known price. */
  total?: number;
  /** All of it in words, with the prices' date and what was assumed. */
  text: string;
}

const cents = (value: number) => Math.round(value * 100) / 100;

/** An estimate of what AWS bills for a month: the stack's output. Pure. */
export function monthlyCost({ instanceType, dataGibibytes, bucket }: MadeAtAws): MonthlyCost {
  const { instances, volume, address, region } = prices.machines;
  const parts: Omit<MonthlyCost, "total" | "text"> = {};
  const unknown: string[] = [];
  const words: string[] = [];
  const add = (part: keyof typeof parts, what: string, value: number) => {
    parts[part] = cents(value);
    words.push(`${what} ${dollars(value)}`);
  };
  if (instanceType !== undefined) {
    const hourly = instances[instanceType];
    if (hourly === undefined) unknown.push(instanceType);
    else add("server", instanceType, hourly * assumed.hours);
    add(
      "volume",
      `${dataGibibytes} GB for data and ${assumed.system} GB for the system`,
      (dataGibibytes + assumed.system) * volume,
    );
    add("address", "IPv4 address", address * assumed.hours);
  }
  if (bucket !== undefined) {
    const of = prices.classes.find(({ id }) => id === bucket.storageClass);
    if (of === undefined) unknown.push(`storage class ${bucket.storageClass}`);
    else {
      const { storage, requests, checks } = month(dataGibibytes, of);
      add("bucket", `bucket with ${dataGibibytes} GB in ${of.name}`, storage + requests + checks);
    }
  }
  const total = cents(Object.values(parts).reduce((sum, part) => sum + part, 0));
  const list = words.join(", ");
  const sum =
    unknown.length === 0
      ? `about ${dollars(total)} US dollars a month (${list})`
      : `${list} US dollars a month, and ${unknown.join(" and ")}, which components/aws-costs.ts has no price for: look at https://aws.amazon.com/pricing/`;
  return {
    ...parts,
    ...(unknown.length === 0 ? { total } : {}),
    text: `${sum}; by the prices of ${prices.date} in ${region}, without taxes and KMS keys of your own; docs/costs.md says what is assumed`,
  };
}

export const dollars = (value: number) => (value < 100 ? value.toFixed(2) : value.toFixed(0));
