/**
 * What a server and the copy in a bucket cost at AWS, computed from listed prices: `npm run docs` writes docs/costs.md from
 * this, and the stack's output `monthlyCost` is made here. Pure.
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
const assumed = {
  backups: 30,
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

/** How much of a first full copy a month adds, as long as no retention removes anything. */
export const growths = [
  {
    name: "quiet",
    /** A plain day's share, and days with a compaction of everything. */
    plain: 0.003,
    compactions: 1 / 3,
  },
  { name: "busy", plain: 0.01, compactions: 1 },
];
/** What a compaction stores anew, as a share of a first full copy: docs/measurements.md, 13.7 of 15.1 MB. */
const COMPACTION = 0.91;

export const sizes = [20, 100, 700];

/** Gigabytes in the bucket after some months, of a deployment with this many gigabytes of data. */
export function stored(size: number, growth: (typeof growths)[number], months: number): number {
  const monthly = growth.plain * (assumed.backups - growth.compactions) + growth.compactions * COMPACTION;
  return size * (1 + monthly * months);
}

/** US dollars for a month in which this many gigabytes are in the bucket: storage and requests. */
export function month(gigabytes: number, of: StorageClass): { storage: number; requests: number; checks: number } {
  const objects = gigabytes / assumed.segment;
  const lists = assumed.backups * (assumed.lists + objects / 1000);
  const lengthened = (objects * 30) / assumed.lengthening;
  const writes = assumed.backups * assumed.changed + lists + lengthened;
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
      : `${list} US dollars a month, and ${unknown.join(" and ")}, which docs/costs.ts has no price for: look at https://aws.amazon.com/pricing/`;
  return {
    ...parts,
    ...(unknown.length === 0 ? { total } : {}),
    text: `${sum}; by the prices of ${prices.date} in ${region}, without taxes and KMS keys of your own; docs/costs.md says what is assumed`,
  };
}

const dollars = (value: number) => (value < 100 ? value.toFixed(2) : value.toFixed(0));
const row = (cells: (string | number)[]) => `| ${cells.join(" | ")} |`;
const head = (cells: string[]) => [row(cells), row(cells.map((_, index) => (index < 2 ? "---" : "---:")))];

/** The whole page. */
export function costs(): string {
  const monthly = sizes.flatMap((size) =>
    prices.classes.map((of) => {
      const first = month(size, of);
      const later = growths.map((growth) => {
        const { storage, requests, checks } = month(stored(size, growth, 12), of);
        return dollars(storage + requests + checks);
      });
      const cells = [dollars(first.storage), dollars(first.requests), dollars(first.checks)];
      return row([`${size} GB`, of.name, ...cells, ...later, dollars(restore(size, of))]);
    }),
  );
  const grown = sizes.map((size) =>
    row([`${size} GB`, "", ...growths.map((growth) => `${Math.round(stored(size, growth, 12))} GB`)]),
  );
  const servers = Object.entries(prices.machines.instances).map(([type, hourly]) => {
    const cost = (gigabytes: number) =>
      dollars(monthlyCost({ instanceType: type, dataGibibytes: gigabytes }).total ?? 0);
    return row([type, "", dollars(hourly * assumed.hours), ...sizes.map((size) => cost(size))]);
  });
  return `# What AWS costs

<!-- Made by \`npm run docs\` from docs/costs.ts: change the prices and texts there. -->

US dollars a month at AWS, by the prices of ${prices.date} in
${prices.regions} for S3, and in ${prices.machines.region}
for machines, without taxes. They were not looked up on the day this was computed: compare them with
<https://aws.amazon.com/s3/pricing/>, <https://aws.amazon.com/ec2/pricing/on-demand/> and
<https://aws.amazon.com/ebs/pricing/>, correct them in \`docs/costs.ts\`, and run \`npm run docs\`. Other providers of S3 storage are often cheaper, and many charge
nothing for reading. The stack's output \`monthlyCost\` is made from the same prices.

## The bucket

${[...head(["data", "storage class", "storage", "requests", "checks", ...growths.map(({ name }) => `all, after a year, ${name}`), "one restore"]), ...monthly].join("\n")}

- **data** is what the CHT has on its disk. What borg saves by compression is not counted, so the first copy is smaller.
- **storage**, **requests** and **checks** are those of the first month. Checks read up to ${assumed.readBack} segments a month
  (\`cht-backup:bucket.readBack\`).
- **one restore** reads the first copy once over the internet; the first ${prices.outFree} GB of a month are free of the charge for leaving
  AWS, here and for the checks.
- Requests are few because borg packs its chunks into segments of 500 MB, and a segment is one object: a backup writes some
  ${assumed.changed}. Lengthening the locks is one request for each object in ${assumed.lengthening} days.
- In the two cheaper classes only segments are stored; the small files stay in Standard. An object is billed for at least ${prices.classes
    .map(({ least }) => least)
    .filter((days) => days > 0)
    .join(" or ")}
  days there, which the lock makes it stay anyway, or nearly.

## The server

What \`cht-backup:server.aws\` makes, in ${prices.machines.region}; us-east-1 (N. Virginia) is some 9 % cheaper, Cape Town and São Paulo
are dearer:

${[...head(["type", "", "instance", ...sizes.map((size) => `all, with ${size} GB`)]), ...servers].join("\n")}

- **all** is the instance on demand (a year's commitment saves about a third), a volume (gp3) of that size and the system's of
  ${assumed.system} GB at ${prices.machines.volume} a gigabyte, and a public IPv4 address at ${dollars(prices.machines.address * assumed.hours)}. IPv6 is free.
- Traffic into AWS is free, and so is the server's with a bucket of the same region. With one in another region each new gigabyte
  costs some 0.02 more. Reading over the internet is in the table above.
- The types are burstable: a first upload and the checks may use up their credits, and each further hour of a processor then
  costs some 0.04. A nano's memory of 0.5 GB is too little for a large repository.
- A KMS key of your own costs 1.00 a month, wherever one is named.

## Growth

Nothing is removed from the bucket, and without \`npm run retention\` nothing from the server, so the bill grows. After a year:

${[...head(["data", "", ...growths.map(({ name }) => name)]), ...grown].join("\n")}

What makes it grow is CouchDB's compaction: it writes a database anew, and ${Math.round(COMPACTION * 100)} % of a full copy is stored again
([measurements](measurements.md#growth)). The two columns are assumptions, not measurements: **quiet** adds ${growths[0] && growths[0].plain * 100} % on a plain
day, and everything is compacted once in three months; **busy** adds ${growths[1] && growths[1].plain * 100} %, once a month. In the measured data it was 19 %
on a plain day, but with 3 % of all documents new or edited every day, and in databases so small that the last chunk of each
file weighs most: don't reckon with that. Look at what your own server's repository grows by in a month, and reckon with it.
`;
}
