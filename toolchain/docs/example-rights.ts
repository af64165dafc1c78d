/** The rights at AWS that docs/production.md gives, for the stack of the example, `Pulumi.prod.yaml`. Pure but for reading that. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { exampleBoundary, operatorPolicy, statePolicy } from "../../components/aws-operator-rights";
import { boundaryPolicy, deleterPolicy, type PolicyDocument, type Statement } from "../../components/aws-policies";
import { project } from "../paths";
import { Problem } from "../progress";

/** What docs/production.md has replaced: an account (the one in AWS' own examples), the key of the secrets, two buckets. */
const account = "123456789012";
const kmsKeyArn = `arn:aws:kms:eu-west-1:${account}:key/1234abcd-12ab-34cd-56ef-1234567890ab`;
const stateBucket = "moh-pulumi-state";
const copies = "moh-backup-copy";

/** The part of a policy that changes nothing, for who only looks. Pure. */
export function lookingOnly({ Version, Statement: statements }: PolicyDocument): PolicyDocument {
  const looks = (action: string) => /:(?:Get|List|Describe|Decrypt)/.test(action);
  const looking = ({ Action = [] }: Statement) => [Action].flat().filter(looks);
  return {
    Version,
    Statement: statements
      .map((statement) => ({ ...statement, Action: looking(statement) }))
      .filter(({ Action }) => Action.length > 0),
  };
}

/** @throws Problem where the stack's file isn't the example any more: README.md has its owner overwrite it. */
function example(file: string): { deployment: string; region: string } {
  const config = parse(readFileSync(file, "utf8"))?.config ?? {};
  const region = config["cht-backup:server"]?.aws?.region;
  if (typeof region !== "string") {
    throw new Problem(
      "Pulumi.prod.yaml is no longer the example, from which the rights in docs/examples are made: those are left as they are",
    );
  }
  return { deployment: config["cht-backup:deployment"] ?? "prod", region };
}

/**
 * By who gets them: who runs `up`, who keeps states in the bucket for them, the pipeline, which only looks, and who removes
 * old copies. And the boundary of those whom the operator makes.
 */
export function rightsOfTheExample(
  file: string = join(project, "Pulumi.prod.yaml"),
): Record<"operator" | "boundary" | "state" | "pipeline" | "retention", PolicyDocument> {
  const { deployment, region } = example(file);
  const operator = operatorPolicy({
    account,
    deployment,
    server: { region },
    bucket: { name: copies },
    boundary: exampleBoundary,
  });
  const boundary = boundaryPolicy({ bucketArn: `arn:aws:s3:::${copies}` });
  const state = statePolicy({ bucket: stateBucket, kmsKeyArn });
  const [looks, reads] = [lookingOnly(operator), lookingOnly(state)];
  const pipeline = { ...looks, Statement: [...looks.Statement, ...reads.Statement] };
  const retention = deleterPolicy({ bucketArn: `arn:aws:s3:::${copies}`, prefix: `${deployment}/` });
  return { operator, boundary, state, pipeline, retention };
}
