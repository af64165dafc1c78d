/** The bucket at AWS. Loaded only by stacks that make one: the SDK takes a second. */
import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { AccessKey, BucketAws, StackBucket } from "../config";
import { type BucketRights, bucketPolicy, iamPath, lifecycleRules, readerPolicy, writerPolicy } from "./aws-policies";
import { awsProvider, boundaryIn } from "./aws-provider";

export interface AwsBucketArgs {
  deployment: string;
  bucket: Pick<StackBucket, "name" | "region" | "prefix" | "mode" | "lockDays">;
  settings: BucketAws;
  /** The role that writes; undefined: a user is made for that, with a key. */
  role: aws.iam.Role | undefined;
}

/**
 * A bucket at AWS that nobody can shorten, and who may write to it and read from it. Everything that protects what is in it
 * stays with it when the stack is destroyed.
 *
 * It is encrypted with S3's own key: whoever could delete a key of KMS would take all copies away with it.
 */
export class AwsBucket extends pulumi.ComponentResource {
  /** The writer's key, a secret; undefined where the role writes. */
  readonly writer: pulumi.Output<AccessKey> | undefined;
  /** The reader's key, a secret. */
  readonly reader: pulumi.Output<AccessKey>;
  /** All that has to be there before anything is copied. */
  readonly parts: pulumi.Resource[];

  constructor(name: string, args: AwsBucketArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:AwsBucket", name, {}, opts);
    const { deployment, settings, role } = args;
    const { name: bucketName, region, prefix, mode, lockDays } = args.bucket;
    const child = { parent: this, provider: awsProvider("bucket-aws", region, settings, deployment, this) };
    const kept = { ...child, retainOnDelete: true };

    const bucket = settings.adopt
      ? aws.s3.Bucket.get("adopted-bucket", bucketName, {}, child)
      : new aws.s3.Bucket("bucket", { bucket: bucketName, objectLockEnabled: true, forceDestroy: false }, kept);
    // A bucket's id is its name.
    const of = { bucket: bucket.id };
    const arn = pulumi.interpolate`arn:aws:s3:::${bucket.id}`;
    const versioning = new aws.s3.BucketVersioning(
      "bucket-versioning",
      { ...of, versioningConfiguration: { status: "Enabled" } },
      kept,
    );
    const closed = new aws.s3.BucketPublicAccessBlock(
      "bucket-public-access",
      { ...of, blockPublicAcls: true, blockPublicPolicy: true, ignorePublicAcls: true, restrictPublicBuckets: true },
      kept,
    );

    const longestLockDays = lockDays + 1;
    const document = (make: (of: BucketRights) => object) =>
      arn.apply((bucketArn) => JSON.stringify(make({ bucketArn, prefix })));
    const writing = document((given) => writerPolicy({ ...given, longestLockDays }));
    const path = iamPath(deployment);
    const permissionsBoundary = boundaryIn(settings.boundary, child);
    const user = (who: "writer" | "reader", policy: pulumi.Output<string>, opts: pulumi.CustomResourceOptions) => {
      const made = new aws.iam.User(`bucket-${who}`, { path, permissionsBoundary }, opts);
      const allowed = new aws.iam.UserPolicy(`bucket-${who}-rights`, { user: made.name, policy }, opts);
      const { id, secret } = new aws.iam.AccessKey(`bucket-${who}-key`, { user: made.name }, opts);
      const key = pulumi.secret(
        pulumi.all([id, secret]).apply(([accessKeyId, secretAccessKey]) => ({ accessKeyId, secretAccessKey })),
      );
      return { arn: made.arn, key, allowed };
    };
    // The recovery kit's key for the copies: it has to open them when the stack is gone.
    const reader = user("reader", document(readerPolicy), kept);
    const writer =
      role === undefined
        ? user("writer", writing, child)
        : { arn: role.arn, key: undefined, allowed: rightsOf(role, writing) };

    const account = aws.getCallerIdentityOutput({}, child).accountId;
    const policy = pulumi
      .all([arn, account, writer.arn, reader.arn])
      .apply(([bucketArn, number, writerArn, readerArn]) =>
        JSON.stringify(bucketPolicy({ bucketArn, prefix, longestLockDays, account: number, writerArn, readerArn })),
      );
    this.parts = [
      bucket,
      versioning,
      closed,
      writer.allowed,
      reader.allowed,
      new aws.s3.BucketObjectLockConfiguration(
        "bucket-object-lock",
        { ...of, rule: { defaultRetention: { mode: mode.toUpperCase(), days: lockDays } } },
        { ...kept, dependsOn: versioning },
      ),
      new aws.s3.BucketServerSideEncryptionConfiguration(
        "bucket-encryption",
        {
          ...of,
          // Keys that requests bring are switched off by AWS itself for new buckets; left out, that would be drift.
          rules: [
            {
              applyServerSideEncryptionByDefault: { sseAlgorithm: "AES256" },
              blockedEncryptionTypes: ["SSE-C"],
            },
          ],
        },
        kept,
      ),
      new aws.s3.BucketOwnershipControls(
        "bucket-ownership",
        { ...of, rule: { objectOwnership: "BucketOwnerEnforced" } },
        kept,
      ),
      new aws.s3.BucketLifecycleConfiguration("bucket-lifecycle", { ...of, rules: lifecycleRules }, kept),
      new aws.s3.BucketPolicy("bucket-policy", { ...of, policy }, { ...kept, dependsOn: closed }),
    ];
    this.writer = writer.key;
    this.reader = reader.key;
    this.registerOutputs({});
  }
}

/** The role may be of another account, so its rights go by the provider that made it. */
function rightsOf(role: aws.iam.Role, policy: pulumi.Output<string>): pulumi.Resource {
  return new aws.iam.RolePolicy("server-role-rights", { role: role.name, policy }, { parent: role });
}
