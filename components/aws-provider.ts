/** A provider of AWS for a region, and what it is asked for. */
import * as aws from "@pulumi/aws";
import type * as pulumi from "@pulumi/pulumi";
import { deploymentTag, policyArn } from "./aws-policies";

/** A provider for one region, and one account. */
export function awsProvider(
  name: string,
  region: string,
  { profile, tags }: { profile?: string | undefined; tags: Record<string, string> },
  deployment: string,
  parent: pulumi.Resource,
): aws.Provider {
  return new aws.Provider(
    name,
    {
      region,
      profile,
      defaultTags: { tags: { ...tags, [deploymentTag]: deployment, Name: `cht-backup-${deployment}` } },
      // A pipeline may run on a machine of EC2, whose role is its credential.
      skipMetadataApiCheck: false,
    },
    { parent },
  );
}

/** The ARN of a boundary in the provider's account. */
export function boundaryIn(name: string | undefined, opts: pulumi.InvokeOptions): pulumi.Output<string> | undefined {
  if (name === undefined) return undefined;
  return aws.getCallerIdentityOutput({}, opts).accountId.apply((account) => policyArn(account, name));
}
