/** `cht-backup:server`: where the backups are kept, and what a client may do there at most. */
import { z } from "zod";
import { hostPattern } from "../provider/connection";
import { chtNetworks, type ServerAws, serverAwsSchema } from "./aws-server";
import { path, pathRule } from "./formats";
import type { Machines } from "./machines";

export const serverSchema = z
  .strictObject({
    dataDirectory: path().default("/srv/cht-backup").meta({
      description: "The directory on the machine `server` that holds the repositories of all deployments.",
      allowed: pathRule,
      example: "/mnt/backup",
    }),
    address: z
      .string()
      .regex(hostPattern)
      .optional()
      .meta({
        description:
          "Where the CHT machine reaches the server. Give it where that is another address than your computer's, " +
          "or where `host:machines.server.address` is an alias that only your ssh configuration knows.",
        allowed: "a host name or an IP address",
        example: "10.0.0.2",
        fallback: "`host:machines.server.address`",
      }),
    port: z.int().min(1).max(65535).optional().meta({
      description: "The port on which the CHT machine reaches the server's SSH.",
      allowed: "a port, a number from 1 to 65535",
      example: "2222",
      fallback: "`host:machines.server.port`, else 22",
    }),
    reserveMebibytes: z
      .int()
      .min(1)
      .max(1_048_576)
      .default(1024)
      .meta({
        description:
          "Disk space held back in a file, in MiB. When the disk is full, borg needs some even to list; " +
          "deleting the file is the way out.",
        allowed: "a whole number of MiB from 1 to 1048576",
        example: "1024",
      }),
    limits: z
      .strictObject({
        commitsPerDay: z
          .int()
          .min(300)
          .max(100_000)
          .default(600)
          .meta({
            description:
              "Transactions that the server takes within a day. A long first upload makes one every five minutes (288); " +
              "who makes thousands wants to fill the disk, or the bucket.",
            allowed: "a whole number from 300 to 100000",
            example: "600",
          }),
        sessionDays: z.int().min(1).max(365).default(45).meta({
          description: "How long one session may last, in days: longer than the first upload takes on your link.",
          allowed: "a whole number from 1 to 365",
          example: "45",
        }),
        quotaGibibytes: z
          .int()
          .min(0)
          .max(1_048_576)
          .default(0)
          .meta({
            description:
              "How large the repository may become, in GiB; 0 is no limit. Give one to each deployment that shares a server, " +
              "or one of them can fill the disk for all. A backup that would go beyond it fails, which raises the alarm; " +
              "another comes before that, at four fifths.",
            allowed: "a whole number of GiB from 0 to 1048576",
            example: "500",
          }),
        idleHours: z
          .int()
          .min(1)
          .max(720)
          .default(48)
          .meta({
            description:
              "How long a session may say nothing, in hours, until it is ended and gives its lock back. A backup says " +
              "nothing while it reads what is stored already.",
            allowed: "a whole number from 1 to 720",
            example: "48",
          }),
      })
      .prefault({})
      .meta({
        description:
          "What a client may do at most, so that a CHT host in other hands can't keep the server busy, or full. An honest " +
          "deployment doesn't meet these limits.",
        allowed: "a mapping of `commitsPerDay`, `sessionDays`, `quotaGibibytes`, `idleHours`",
        example: "{ sessionDays: 90 }",
      }),
    aws: serverAwsSchema.optional(),
  })
  .prefault({})
  .meta({
    description: "The offsite server.",
    allowed: "a mapping of `dataDirectory`, `address`, `port`, `reserveMebibytes`, `aws`",
    example: "{ dataDirectory: /mnt/backup }",
  });

type Given = z.output<typeof serverSchema>;

/** The offsite server, one that exists already or one that the stack makes. */
export type Server = Required<Omit<Given, "aws" | "address">> & (Existing | ToMake);

interface Existing {
  /** Where the CHT machine reaches it. */
  address: string;
  aws?: undefined;
}

interface ToMake {
  /** Undefined until `withMade`: the one that it gets at AWS. */
  address: string | undefined;
  aws: Omit<ServerAws, "chtNetworks"> & { chtNetworks: readonly string[] };
}

/** @param machines checked: a server that the stack doesn't make has an address */
export function serverOf({ aws, ...given }: Given, machines: Machines): Server {
  const place = { ...given, port: given.port ?? machines.server.port ?? 22 };
  const address = given.address ?? machines.server.address;
  if (aws === undefined) return { ...place, address: address as string };
  return { ...place, address, aws: { ...aws, chtNetworks: chtNetworks(aws.chtNetworks, machines.cht.address) ?? [] } };
}
