/** What the settings of the server and of the bucket at AWS have in common. */
import { z } from "zod";

export const profile = () =>
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

export const tags = () =>
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
