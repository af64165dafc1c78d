/** `cht-backup:bucket.aws`: the bucket that the stack makes. */
import { z } from "zod";
import { profile, tags } from "./aws";

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

export type BucketAws = z.output<typeof bucketAwsSchema>;
