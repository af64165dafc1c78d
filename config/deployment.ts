/** `cht-backup:deployment`: the name by which everything on machines is told from other deployments' things. */
import { z } from "zod";

export const deploymentRule =
  "lower-case letters, digits and dashes, a letter first, 21 characters at most, not ending in `-failed`, `-overdue` " +
  "or `-cleanup`";

/** A deployment with one of these endings would have the units of the deployment without it. */
export const isDeployment = (name: string) =>
  /^[a-z][a-z0-9-]{0,20}$/.test(name) && !/-(failed|overdue|cleanup)$/.test(name);

export const deploymentSchema = z
  .string()
  .refine(isDeployment)
  .optional()
  .meta({
    description:
      "Name of the CHT deployment. It is part of every user, path and unit on the machines, so several " +
      "deployments can share a server, and it can't be changed later without a second, new repository.",
    allowed: deploymentRule,
    example: "moh",
    fallback: "the stack's name",
  });
