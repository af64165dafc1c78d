/** `cht-backup:cht`: where the CHT is on its machine. */
import { z } from "zod";
import { path, pathRule } from "./formats";

export const chtSchema = z
  .strictObject({
    home: path().default("/home/ubuntu/cht").meta({
      description: "The directory that holds `compose/` and `upgrade-service/`.",
      allowed: pathRule,
      example: "/srv/cht",
    }),
    composeProject: z
      .string()
      .regex(/^[a-z0-9][a-z0-9_-]*$/)
      .default("cht")
      .meta({
        description: "Name of the CHT's project in Docker Compose.",
        allowed: "lower-case letters, digits, dashes and underscores, a letter or digit first",
        example: "cht",
      }),
    couchdbData: z
      .array(path().meta({ description: "One data directory.", allowed: pathRule, example: "/srv/couchdb1" }))
      .default([])
      .meta({
        description: "CouchDB's data directories: one, or one of every node of a cluster.",
        allowed: "a list of absolute paths, none twice",
        example: "[/srv/couchdb1, /srv/couchdb2, /srv/couchdb3]",
        fallback:
          "what CouchDB's containers have mounted; without them what `upgrade-service/.env` names: `COUCHDB_DATA`, or `DB1_DATA` and the others of a cluster",
      }),
  })
  .prefault({})
  .meta({
    description: "The CHT deployment on the machine `cht`.",
    allowed: "a mapping of `home`, `composeProject`, `couchdbData`",
    example: "{ home: /srv/cht }",
  });
