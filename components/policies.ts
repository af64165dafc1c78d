/**
 * Who may do what at AWS, and what happens to old versions in the bucket: documents made from settings alone.
 *
 * The rights of the bucket's writer and reader are the files `bucket-writer-policy.json` and `bucket-reader-policy.json`,
 * which whoever has a bucket already fills in by hand (docs/bucket.md). The bucket's own policy is made from the same
 * files, so that the two can't come apart.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { render } from "./host-files";

export interface Statement {
  Sid: string;
  Effect: "Allow" | "Deny";
  Principal?: "*" | { AWS: string } | { Service: string };
  Action?: string | string[];
  NotAction?: string[];
  Resource?: string | string[];
  NotResource?: string[];
  /** By operator and key. */
  Condition?: Record<string, Record<string, string | string[]>>;
}

/** What IAM and S3 take as JSON. */
export interface PolicyDocument {
  Version: "2012-10-17";
  Statement: Statement[];
}

/** The tag that everything made at AWS has, with the deployment's name. */
export const deploymentTag = "cht-backup:deployment";

/** The path of the users, the role and the instance profile of a deployment, for which its operator has rights. */
export function iamPath(deployment: string): string {
  return `/cht-backup/${deployment}/`;
}

export interface BucketRights {
  /** `arn:aws:s3:::NAME`. */
  bucketArn: string;
  /** What the names of all objects begin with; empty, or ending in `/`. */
  prefix: string;
}

export interface WriterRights extends BucketRights {
  /** The most days that a lock may be set to from today: `lockDays` + 1, for clocks that differ. */
  longestLockDays: number;
}

/** What the bucket's writer may do: put, get, list, lengthen locks. */
export function writerPolicy({ longestLockDays, ...rights }: WriterRights): PolicyDocument {
  return fromFile("writer", rights, longestLockDays);
}

/** What the bucket's reader may do: get and list. */
export function readerPolicy(rights: BucketRights): PolicyDocument {
  return fromFile("reader", rights);
}

function fromFile(name: "writer" | "reader", { bucketArn, prefix }: BucketRights, longest?: number): PolicyDocument {
  const text = readFileSync(join(__dirname, `bucket-${name}-policy.json`), "utf8");
  const days: Record<string, number> = longest === undefined ? {} : { LONGEST_LOCK_DAYS: longest };
  return JSON.parse(render(text, { BUCKET_ARN: bucketArn, PREFIX: prefix, ...days }));
}

export interface BucketPolicyArgs extends WriterRights {
  /** Number of the account that has the bucket. */
  account: string;
  /** ARN of the role or user that writes. */
  writerArn: string;
  /** ARN of the user that reads; undefined where there is none. */
  readerArn?: string;
}

/**
 * The bucket's own policy: what nobody may, and what writer and reader may not, whatever rights they are given elsewhere.
 * It gives rights to nobody but a writer or reader of another account, and none to the public.
 */
export function bucketPolicy({ account, writerArn, readerArn, ...rights }: BucketPolicyArgs): PolicyDocument {
  const { bucketArn } = rights;
  const everything = [bucketArn, `${bucketArn}/*`];
  return {
    Version: "2012-10-17",
    Statement: [
      {
        Sid: "NothingWithoutTls",
        Effect: "Deny",
        Principal: "*",
        Action: "s3:*",
        Resource: everything,
        Condition: { Bool: { "aws:SecureTransport": "false" } },
      },
      {
        // In governance mode it would be allowed to whoever may do everything in the account. This has to be taken out
        // first, which is seen.
        Sid: "NobodyGetsAroundALock",
        Effect: "Deny",
        Principal: "*",
        Action: "s3:BypassGovernanceRetention",
        Resource: `${bucketArn}/*`,
      },
      ...confined("Writer", writerArn, writerPolicy(rights), rights, account),
      ...(readerArn === undefined ? [] : confined("Reader", readerArn, readerPolicy(rights), rights, account)),
    ],
  };
}

const actionsOf = (statements: Statement[]) => [...new Set(statements.flatMap(({ Action }) => Action ?? []))].sort();

