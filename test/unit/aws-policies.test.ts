import { deepStrictEqual as equal, ok } from "node:assert";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { operatorPolicy } from "../../components/aws-operator-rights";
import {
  boundaryPolicy,
  bucketPolicy,
  deploymentTag,
  iamPath,
  instanceTrustPolicy,
  lifecycleRules,
  type PolicyDocument,
  readerPolicy,
  type Statement,
  writerPolicy,
} from "../../components/aws-policies";
import { project } from "../../toolchain/paths";

const account = "123456789012";
const rights = { bucketArn: "arn:aws:s3:::moh-copies", prefix: "moh/" };
const longestLockDays = 121;
const writerArn = `arn:aws:iam::${account}:role/cht-backup/moh/server`;
const readerArn = `arn:aws:iam::${account}:user/cht-backup/moh/reader`;
const args = { ...rights, longestLockDays, account, writerArn, readerArn };
const operator = operatorPolicy({
  account,
  deployment: "moh",
  server: { region: "eu-west-1" },
  bucket: { name: "moh-copies" },
  boundary: "cht-backup-boundary",
});

const list = (value: string | string[] | undefined) => [value ?? []].flat();
const of = (effect: Statement["Effect"], policy: PolicyDocument) =>
  policy.Statement.filter(({ Effect }) => Effect === effect);
const actions = (statements: Statement[]) => statements.flatMap(({ Action }) => list(Action));
/** As IAM counts. */
const length = (policy: PolicyDocument) => JSON.stringify(policy).replace(/\s/g, "").length;

// What AbortMultipartUpload removes is parts of an upload that hasn't ended, which no copy has.
const mayBeGiven = /^s3:(Get|List|PutObject$|PutObjectRetention$|AbortMultipartUpload$)/;

describe("who may do what with the bucket", () => {
  it("is the same for whoever fills the policies in by hand, as docs/bucket.md says", () => {
    const docs = readFileSync(join(project, "docs", "bucket.md"), "utf8");
    const filled = ["writer", "reader"].map((name) => {
      const line = docs.split("\n").find((text) => text.includes(`sed `) && text.includes(`> ${name}.json`)) ?? "";
      const command = line
        .replace(/ > .*/, "")
        .replace("NAME", "moh-copies")
        .replace("prod/", "moh/")
        .replace("61", "121");
      return JSON.parse(execFileSync("sh", ["-c", command], { cwd: project, encoding: "utf8" }));
    });
    equal(filled, [writerPolicy({ ...rights, longestLockDays }), readerPolicy(rights)]);
  });

  it("lets nobody delete, hold, get around a lock or change the bucket", () => {
    const given = new Set(
      actions([...of("Allow", writerPolicy({ ...rights, longestLockDays })), ...of("Allow", readerPolicy(rights))]),
    );
    for (const action of given) ok(mayBeGiven.test(action), action);
  });

  it("lets the writer lock for no longer than the settings say", () => {
    // No server but AWS' own knows this key, so it can't be tried.
    const limit = of("Deny", writerPolicy({ ...rights, longestLockDays })).find(
      ({ Sid }) => Sid === "NotLongerThanNeeded",
    );
    equal(limit, {
      Sid: "NotLongerThanNeeded",
      Effect: "Deny",
      Action: ["s3:PutObject", "s3:PutObjectRetention"],
      Resource: "arn:aws:s3:::moh-copies/moh/*",
      Condition: { NumericGreaterThan: { "s3:object-lock-remaining-retention-days": "121" } },
    });
  });

  it("fits into a policy of a user, with the longest names", () => {
    const longest = { bucketArn: `arn:aws:s3:::${"b".repeat(63)}`, prefix: `${"d".repeat(31)}/` };
    ok(length(writerPolicy({ ...longest, longestLockDays: 7301 })) <= 2048);
    ok(length(readerPolicy(longest)) <= 2048);
  });
});

