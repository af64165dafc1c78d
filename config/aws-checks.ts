/** The mistakes in settings for AWS that a schema can't find: they need several settings, or AWS' own lists. */
import { deploymentTag } from "../components/aws-policies";
import { asMapping, core, found, mustBe } from "../provider/mistakes";
import { regionMistake } from "./aws-regions";
import { chtNetworks, serverAwsSchema } from "./aws-server";
import { isNetwork, isPrivateNetwork } from "./networks";

type Mapping = Record<string, unknown>;

/** The mistakes in settings for AWS that a schema can't find. */
export function awsMistakes(given: Mapping): string[] {
  return [
    ...serverMistakes(given),
    ...bucketMistakes(asMapping(given["cht-backup:bucket"])),
    ...["cht-backup:server", "cht-backup:bucket"].flatMap((at) =>
      tagMistakes(`${at}.aws.tags`, asMapping(asMapping(asMapping(given[at])?.aws)?.tags)),
    ),
  ];
}

/** What AWS takes at most for one resource, less the two that the stack gives it itself, and their names. */
const tagLimit = 48;
const ownTags = ["Name", deploymentTag];

/** Tags that EC2 would take together, and IAM doesn't: their names are the same to it in any case of letters. */
function tagMistakes(at: string, tags: Mapping | undefined): string[] {
  const names = Object.keys(tags ?? {});
  const lines = names.flatMap((name, index) => {
    const same = [...ownTags, ...names.slice(0, index)].find(
      (other) => other !== name && other.toLowerCase() === name.toLowerCase(),
    );
    return same === undefined
      ? []
      : [`${at}: has the names ${same} and ${name}, which are the same to IAM; must have one`];
  });
  if (names.length > tagLimit)
    lines.push(`${at}: found ${names.length} tags; must be ${tagLimit} at most: AWS takes 50, and the stack gives two`);
  return lines;
}

function serverMistakes(given: Mapping): string[] {
  const aws = asMapping(asMapping(given["cht-backup:server"])?.aws);
  if (aws === undefined) return [];
  const machines = asMapping(given["host:machines"]);
  const server = asMapping(machines?.server) ?? {};
  const lines: string[] = [];
  const known = "the stack makes that machine and knows it";
  for (const name of ["address", "user", "port", "hostKey", "sudo"]) {
    if (server[name] === undefined) continue;
    lines.push(
      `host:machines.server.${name}: ${found(server[name])} with cht-backup:server.aws; must be left out: ${known}`,
    );
  }
  const { region, availabilityZone: zone } = aws;
  lines.push(...regionMistakes("cht-backup:server.aws.region", region));
  if (typeof region === "string" && typeof zone === "string" && !zone.startsWith(region)) {
    lines.push(
      `cht-backup:server.aws.availabilityZone: ${found(zone)} in the region ${region}; must be one of that region, for ` +
        `instance ${region}a`,
    );
  }
  if (zone !== undefined && aws.vpc !== undefined) {
    lines.push(
      `cht-backup:server.aws.availabilityZone: ${found(zone)} with vpc; must be left out: the server is in its subnet's zone`,
    );
  }
  lines.push(...networkMistakes(given, aws));
  const address = asMapping(machines?.cht)?.address;
  if (aws.chtNetworks === undefined && typeof address === "string" && chtNetworks(undefined, address) === undefined) {
    lines.push(
      `cht-backup:server.aws.chtNetworks: missing, and host:machines.cht.address is no IP address; ` +
        `${mustBe(serverAwsSchema.shape.chtNetworks)}`,
    );
  }
  const drill = asMapping(given["cht-backup:drill"]) ?? {};
  if (drill.machine === "server" && drill.enabled !== false && drill.manageDocker !== false) {
    lines.push(
      "cht-backup:drill.manageDocker: must be false for the machine server with cht-backup:server.aws: the Docker plugin " +
        "needs an address before there is one",
    );
  }
  return lines;
}

/** Networks that can't be what is meant. An address that isn't of the internet never reaches AWS; the server has one of IPv4. */
function networkMistakes(given: Mapping, aws: Mapping): string[] {
  const lines: string[] = [];
  const cht = asMapping(asMapping(given["host:machines"])?.cht)?.address;
  const named = [
    { at: "cht-backup:server.aws.operatorNetworks", value: aws.operatorNetworks },
    {
      at: "cht-backup:server.aws.chtNetworks",
      value: aws.chtNetworks ?? (typeof cht === "string" ? chtNetworks(undefined, cht) : undefined),
    },
  ];
  for (const { at, value } of named) {
    if (!Array.isArray(value) || value.length === 0 || !value.every((one) => typeof one === "string" && isNetwork(one)))
      continue;
    const inside = aws.vpc === undefined ? value.find(isPrivateNetwork) : undefined;
    if (inside !== undefined) {
      lines.push(
        `${at}: ${found(inside)}, which no server on the internet ever sees; must be the address as the internet sees it: ` +
          "`curl https://checkip.amazonaws.com` shows it there",
      );
    }
    const reached = asMapping(given["cht-backup:server"])?.address;
    if (value.every((one) => one.includes(":")) && (at.endsWith("operatorNetworks") || reached === undefined)) {
      lines.push(`${at}: found networks of IPv6 alone; must have one of IPv4, too: that is how the server is reached`);
    }
  }
  return lines;
}

function regionMistakes(at: string, region: unknown): string[] {
  if (typeof region === "string" && /^(cn|us-gov|us-iso|eu-iso|eusc)/.test(region)) {
    return [
      `${at}: ${found(region)}, which isn't in AWS' public partition; must be a region that is, for instance eu-west-1`,
    ];
  }
  const mistake = typeof region === "string" && region !== "" ? regionMistake(region) : undefined;
  return mistake === undefined ? [] : [`${at}: ${found(region)}, which ${mistake}`];
}

function bucketMistakes(bucket: Mapping | undefined): string[] {
  if (bucket === undefined) return [];
  const aws = asMapping(bucket.aws);
  if (aws === undefined) return [];
  const lines: string[] = [];
  const { region } = bucket;
  const allowed = core(serverAwsSchema.shape.region);
  if (region === undefined) lines.push(`cht-backup:bucket.region: missing with aws; ${mustBe(allowed)}`);
  lines.push(...regionMistakes("cht-backup:bucket.region", region));
  for (const name of ["endpoint", "pathStyle", "accessKeyId", "secretAccessKey", "reader"]) {
    if (bucket[name] === undefined) continue;
    lines.push(
      `cht-backup:bucket.${name}: ${found(bucket[name], name !== "endpoint" && name !== "pathStyle")} with aws; must be left ` +
        "out: the stack makes the bucket and its users",
    );
  }
  if (typeof bucket.name === "string" && bucket.name.includes(".")) {
    lines.push(
      `cht-backup:bucket.name: ${found(bucket.name)} with aws; must have no dots there: the certificate of such a bucket's ` +
        "host name doesn't hold",
    );
  }
  return lines;
}
