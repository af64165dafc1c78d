/** What must never be, whatever a stack's settings are: rules over all resources that it registers. */
import { canonicalNetwork, isNetwork } from "../../config/networks";
import { type Registered, replaceSecrets } from "./program";

/** The inputs that a rule looks at. */
interface Inputs {
  ingress?: { cidrBlocks?: string[]; ipv6CidrBlocks?: string[]; fromPort: number; toPort: number }[];
  encrypted?: boolean;
  rootBlockDevice?: { encrypted?: boolean };
  metadataOptions?: { httpTokens?: string };
  keyName?: string;
  forceDestroy?: boolean;
  objectLockEnabled?: boolean;
  versioningConfiguration?: { status: string };
  blockPublicAcls?: boolean;
  blockPublicPolicy?: boolean;
  ignorePublicAcls?: boolean;
  restrictPublicBuckets?: boolean;
  rules?: { expiration?: unknown }[];
  policy?: string;
}
type Rule = (inputs: Inputs, resource: Registered) => string | undefined | false;

interface Statement {
  Effect: string;
  Principal?: unknown;
  Action?: string | string[];
  NotAction?: string[];
  Resource?: string | string[];
  Condition?: Record<string, Record<string, unknown>>;
}

const statements = (policy = ""): Statement[] => JSON.parse(policy).Statement;
const list = (value: string | string[] | undefined) => [value ?? []].flat();

/** What somebody may do by a policy of their own. */
const rights: Rule = ({ policy }) => {
  for (const { Effect, Action, NotAction, Resource } of statements(policy)) {
    if (Effect !== "Allow") continue;
    if (NotAction !== undefined) return "allows all but some actions";
    const wide = list(Action).find((action) => /^\*|:\*$/.test(action));
    if (wide !== undefined) return `allows ${wide}`;
    if (list(Resource).includes("*")) return "allows it for every resource";
  }
  return undefined;
};

const kept: Rule = (_, { retained }) => !retained && "goes with the stack";

const byType: Record<string, Rule[]> = {
  "aws:ec2/securityGroup:SecurityGroup": [
    ({ ingress }) => {
      for (const { cidrBlocks, ipv6CidrBlocks, fromPort, toPort } of ingress ?? []) {
        const everybody = [...(cidrBlocks ?? []), ...(ipv6CidrBlocks ?? [])].find((block) => !isNetwork(block));
        if (everybody !== undefined) return `lets in ${everybody}`;
        if (fromPort !== 22 || toPort !== 22) return `lets in ports ${fromPort} to ${toPort}`;
      }
      return undefined;
    },
    // As AWS refuses, or writes otherwise.
    ({ ingress }) => {
      const blocks = (ingress ?? []).flatMap((rule) => [...(rule.cidrBlocks ?? []), ...(rule.ipv6CidrBlocks ?? [])]);
      const twice = blocks.find((block, index) => blocks.indexOf(block) < index);
      if (twice !== undefined) return `lets in ${twice} twice, which AWS refuses`;
      const other = blocks.find((block) => canonicalNetwork(block) !== block);
      return other !== undefined && `is read back with ${canonicalNetwork(other)} in place of ${other}`;
    },
    ({ ingress }) =>
      ingress?.some((rule) => [...(rule.cidrBlocks ?? []), ...(rule.ipv6CidrBlocks ?? [])].length === 0) &&
      "has a rule for nobody",
  ],
  "aws:ebs/volume:Volume": [({ encrypted }) => encrypted !== true && "isn't encrypted", kept],
  "aws:ec2/instance:Instance": [
    ({ rootBlockDevice }) => rootBlockDevice?.encrypted !== true && "isn't encrypted",
    ({ metadataOptions }) => metadataOptions?.httpTokens !== "required" && "answers without IMDSv2",
    ({ keyName }) => keyName !== undefined && "has a key pair of AWS",
  ],
  "aws:s3/bucket:Bucket": [
    kept,
    ({ forceDestroy }) => forceDestroy !== false && "is emptied before it is destroyed",
    ({ objectLockEnabled }) => objectLockEnabled !== true && "has no object lock",
  ],
  "aws:s3/bucketVersioning:BucketVersioning": [
    kept,
    ({ versioningConfiguration }) => versioningConfiguration?.status !== "Enabled" && "leaves versioning switched off",
  ],
  "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": [
    kept,
    ({ blockPublicAcls, blockPublicPolicy, ignorePublicAcls, restrictPublicBuckets }) =>
      !(blockPublicAcls && blockPublicPolicy && ignorePublicAcls && restrictPublicBuckets) &&
      "leaves public access open",
  ],
  "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration": [kept],
  "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": [kept],
  "aws:s3/bucketOwnershipControls:BucketOwnershipControls": [kept],
  "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": [
    kept,
    ({ rules }) => rules?.some(({ expiration }) => expiration !== undefined) && "removes current versions",
  ],
  "aws:s3/bucketPolicy:BucketPolicy": [
    kept,
    ({ policy }) => {
      const all = statements(policy);
      const others = all.filter(
        ({ Effect, Principal }) => Effect === "Allow" && JSON.stringify(Principal)?.includes("*"),
      );
      if (others.length > 0) return "lets in anybody";
      const tls = all.some(
        ({ Effect, Condition }) => Effect === "Deny" && Condition?.Bool?.["aws:SecureTransport"] === "false",
      );
      return !tls && "allows requests without TLS";
    },
  ],
  "aws:iam/rolePolicy:RolePolicy": [rights],
  "aws:iam/userPolicy:UserPolicy": [rights],
  "host:index:BorgRepository": [kept],
  "host:index:Passphrase": [kept],
  "host:index:User": [kept],
};

