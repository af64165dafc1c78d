/** The settings of what a stack makes at AWS: `cht-backup:server.aws` and `cht-backup:bucket.aws`. */
import { isIP } from "node:net";
import { z } from "zod";
import { regionMistake } from "./components/aws-regions";
import { deploymentTag } from "./components/policies";
import { canonicalNetwork, isNetwork, isPrivateNetwork } from "./config-formats";
import { isPublicKey } from "./provider/connection";
import { asMapping, core, found, mustBe } from "./provider/mistakes";

const profile = () =>
  z
    .string()
    .regex(/^[A-Za-z0-9_.@+-]{1,100}$/)
    .optional()
    .meta({
      description: "The profile of your AWS configuration (`~/.aws/config`) that this is made with.",
      allowed: "the name of a profile",
      example: "moh-backup",
      fallback: "what AWS' tools take by themselves: the environment, or the profile `default`",
    });

const tags = () =>
  z
    .record(
      z
        .string()
        .regex(/^(?!aws:)[A-Za-z0-9_.:/=+@ -]{1,128}$/i)
        .meta({
          description: "A tag's name.",
          allowed: "1 to 128 letters, digits, spaces and the characters `_.:/=+@-`, not beginning with `aws:`",
        }),
      z
        .string()
        .regex(/^[\p{L}\p{Z}\p{N}_.:/=+\-@]{0,256}$/u)
        .meta({
          description: "A tag's value.",
          allowed: "at most 256 letters, digits, spaces and the characters `_.:/=+-@`",
          example: "moh",
        }),
    )
    .default({})
    .meta({
      description: "Tags for everything that is made, besides `cht-backup:deployment` and `Name`.",
      allowed: "a mapping of names to texts",
      example: "{ owner: moh, project: cht }",
    });

/** A public key, whose comment is dropped. */
const publicKey = () =>
  z
    .string()
    .overwrite((text) => text.trim().split(/\s+/).slice(0, 2).join(" "))
    .refine(isPublicKey);

const networks = (description: string, fallback?: string) =>
  z
    .array(
      z.string().overwrite(canonicalNetwork).refine(isNetwork).meta({
        description: "One network.",
        allowed: "a network in CIDR notation, IPv4 from /8 or IPv6 from /16 on",
        example: "203.0.113.7/32",
      }),
    )
    .min(1)
    .meta({
      description,
      allowed: "a list of networks in CIDR notation, one at least",
      example: "[203.0.113.7/32, 2001:db8:1::/48]",
      ...(fallback === undefined ? {} : { fallback }),
    });

const id = (prefix: string, description: string, fallback?: string) =>
  z
    .string()
    .regex(new RegExp(`^${prefix}-[0-9a-f]{8,17}$`))
    .meta({
      description,
      allowed: `\`${prefix}-\` and its id`,
      example: `${prefix}-0123456789abcdef0`,
      ...(fallback === undefined ? {} : { fallback }),
    });

