/** `cht-backup:server.aws`: the server that the stack makes. */
import { isIP } from "node:net";
import { z } from "zod";
import { isPublicKey } from "../provider/connection";
import { profile, tags } from "./aws";
import { canonicalNetwork, isNetwork } from "./networks";

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
          "five times what the CHT has on its disk, and eight times where most of that are photos (docs/costs.md).",
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

export type ServerAws = z.output<typeof serverAwsSchema>;

/** Who Pulumi, and every operator, logs in as on a server that the stack makes. */
export const SERVER_ADMIN = "cht-admin";

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
