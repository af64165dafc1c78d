/**
 * Who may do what at AWS, and what happens to old versions in the bucket: documents made from settings alone. What the
 * operator may who makes all this is in `aws-operator-rights.ts`.
 *
 * The rights of the bucket's writer, reader and deleter are the files `bucket-writer-policy.json`, `bucket-reader-policy.json`
 * and `bucket-deleter-policy.json`, which whoever has a bucket already fills in by hand (docs/bucket.md). The bucket's own
 * policy is made from the same files, so that the two can't come apart.
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

/** What the bucket's writer may do: put, get, list, lengthen locks, take back an upload that hasn't ended. */
export function writerPolicy({ longestLockDays, ...rights }: WriterRights): PolicyDocument {
  return fromFile("writer", rights, longestLockDays);
}

/** What the bucket's reader may do: get and list. */
export function readerPolicy(rights: BucketRights): PolicyDocument {
  return fromFile("reader", rights);
}

/**
 * What whoever removes old copies may do: versions of them, singly, and look at their locks; no way around these. The operator has
 * it for `npm run retention`; the pipeline hasn't, nor any machine.
 */
export function deleterPolicy(rights: BucketRights): PolicyDocument {
  return fromFile("deleter", rights);
}

function fromFile(
  name: "writer" | "reader" | "deleter",
  { bucketArn, prefix }: BucketRights,
  longest?: number,
): PolicyDocument {
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