/** What keeps somebody to a policy's rights, whatever others they have. */
function confined(
  name: "Writer" | "Reader",
  arn: string,
  policy: PolicyDocument,
  { bucketArn, prefix }: BucketRights,
  account: string,
): Statement[] {
  const theirs = policy.Statement.filter(({ Effect }) => Effect === "Allow");
  // By a condition: as principals they would become identifiers of these very ones, and the rule would no longer hold for
  // a user or role that is made again with the same name.
  const them = { ArnEquals: { "aws:PrincipalArn": arn } };
  const everything = [bucketArn, `${bucketArn}/*`];
  const statements: Statement[] = [
    {
      Sid: `${name}NothingElse`,
      Effect: "Deny",
      Principal: "*",
      NotAction: actionsOf(theirs),
      Resource: everything,
      Condition: them,
    },
    {
      Sid: `${name}NothingElsewhere`,
      Effect: "Deny",
      Principal: "*",
      Action: "s3:*",
      NotResource: [bucketArn, `${bucketArn}/${prefix}*`],
      Condition: them,
    },
    {
      Sid: `${name}NoListOfTheRest`,
      Effect: "Deny",
      Principal: "*",
      Action: ["s3:ListBucket", "s3:ListBucketVersions"],
      Resource: bucketArn,
      Condition: { ...them, StringNotLike: { "s3:prefix": `${prefix}*` } },
    },
    ...policy.Statement.filter(({ Effect }) => Effect === "Deny").map(
      ({ Sid, Condition, ...rest }): Statement => ({
        Sid: `${name}${Sid}`,
        ...rest,
        Principal: "*",
        Condition: { ...Condition, ...them },
      }),
    ),
  ];
  const [, partition, , , home] = arn.split(":");
  if (home === account) return statements;
  // Rights of another account need both policies. The account stands for its users, as above.
  const principal = { AWS: `arn:${partition}:iam::${home}:root` };
  return [
    ...statements,
    ...theirs.map(
      ({ Sid, Condition, ...rest }): Statement => ({
        Sid: `${name}${Sid}`,
        ...rest,
        Principal: principal,
        Condition: { ...Condition, ...them },
      }),
    ),
  ];
}

/**
 * What is removed from the bucket by itself: parts of uploads that were never finished, a week after they began, which is
 * more than the upload of one file takes. No list of the bucket shows them, but they are paid for. No version is ever
 * removed, neither a current one nor one that was overwritten: an index of a copy names it, and whoever may write could
 * otherwise have it removed by overwriting it.
 */
export const lifecycleRules = [
  {
    id: "unfinished-uploads",
    status: "Enabled",
    filter: {},
    abortIncompleteMultipartUpload: { daysAfterInitiation: 7 },
  },
];

/** The boundary that the example in docs/production.md gives users and roles: the name of a policy of the account. */
export const exampleBoundary = "cht-backup-boundary";

export function policyArn(account: string, name: string): string {
  return `arn:aws:iam::${account}:policy/${name}`;
}

/**
 * The most that a deployment's users and its server's role may, whatever rights they are given: what writer and reader
 * may, with the whole bucket. It says so twice: a boundary that only allows doesn't hold against a bucket's policy that
 * names the user.
 */
export function boundaryPolicy({ bucketArn }: { bucketArn: string }): PolicyDocument {
  const rights = { bucketArn, prefix: "" };
  // The writer's refusals, one with a number of days, stay with the writer's own policy.
  const both = { Writer: writerPolicy({ ...rights, longestLockDays: 0 }), Reader: readerPolicy(rights) };
  const given = Object.entries(both).flatMap(([name, { Statement: all }]) =>
    all.filter(({ Effect }) => Effect === "Allow").map((one) => ({ ...one, Sid: `${name}${one.Sid}` })),
  );
  return {
    Version: "2012-10-17",
    Statement: [
      ...given,
      { Sid: "NothingElse", Effect: "Deny", NotAction: actionsOf(given), Resource: "*" },
      { Sid: "NothingElsewhere", Effect: "Deny", Action: "*", NotResource: [bucketArn, `${bucketArn}/*`] },
    ],
  };
}

/** Who may take the server's role: instances, on which it is the machine's. */
export function instanceTrustPolicy(): PolicyDocument {
  const Principal = { Service: "ec2.amazonaws.com" };
  return {
    Version: "2012-10-17",
    Statement: [{ Sid: "Instances", Effect: "Allow", Principal, Action: "sts:AssumeRole" }],
  };
}

export interface OperatorRights {
  /** Number of the account. */
  account: string;
  deployment: string;
  /** Where the stack makes the server. */
  server?: { region: string };
  /** The bucket that the stack makes. */
  bucket?: { name: string };
  /** The name of the policy that has to be the boundary of all users and roles. */
  boundary: string;
}

/**
 * What the operator may who runs `up`, `preview` and `destroy` for a deployment. Not to remove the data volume, the
 * bucket, or anything in it; nor to give anybody a right beyond the boundary. So the account's other parts are out of
 * reach for whoever steals the operator's key.
 *
 * The deployment isn't: who may attach the data volume to an instance can write to it, and who may write the bucket's policy
 * can let somebody else in, another account, too. Only locks in compliance mode hold against that.
 */
