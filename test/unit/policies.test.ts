import { deepStrictEqual as equal, ok } from "node:assert";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  bucketPolicy,
  deploymentTag,
  iamPath,
  instanceTrustPolicy,
  lifecycleRules,
  operatorPolicy,
  type PolicyDocument,
  readerPolicy,
  type Statement,
  writerPolicy,
} from "../../components/policies";
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
});

const list = (value: string | string[] | undefined) => [value ?? []].flat();
const of = (effect: Statement["Effect"], policy: PolicyDocument) =>
  policy.Statement.filter(({ Effect }) => Effect === effect);
const actions = (statements: Statement[]) => statements.flatMap(({ Action }) => list(Action));
/** As IAM counts. */
const length = (policy: PolicyDocument) => JSON.stringify(policy).replace(/\s/g, "").length;

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
    for (const action of given) ok(/^s3:(Get|List|PutObject$|PutObjectRetention$)/.test(action), action);
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

  it("ends and removes nothing without the deployment's tag, and makes nothing in another region", () => {
    for (const { Sid, Action, Resource, Condition } of of("Allow", operator)) {
      for (const action of list(Action).filter((name) =>
        /^ec2:(Delete|Terminate|Stop|Release|Detach(?!Volume))/.test(name),
      )) {
        equal(Condition?.StringEquals, { [`aws:ResourceTag/${deploymentTag}`]: "moh" }, `${Sid} ${action}`);
      }
      if (list(Resource).includes("*")) equal(Condition, { StringEquals: { "aws:RequestedRegion": "eu-west-1" } }, Sid);
    }
  });

  it("is only what the stack makes", () => {
    const services = (policy: PolicyDocument) =>
      new Set(actions(policy.Statement).map((action) => action.split(":")[0]));
    equal(services(operatorPolicy({ account, deployment: "moh", bucket: { name: "x" } })), new Set(["s3", "iam"]));
    equal(
      services(operatorPolicy({ account, deployment: "moh", server: { region: "eu-west-1" } })),
      new Set(["ec2", "ssm", "iam"]),
    );
  });

  it("fits into a managed policy, with the longest names", () => {
    const deployment = "d".repeat(31);
    const server = { region: "ap-southeast-7" };
    ok(length(operatorPolicy({ account, deployment, server, bucket: { name: "b".repeat(63) } })) <= 6144);
  });
});