/** `cht-backup:server.aws`. */
export const serverAwsSchema = z
  .strictObject({
    region: z
      .string()
      .min(1)
      .meta({
        description:
          "The region. Another country than the CHT's, where the law allows it: the backup is for the day on which the " +
          "first place is gone. It can't be changed later.",
        allowed: "a region of AWS",
        example: "eu-west-1",
      }),
    availabilityZone: z
      .string()
      .regex(/^[a-z0-9-]+[a-z]$/)
      .optional()
      .meta({
        description:
          "The availability zone, for the stack's own network. It can't be changed later, and another one then says nothing: the " +
          "data volume stays in it.",
        allowed: "a zone of the region; nothing with `vpc`, whose subnet has one",
        example: "eu-west-1b",
        fallback: "AWS chooses",
      }),
    profile: profile(),
    instanceType: z
      .string()
      .regex(/^[a-z][a-z0-9-]*\.[a-z0-9-]+$/)
      .default("t4g.small")
      .meta({
        description:
          "The instance's type, of the Nitro system. Its processor decides which image is taken: arm64 for types of Graviton " +
          "processors. A change stops the server for a few minutes.",
        allowed: "a type of EC2",
        example: "t4g.micro",
      }),
    image: z
      .enum(["debian-13", "ubuntu-24.04"])
      .default("debian-13")
      .meta({
        description:
          "The distribution; its newest image at the time of the first `up` is taken and kept. Security updates come by " +
          "themselves.",
        allowed: "`debian-13` or `ubuntu-24.04`",
        example: "ubuntu-24.04",
      }),
    dataGibibytes: z
      .int()
      .min(1)
      .max(16_384)
      .default(100)
      .meta({
        description:
          "The size of the volume that holds the repositories, or of the one that `volumeId` names, for the cost. It can be made larger later, never smaller (its file system " +
          "grows at the server's next boot, or at once by `systemctl restart cht-data-volume.service` there); reckon with " +
          "twice what the CHT has on its disk for the first year (docs/costs.md).",
        allowed: "a whole number of GiB from 1 to 16384",
        example: "200",
      }),
    volumeId: id(
      "vol",
      "A data volume that exists, in the same zone, instead of a new one: for instance what a stack left that was destroyed. " +
        "It isn't formatted when it has a file system.",
      "a new volume",
    ).optional(),
    operatorKeys: z
      .array(
        publicKey().meta({
          description: "One public key.",
          allowed: "a public key on one line, its type and the key, as a file `.pub` has it",
          example: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…",
        }),
      )
      .min(1)
      .meta({
        description: "The SSH keys of those who may log in, as `cht-admin`; nobody else may.",
        allowed: "a list of public keys, one at least",
        example: "[ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…]",
      }),
    operatorNetworks: networks(
      "From where operators log in over SSH. Nobody else reaches the server but the CHT machine.",
    ),
    chtNetworks: networks(
      "From where the CHT machine sends its backups: its address as the internet sees it.",
      "`host:machines.cht.address`, where that is an IP address",
    ).optional(),
    vpc: z
      .strictObject({
        id: id("vpc", "The VPC."),
        subnetId: id("subnet", "A public subnet of it, in the server's availability zone."),
      })
      .optional()
      .meta({
        description: "The network to put the server in.",
        allowed: "a mapping of `id` and `subnetId`",
        example: "{ id: vpc-0123456789abcdef0, subnetId: subnet-0123456789abcdef0 }",
        fallback: "a small one of its own, with IPv4 and IPv6",
      }),
    tags: tags(),
  })
  .meta({
    description:
      "Makes the server at AWS (docs/production.md): an EC2 instance, and a volume for the data that outlives it. Left out, the " +
      "server is the machine `host:machines.server`, which exists already.",
    allowed: "a mapping with at least `region`, `operatorKeys` and `operatorNetworks`",
    example: "{ region: eu-west-1, operatorKeys: [ssh-ed25519 AAAA…], operatorNetworks: [203.0.113.7/32] }",
    fallback: "the server exists already",
  });

/** `cht-backup:bucket.aws`. */
export const bucketAwsSchema = z
  .strictObject({
    profile: profile(),
    adopt: z
      .boolean()
      .default(false)
      .meta({
        description:
          "Takes a bucket of this name that exists already, for instance one that a stack left which was destroyed, in place of " +
          "making one. It must have been made with object lock.",
        allowed: "true or false",
        example: "true",
      }),
    boundary: z
      .string()
      .regex(/^[A-Za-z0-9_+=,.@-]{1,128}$/)
      .optional()
      .meta({
        description:
          "The policy that is the permissions boundary of the users, and of the server's role, in the account of each. The " +
          "operator of docs/production.md may make none without.",
        allowed: "the name of a policy, without a path",
        example: "cht-backup-boundary",
        fallback: "no boundary",
      }),
    tags: tags(),
  })
  .meta({
    description:
      "Makes the bucket at AWS, in `region`, with object lock, versioning, encryption and no public access, and users for " +
      "writing and reading; a server that is made at AWS, too, writes with its role. `{}` is enough. Left out, the bucket exists " +
      "already.",
    allowed: "a mapping of `profile`, `adopt`, `boundary`, `tags`",
    example: "{}",
    fallback: "the bucket exists already",
  });

export type ServerAws = z.output<typeof serverAwsSchema>;
export type BucketAws = z.output<typeof bucketAwsSchema>;

/** Who Pulumi, and every operator, logs in as on a server that the stack makes. */
export const SERVER_ADMIN = "cht-admin";

type Mapping = Record<string, unknown>;
/**
 * The networks from which the CHT machine sends its backups.
 * @param address `host:machines.cht.address`
 * @returns undefined where neither the setting nor the address says it
 */
export function chtNetworks(given: readonly string[] | undefined, address: string): readonly string[] | undefined {
  if (given !== undefined) return given;
  const version = isIP(address);
  return version === 0 ? undefined : [canonicalNetwork(`${address}/${version === 4 ? 32 : 128}`)];
}

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