export function operatorPolicy({ account, deployment, server, bucket, boundary }: OperatorRights): PolicyDocument {
  return {
    Version: "2012-10-17",
    Statement: [
      ...(server === undefined ? [] : serverMaking(server, account, deployment)),
      ...(bucket === undefined ? [] : bucketMaking(bucket)),
      ...(server === undefined && bucket === undefined
        ? []
        : identityMaking(account, deployment, policyArn(account, boundary))),
    ],
  };
}

const allow = (Sid: string, Action: string[], Resource: string | string[], Condition?: Statement["Condition"]) =>
  ({ Sid, Effect: "Allow", Action, Resource, ...(Condition && { Condition }) }) satisfies Statement;

function serverMaking({ region }: { region: string }, account: string, deployment: string): Statement[] {
  const here = { StringEquals: { "aws:RequestedRegion": region } };
  const ours = { StringEquals: { [`aws:ResourceTag/${deploymentTag}`]: deployment } };
  const ec2 = (...kinds: string[]) => kinds.map((kind) => `arn:aws:ec2:${region}:${account}:${kind}/*`);
  return [
    allow("Look", ["ec2:Describe*"], "*", here),
    allow(
      "Make",
      [
        "ec2:AllocateAddress",
        "ec2:CreateInternetGateway",
        "ec2:CreateRouteTable",
        "ec2:CreateSecurityGroup",
        "ec2:CreateSubnet",
        "ec2:CreateVolume",
        "ec2:CreateVpc",
        "ec2:RunInstances",
      ],
      "*",
      here,
    ),
    // Not to remove the data volume: whatever a stack does, it stays.
    allow(
      "ChangeAndRemoveOurs",
      [
        "ec2:AssociateAddress",
        "ec2:AssociateIamInstanceProfile",
        "ec2:AssociateRouteTable",
        "ec2:AttachInternetGateway",
        "ec2:AttachVolume",
        "ec2:AuthorizeSecurityGroup*",
        "ec2:CreateRoute",
        "ec2:DeleteInternetGateway",
        "ec2:DeleteRoute",
        "ec2:DeleteRouteTable",
        "ec2:DeleteSecurityGroup",
        "ec2:DeleteSubnet",
        "ec2:DeleteVpc",
        "ec2:DetachInternetGateway",
        "ec2:DetachVolume",
        "ec2:DisassociateAddress",
        "ec2:DisassociateIamInstanceProfile",
        "ec2:DisassociateRouteTable",
        "ec2:ModifyInstanceAttribute",
        "ec2:ModifyInstanceCreditSpecification",
        "ec2:ModifyInstanceMaintenanceOptions",
        "ec2:ModifyInstanceMetadataOptions",
        "ec2:ModifyNetworkInterfaceAttribute",
        "ec2:ModifySubnetAttribute",
        "ec2:ModifyVolume",
        "ec2:ModifyVpcAttribute",
        "ec2:MonitorInstances",
        "ec2:ReleaseAddress",
        "ec2:ReplaceIamInstanceProfileAssociation",
        "ec2:ReplaceRoute",
        "ec2:ReplaceRouteTableAssociation",
        "ec2:RevokeSecurityGroup*",
        "ec2:StartInstances",
        "ec2:StopInstances",
        "ec2:TerminateInstances",
        "ec2:UnmonitorInstances",
        "ec2:UpdateSecurityGroupRuleDescriptions*",
      ],
      ec2("*"),
      ours,
    ),
    // What AWS makes along with ours has no tag: an instance's network interface, a group's rules. The interface of another
    // instance can be given one of our addresses or groups, therefore.
    allow(
      "ChangeWhatComesWithOurs",
      [
        "ec2:AssociateAddress",
        "ec2:AuthorizeSecurityGroup*",
        "ec2:DisassociateAddress",
        "ec2:ModifyNetworkInterfaceAttribute",
      ],
      ec2("network-interface", "security-group-rule"),
    ),
    allow("TagWhatIsMade", ["ec2:CreateTags"], ec2("*"), { Null: { "ec2:CreateAction": "false" } }),
    allow("TagOurs", ["ec2:CreateTags", "ec2:DeleteTags"], ec2("*"), ours),
    // The volume of the system gets its tags when it is there already.
    allow("TagTheSystem", ["ec2:CreateTags"], ec2("volume"), {
      StringEquals: { [`aws:RequestTag/${deploymentTag}`]: deployment },
      Null: { [`aws:ResourceTag/${deploymentTag}`]: "true" },
    }),
    // One that is there already has no tag of ours.
    allow("VolumesOfAny", ["ec2:AttachVolume", "ec2:DetachVolume"], ec2("volume")),
    allow(
      "FindTheImage",
      ["ssm:GetParameter", "ssm:GetParameters"],
      [
        `arn:aws:ssm:${region}:*:parameter/aws/service/canonical/*`,
        `arn:aws:ssm:${region}:*:parameter/aws/service/debian/*`,
      ],
    ),
  ];
}