describe("the bucket's policy", () => {
  it("gives no rights to anybody of the account", () => {
    equal(of("Allow", bucketPolicy(args)), []);
  });

  it("gives a writer of another account the writer's rights and nobody any others", () => {
    const other = "arn:aws:iam::210987654321:role/cht-backup/moh/server";
    const given = of("Allow", bucketPolicy({ ...args, writerArn: other }));
    const wanted = of("Allow", writerPolicy({ ...rights, longestLockDays }));
    for (const { Principal, Condition } of given) {
      equal(Principal, { AWS: "arn:aws:iam::210987654321:root" });
      equal(Condition?.ArnEquals, { "aws:PrincipalArn": other });
    }
    const bare = ({ Action, Resource, Condition: { ArnEquals: _, ...others } = {} }: Statement) => [
      Action,
      Resource,
      others,
    ];
    equal(given.map(bare), wanted.map(bare));
  });

  it("refuses writer and reader all that their policies don't give, and all that these refuse", () => {
    const statements = bucketPolicy(args).Statement;
    const both = [
      { name: "Writer", arn: writerArn, policy: writerPolicy({ ...rights, longestLockDays }) },
      { name: "Reader", arn: readerArn, policy: readerPolicy(rights) },
    ];
    for (const { name, arn, policy } of both) {
      const them = { "aws:PrincipalArn": arn };
      const theirs = statements.filter(({ Condition }) => Condition?.ArnEquals?.["aws:PrincipalArn"] === arn);
      ok(theirs.every(({ Effect, Principal }) => Effect === "Deny" && Principal === "*"));
      const rest = theirs.find(({ Sid }) => Sid === `${name}NothingElse`);
      equal(rest?.Condition, { ArnEquals: them });
      equal(rest?.Resource, ["arn:aws:s3:::moh-copies", "arn:aws:s3:::moh-copies/*"]);
      equal(rest?.NotAction, [...new Set(actions(of("Allow", policy)))].sort());
      for (const { Sid, Condition, Action } of of("Deny", policy)) {
        const same = theirs.find((statement) => statement.Sid === `${name}${Sid}`);
        equal([same?.Condition, same?.Action], [{ ...Condition, ArnEquals: them }, Action]);
      }
    }
  });

  it("refuses everybody what isn't encrypted on the way, and to get around a lock", () => {
    const everybody = bucketPolicy(args).Statement.filter(({ Condition }) => Condition?.ArnEquals === undefined);
    equal(
      everybody.map(({ Effect, Principal, Action, Condition }) => ({ Effect, Principal, Action, Condition })),
      [
        { Effect: "Deny", Principal: "*", Action: "s3:*", Condition: { Bool: { "aws:SecureTransport": "false" } } },
        { Effect: "Deny", Principal: "*", Action: "s3:BypassGovernanceRetention", Condition: undefined },
      ],
    );
  });

  it("names each statement once, as S3 demands", () => {
    const other = {
      ...args,
      writerArn: "arn:aws:iam::210987654321:role/x",
      readerArn: "arn:aws:iam::210987654321:user/y",
    };
    const names = bucketPolicy(other).Statement.map(({ Sid }) => Sid);
    equal(names, [...new Set(names)]);
    for (const name of names) ok(/^[A-Za-z0-9]+$/.test(name), name);
  });
});

describe("what the bucket removes by itself", () => {
  const rules = lifecycleRules;

  it("is no version, neither a current one nor one that was overwritten or hidden", () => {
    for (const rule of rules) equal(Object.keys(rule), ["id", "status", "filter", "abortIncompleteMultipartUpload"]);
  });

  it("is what uploads left that didn't end", () => {
    const ended = rules.flatMap(({ abortIncompleteMultipartUpload }) => abortIncompleteMultipartUpload ?? []);
    equal(ended, [{ daysAfterInitiation: 7 }]);
  });
});

describe("the boundary", () => {
  const { bucketArn } = rights;
  const boundary = boundaryPolicy({ bucketArn });

  it("leaves writer and reader all their rights", () => {
    const whole = { bucketArn, prefix: "" };
    for (const policy of [writerPolicy({ ...whole, longestLockDays }), readerPolicy(whole)]) {
      for (const { Sid: _, ...wanted } of of("Allow", policy)) {
        ok(
          of("Allow", boundary).some(({ Sid: _, ...given }) => JSON.stringify(given) === JSON.stringify(wanted)),
          JSON.stringify(wanted),
        );
      }
    }
  });

  it("refuses all else, as a bucket's policy could give it that names the user", () => {
    const given = [...new Set(actions(of("Allow", boundary)))].sort();
    for (const action of given) ok(mayBeGiven.test(action), action);
    equal(of("Deny", boundary), [
      { Sid: "NothingElse", Effect: "Deny", NotAction: given, Resource: "*" },
      { Sid: "NothingElsewhere", Effect: "Deny", Action: "*", NotResource: [bucketArn, `${bucketArn}/*`] },
    ]);
  });
});

it("the server's role is taken by instances of EC2 alone", () => {
  const [statement, ...others] = instanceTrustPolicy().Statement;
  equal(others, []);
  equal([statement?.Principal, statement?.Action], [{ Service: "ec2.amazonaws.com" }, "sts:AssumeRole"]);
});