/** Tags as IAM takes them, whose rules are the strictest; the provider gives them to everything. */
const tagValue = /^[\p{L}\p{Z}\p{N}_.:/=+\-@]{0,256}$/u;

type Tags = Record<string, string>;

/** What the provider of AWS does with tags that a resource names and it gives by itself: on read it takes them out. */
function tagDangers({ inputs }: Registered, defaults: Tags): string[] {
  const { tags, rootBlockDevice } = inputs as { tags?: Tags; rootBlockDevice?: { tags?: Tags } };
  return [tags, rootBlockDevice?.tags].flatMap((own) =>
    Object.entries(own ?? {})
      .filter(([name, value]) => defaults[name] === value)
      .map(([name]) => `has the tag ${name} of its provider a second time, which is drift for ever`),
  );
}

/** What each bucket needs beside it. */
const besideBucket: Record<string, string> = {
  "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": "no block of public access",
  "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": "no encryption",
  "aws:s3/bucketVersioning:BucketVersioning": "no versioning",
  "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration": "no default lock",
  "aws:s3/bucketPolicy:BucketPolicy": "no policy",
};

/** The types that exist at AWS for a stack; another one needs a rule, or a look. */
const harmless = new Set([
  "aws:ec2/vpc:Vpc",
  "aws:ec2/subnet:Subnet",
  "aws:ec2/internetGateway:InternetGateway",
  "aws:ec2/routeTable:RouteTable",
  "aws:ec2/routeTableAssociation:RouteTableAssociation",
  "aws:ec2/volumeAttachment:VolumeAttachment",
  "aws:ec2/eip:Eip",
  "aws:ec2/eipAssociation:EipAssociation",
  "aws:iam/role:Role",
  "aws:iam/instanceProfile:InstanceProfile",
  "aws:iam/user:User",
  "aws:iam/accessKey:AccessKey",
]);

/** What is dangerous among a stack's resources, one line each. Every secret of a test has `hunter2` in it. */
export function dangers(resources: ReadonlyMap<string, Registered>): string[] {
  const found: string[] = [];
  for (const [name, resource] of resources) {
    const { type, inputs, raw, provider } = resource;
    for (const rule of byType[type] ?? []) {
      const danger = rule(inputs as Inputs, resource);
      if (danger) found.push(`${name} ${danger}`);
    }
    if (type.startsWith("aws:") && !(type in byType) && !harmless.has(type))
      found.push(`${name}: no rule knows ${type}`);
    const { defaultTags } = (type === "pulumi:providers:aws" ? inputs : (resources.get(provider)?.inputs ?? {})) as {
      defaultTags?: string;
    };
    const given: Tags = JSON.parse(defaultTags ?? "{}").tags ?? {};
    if (type === "pulumi:providers:aws") {
      const wrong = Object.entries(given).find(([, value]) => !tagValue.test(value));
      if (wrong !== undefined) found.push(`${name} gives the tag ${wrong.join(": ")}, which IAM refuses`);
    } else if (type.startsWith("aws:")) {
      for (const danger of tagDangers(resource, given)) found.push(`${name} ${danger}`);
    }
    if (type.startsWith("aws:") && !/-aws$/.test(provider)) found.push(`${name} goes by another account or region`);
    if (JSON.stringify(replaceSecrets(raw, () => "[secret]")).includes("hunter2"))
      found.push(`${name} has a secret in plain`);
    if (type !== "aws:s3/bucket:Bucket") continue;
    for (const [needed, lack] of Object.entries(besideBucket)) {
      const beside = [...resources.values()].some((of) => of.type === needed && of.inputs.bucket === inputs.bucket);
      if (!beside) found.push(`${name} has ${lack}`);
    }
  }
  return found;
}
