/** docs/costs.md: what AWS costs, by size and storage class, from the prices in `components/aws-costs.ts`. */
import { join } from "node:path";
import {
  assumed,
  COMPACTION,
  dollars,
  growths,
  kept,
  month,
  monthlyCost,
  prices,
  restore,
  stays,
  stored,
} from "../../components/aws-costs";
import { project } from "../paths";

export const costsFile = join(project, "docs", "costs.md");

const sizes = [20, 100, 700];
/** What compression left of the simulated year's data, as of the ten days': docs/measurements.md. */
const compressed = 0.56;
const row = (cells: (string | number)[]) => `| ${cells.join(" | ")} |`;
const head = (cells: string[]) => [row(cells), row(cells.map((_, index) => (index < 2 ? "---" : "---:")))];

/** The whole page. Pure. */
export function costs(): string {
  const monthly = sizes.flatMap((size) =>
    prices.classes.map((of) => {
      const first = month(size, of);
      const later = growths.map((growth) => {
        const { storage, requests, checks } = month(stays(size, growth).bucket, of);
        return dollars(storage + requests + checks);
      });
      const cells = [dollars(first.storage), dollars(first.requests), dollars(first.checks)];
      return row([`${size} GB`, of.name, ...cells, ...later, dollars(restore(size, of))]);
    }),
  );
  const gigabytes = (value: number) => `${Math.round(value)} GB`;
  const grown = sizes.map((size) => {
    const each = growths.flatMap((growth) => {
      const { server, bucket } = stays(size, growth);
      return [server, bucket, stored(size, growth, 12)].map(gigabytes);
    });
    return row([`${size} GB`, "", ...each]);
  });
  const places = growths.flatMap(({ name }) => [`server, ${name}`, `bucket, ${name}`, `for ever, ${name}`]);
  const servers = Object.entries(prices.machines.instances).map(([type, hourly]) => {
    const cost = (gigabytes: number) =>
      dollars(monthlyCost({ instanceType: type, dataGibibytes: gigabytes }).total ?? 0);
    return row([type, "", dollars(hourly * assumed.hours), ...sizes.map((size) => cost(size))]);
  });
  return `# What AWS costs

<!-- Made by \`npm run docs\` from components/aws-costs.ts: change the prices and texts there. -->

US dollars a month at AWS, by the prices of ${prices.date} in
${prices.regions} for S3, and in ${prices.machines.region}
for machines, without taxes. Newer ones with a date couldn't be
had where this was written (looked for in November 2026): compare them with
<https://aws.amazon.com/s3/pricing/>, <https://aws.amazon.com/ec2/pricing/on-demand/> and
<https://aws.amazon.com/ebs/pricing/>, correct them in \`components/aws-costs.ts\`, and run \`npm run docs\`. Other providers of S3 storage are often cheaper, and many charge
nothing for reading. The stack's output \`monthlyCost\` is made from the same prices.

## The bucket

${[...head(["data", "storage class", "storage", "requests", "checks", ...growths.map(({ name }) => `all, in the long run, ${name}`), "one restore"]), ...monthly].join("\n")}

- **data** is what the CHT has on its disk. What borg saves by compression is not counted, so the first copy is smaller.
- **storage**, **requests** and **checks** are those of the first month. Checks read up to ${assumed.readBack} segments a month
  (\`cht-backup:bucket.readBack\`).
- **one restore** reads the first copy once over the internet; the first ${prices.outFree} GB of a month are free of the charge for leaving
  AWS, here and for the checks.
- Requests are few because borg packs its chunks into segments of 500 MB, and a segment is one object: each of ${assumed.copies} copies a month
  writes some ${assumed.changed}. Lengthening the locks is one request for each object in ${assumed.lengthening} days.
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

With \`npm run retention\` every week by the default policy, and the bucket's part of it, the bill stops growing; **for ever** is
what there would be after a year in which nothing is removed, and more each year:

${[...head(["data", "", ...places]), ...grown].join("\n")}

What makes it grow is CouchDB's compaction: it writes a database anew, and ${Math.round(COMPACTION * 100)} % of a full copy is stored again
([measurements](measurements.md#growth)). So each month that is kept is a full copy. How much is written is assumed, not measured:
**quiet** adds ${growths[0] && growths[0].plain * 100} % on a plain day, and everything is compacted once in three months; **busy** adds ${growths[1] && growths[1].plain * 100} %, once a month. What
stays of it is a model, which was held against [a simulated year](measurements.md#a-year-with-retention): a real repository of the
busy kind had 3.6 times the data on the server, with the ${Math.round((1 - compressed) * 100)} % that borg's compression saved there, which is 6.5 copies without; the
model says ${((growths[1] && stays(1, growths[1]).server) ?? 0).toFixed(1)}. The bucket keeps what the server has freed for some ${kept.locked} days more, as locks end no sooner.

**How large a disk**: five times what the CHT has on its disk, and eight times where most of that are photos, which compression
doesn't make smaller.
`;
}