describe("what the operator may", () => {
  const may = (action: string) =>
    of("Allow", operator).filter(({ Action }) =>
      list(Action).some((given) => given === action || (given.endsWith("*") && action.startsWith(given.slice(0, -1)))),
    );

  it("is not to remove what holds data, nor to read it, nor to get around a lock", () => {
    const never = [
      "ec2:DeleteVolume",
      "ec2:CreateSnapshot",
      "s3:DeleteBucket",
      "s3:DeleteBucketPolicy",
      "s3:DeleteObject",
      "s3:DeleteObjectVersion",
      "s3:GetObject",
      "s3:GetObjectVersion",
      "s3:PutObject",
      "s3:PutObjectRetention",
      "s3:BypassGovernanceRetention",
    ];
    for (const action of never) equal(may(action), [], action);
  });

  it("concerns users, roles and profiles of the deployment alone, and roles for instances", () => {
    for (const { Sid, Action, Resource } of of("Allow", operator)) {
      if (!actions([{ Sid, Effect: "Allow", Action } as Statement]).some((action) => action.startsWith("iam:")))
        continue;
      for (const arn of list(Resource)) {
        ok(
          new RegExp(`^arn:aws:iam::${account}:(role|user|instance-profile)${iamPath("moh")}\\*$`).test(arn),
          `${Sid} ${arn}`,
        );
      }
    }
    equal(
      may("iam:PassRole").map(({ Condition }) => Condition),
      [{ StringEquals: { "iam:PassedToService": "ec2.amazonaws.com" } }],
    );
    for (const action of [
      "iam:AttachUserPolicy",
      "iam:AttachRolePolicy",
      "iam:CreatePolicy",
      "iam:CreateLoginProfile",
    ]) {
      equal(may(action), [], action);
    }
  });

  it("changes, ends and removes nothing at EC2 without the deployment's tag, and makes nothing in another region", () => {
    const ours = { [`aws:ResourceTag/${deploymentTag}`]: "moh" };
    const others: Record<string, string[]> = {};
    for (const { Sid, Action, Resource, Condition } of of("Allow", operator)) {
      if (list(Resource).includes("*")) equal(Condition, { StringEquals: { "aws:RequestedRegion": "eu-west-1" } }, Sid);
      // A route has no tag: it is made in a table that has.
      const changing = list(Action).filter((action) =>
        /^ec2:(?!Describe|Allocate|Run|Create(?!Route$|Tags$))/.test(action),
      );
      if (changing.length > 0 && JSON.stringify(Condition?.StringEquals) !== JSON.stringify(ours)) {
        others[Sid] = list(Resource).map((arn) => arn.replace(/^arn:aws:ec2:eu-west-1:123456789012:/, ""));
      }
    }
    equal(others, {
      ChangeWhatComesWithOurs: ["network-interface/*", "security-group-rule/*"],
      TagWhatIsMade: ["*/*"],
      TagTheSystem: ["volume/*"],
      VolumesOfAny: ["volume/*"],
    });
    const tagging = of("Allow", operator).filter(({ Sid }) => Sid.startsWith("Tag"));
    equal(
      tagging.map(({ Condition }) => Condition),
      [
        { Null: { "ec2:CreateAction": "false" } },
        { StringEquals: ours },
        {
          StringEquals: { [`aws:RequestTag/${deploymentTag}`]: "moh" },
          Null: { [`aws:ResourceTag/${deploymentTag}`]: "true" },
        },
      ],
    );
  });

  it("gives no user and no role a right beyond the boundary, and can't take that away", () => {
    const within = {
      StringEquals: { "iam:PermissionsBoundary": `arn:aws:iam::${account}:policy/cht-backup-boundary` },
    };
    for (const what of ["User", "Role"]) {
      for (const action of [`iam:Create${what}`, `iam:Put${what}Policy`, `iam:Put${what}PermissionsBoundary`]) {
        equal(
          may(action).map(({ Condition }) => Condition),
          [within],
          action,
        );
      }
      for (const action of [`iam:Delete${what}PermissionsBoundary`, `iam:Attach${what}Policy`]) {
        equal(may(action), [], action);
      }
    }
    for (const action of ["iam:CreatePolicyVersion", "iam:DeletePolicy", "iam:SetDefaultPolicyVersion"]) {
      equal(may(action), [], action);
    }
  });

  it("is only what the stack makes", () => {
    const services = (policy: PolicyDocument) =>
      new Set(actions(policy.Statement).map((action) => action.split(":")[0]));
    equal(
      services(operatorPolicy({ account, deployment: "moh", boundary: "x", bucket: { name: "x" } })),
      new Set(["s3", "iam"]),
    );
    equal(
      services(operatorPolicy({ account, deployment: "moh", boundary: "x", server: { region: "eu-west-1" } })),
      new Set(["ec2", "ssm", "iam"]),
    );
  });

  it("fits into a managed policy, with the longest names", () => {
    const deployment = "d".repeat(31);
    const server = { region: "ap-southeast-7" };
    const bucket = { name: "b".repeat(63) };
    ok(length(operatorPolicy({ account, deployment, server, bucket, boundary: "p".repeat(128) })) <= 6144);
    ok(length(boundaryPolicy({ bucketArn: `arn:aws:s3:::${bucket.name}` })) <= 6144);
  });
});
