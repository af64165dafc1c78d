/**
 * What whoever runs `up` for a deployment may do at AWS, which `npm run docs` writes to docs/examples: no stack makes these
 * rights. Pure.
 */
import { deploymentTag, iamPath, type PolicyDocument, policyArn, type Statement } from "./aws-policies";

/** The boundary that the example in docs/production.md gives users and roles: the name of a policy of the account. */
export const exampleBoundary = "cht-backup-boundary";

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