function bucketMaking({ name }: { name: string }): Statement[] {
  return [
    allow(
      "MakeTheBucket",
      [
        "s3:CreateBucket",
        "s3:GetAccelerateConfiguration",
        "s3:GetBucket*",
        "s3:GetEncryptionConfiguration",
        "s3:GetLifecycleConfiguration",
        "s3:GetReplicationConfiguration",
        "s3:ListBucket",
        "s3:ListTagsForResource",
        "s3:PutBucketObjectLockConfiguration",
        "s3:PutBucketOwnershipControls",
        "s3:PutBucketPolicy",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketTagging",
        "s3:PutBucketVersioning",
        "s3:PutEncryptionConfiguration",
        "s3:PutLifecycleConfiguration",
        "s3:TagResource",
        "s3:UntagResource",
      ],
      `arn:aws:s3:::${name}`,
    ),
  ];
}

function identityMaking(account: string, deployment: string, boundary: string): Statement[] {
  const iam = (kind: string) => `arn:aws:iam::${account}:${kind}${iamPath(deployment)}*`;
  return [
    // The key of the condition is the boundary that is asked for, or where there is none to ask for, the one that is there.
    allow(
      "RightsWithinTheBoundary",
      [
        "iam:CreateRole",
        "iam:CreateUser",
        "iam:PutRolePermissionsBoundary",
        "iam:PutRolePolicy",
        "iam:PutUserPermissionsBoundary",
        "iam:PutUserPolicy",
      ],
      [iam("role"), iam("user")],
      { StringEquals: { "iam:PermissionsBoundary": boundary } },
    ),
    allow(
      "TheServersRole",
      [
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:GetRole",
        "iam:GetRolePolicy",
        "iam:ListAttachedRolePolicies",
        "iam:ListInstanceProfilesForRole",
        "iam:ListRolePolicies",
        "iam:ListRoleTags",
        "iam:TagRole",
        "iam:UntagRole",
        "iam:UpdateAssumeRolePolicy",
        "iam:UpdateRole",
        "iam:UpdateRoleDescription",
      ],
      iam("role"),
    ),
    allow("GiveItToTheServer", ["iam:PassRole"], iam("role"), {
      StringEquals: { "iam:PassedToService": "ec2.amazonaws.com" },
    }),
    allow(
      "TheServersProfile",
      [
        "iam:AddRoleToInstanceProfile",
        "iam:CreateInstanceProfile",
        "iam:DeleteInstanceProfile",
        "iam:GetInstanceProfile",
        "iam:ListInstanceProfileTags",
        "iam:RemoveRoleFromInstanceProfile",
        "iam:TagInstanceProfile",
        "iam:UntagInstanceProfile",
      ],
      iam("instance-profile"),
    ),
    allow(
      "TheBucketsUsers",
      [
        "iam:CreateAccessKey",
        "iam:DeleteAccessKey",
        "iam:DeleteUser",
        "iam:DeleteUserPolicy",
        "iam:GetUser",
        "iam:GetUserPolicy",
        "iam:ListAccessKeys",
        "iam:ListAttachedUserPolicies",
        "iam:ListGroupsForUser",
        "iam:ListUserPolicies",
        "iam:ListUserTags",
        "iam:TagUser",
        "iam:UntagUser",
        "iam:UpdateAccessKey",
      ],
      iam("user"),
    ),
  ];
}

/**
 * What an operator may beside it whose stacks' states are in a bucket.
 * @param bucket name of the bucket with the states, which is another than the one with the backups
 * @param kmsKeyArn ARN of the key that encrypts the secrets in the states; of the key itself, as an alias can't be given rights
 */
export function statePolicy({ bucket, kmsKeyArn }: { bucket: string; kmsKeyArn: string }): PolicyDocument {
  return {
    Version: "2012-10-17",
    Statement: [
      allow("ListStates", ["s3:ListBucket"], `arn:aws:s3:::${bucket}`),
      allow("KeepStates", ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"], `arn:aws:s3:::${bucket}/*`),
      allow("KeepSecrets", ["kms:Decrypt", "kms:Encrypt"], kmsKeyArn),
    ],
  };
}
