/** The program, index.ts, as tests run it: by the SDK with mocks in place of the engine. */
import * as pulumi from "@pulumi/pulumi";
import { MockMonitor } from "@pulumi/pulumi/runtime/mocks";

/** A resource as the program registers it with the engine. */
export interface Registered {
  type: string;
  /** Inputs with secrets unwrapped. */
  inputs: Record<string, unknown>;
  /** Inputs as they go to the engine, secrets marked. */
  raw: unknown;
  parent: string;
  dependencies: string[];
  /** Name of the explicit provider; empty: the default one. */
  provider: string;
  retained: boolean;
  /** Name of the resource that takes this one away with it; empty: none. */
  deletedWith: string;
  ignored: string[];
  /** What the resource is replaced with, whenever it changes. */
  replacementTrigger: unknown;
  /** The id of what is there, which the resource takes over; empty: it is made. */
  imported: string;
}

export interface Run {
  resources: Map<string, Registered>;
  /** The stack's outputs as they go to the engine, secrets marked. */
  outputs: Record<string, unknown>;
}

const lastPart = (urn: string) => urn.slice(urn.lastIndexOf("::") + 2);

/** Marks of a secret in what goes to the engine (`specialSigKey` and `specialSecretSig` in the SDK's `rpc.ts`). */
export const signature = "4dabf18193072939515e22adb298388d";
export const secretMark = "1b47061264138c4ac30d75fd1eb44270";

/** A value as it goes to the engine, secrets replaced by what `secret` makes of them. */
export function replaceSecrets(value: unknown, secret: (inner: unknown) => unknown): unknown {
  if (Array.isArray(value)) return value.map((element) => replaceSecrets(element, secret));
  if (typeof value !== "object" || value === null) return value;
  const object = value as Record<string, unknown>;
  if (object[signature] === secretMark) return secret(object.value);
  return Object.fromEntries(Object.entries(object).map(([key, inner]) => [key, replaceSecrets(inner, secret)]));
}

/** What AWS makes up. A name is the resource's in the program. */
function madeAtAws(type: string, name: string, inputs: Record<string, unknown>): Record<string, unknown> {
  switch (type) {
    case "aws:ec2/eip:Eip":
      return { publicIp: "198.51.100.99", allocationId: "eipalloc-1" };
    case "aws:ec2/vpc:Vpc":
      return { ipv6CidrBlock: "2001:db8:1234:1a00::/56" };
    case "aws:ec2/subnet:Subnet":
      return { availabilityZone: "eu-west-1a" };
    case "aws:iam/accessKey:AccessKey":
      return { id: `AKIA-${name}`, secret: `hunter2-${name}` };
    case "aws:iam/role:Role":
    case "aws:iam/user:User":
    case "aws:iam/instanceProfile:InstanceProfile":
      return { name: `${name}-1a2b3c`, arn: `arn:aws:iam::123456789012:${name}${inputs.path}${name}-1a2b3c` };
    case "aws:s3/bucket:Bucket":
      return { arn: `arn:aws:s3:::${inputs.bucket}` };
    default:
      return {};
  }
}

/** @param known the id of what is only read */
function idOf(type: string, name: string, inputs: Record<string, unknown>, known: string | undefined): string {
  if (known) return known;
  if (type === "aws:iam/accessKey:AccessKey") return `AKIA-${name}`;
  return type === "aws:s3/bucket:Bucket" ? String(inputs.bucket) : `${name}-id`;
}

/** What functions of plugins answer, by their name; with `fails` they fail in these words. */
export const answers: Record<string, Record<string, unknown>> = {
  "aws:ssm/getParameter:getParameter": { value: "ami-0123456789abcdef0" },
  "aws:ec2/getSubnet:getSubnet": { availabilityZone: "eu-west-1b" },
  "aws:index/getCallerIdentity:getCallerIdentity": { accountId: "123456789012" },
};

/** Runs the program, index.ts, as Pulumi would, and waits until everything is registered. */
export async function runProgram(settings: Record<string, string>, secretKeys: string[] = []): Promise<Run> {
  const resources = new Map<string, Registered>();
  let outputs: Record<string, unknown> = {};
  const { registerResource, registerResourceOutputs } = MockMonitor.prototype;
  const environment = process.env.PULUMI_CONFIG_SECRET_KEYS;
  const made: Record<string, Record<string, unknown>> = {
    "host:index:SshKey": { publicKey: "ssh-ed25519 AAAAclient cht-backup-moh" },
    "host:index:SshHostKey": { publicKey: "ssh-ed25519 AAAAserver" },
    "host:index:HostKeyPair": { publicKey: "ssh-ed25519 AAAAserver", privateKey: "hunter2 PRIVATE KEY" },
    "host:index:BorgRepository": { repositoryId: "f".repeat(64), exportedKey: "BORG_KEY hunter2" },
  };
  // The mocks don't hand over what a registration says about dependencies and about what is kept.
  MockMonitor.prototype.registerResource = async function (request, callback) {
    const raw = request.getObject().toJavaScript();
    resources.set(request.getName(), {
      type: request.getType(),
      inputs: replaceSecrets(raw, (inner) => inner) as Record<string, unknown>,
      raw,
      parent: lastPart(request.getParent()),
      dependencies: request.getDependenciesList().map(lastPart),
      provider: lastPart(request.getProvider().replace(/::[^:]*$/, "")),
      retained: request.getRetainondelete(),
      deletedWith: lastPart(request.getDeletedwith()),
      ignored: request.getIgnorechangesList(),
      replacementTrigger: request.getReplacementTrigger()?.toJavaScript(),
      imported: request.getImportid(),
    });
    return registerResource.call(this, request, callback);
  };
  MockMonitor.prototype.registerResourceOutputs = function (request, callback) {
    if (request.getUrn().includes("pulumi:pulumi:Stack")) outputs = request.getOutputs().toJavaScript();
    registerResourceOutputs.call(this, request, callback);
  };
  try {
    await pulumi.runtime.setMocks(
      {
        newResource: ({ type, name, inputs, id }) => ({
          id: idOf(type, name, inputs, id),
          state: {
            ...inputs,
            ...(type === "host:index:Passphrase" ? { passphrase: inputs.value ?? "made on the machine" } : {}),
            ...made[type],
            ...madeAtAws(type, name, inputs),
          },
        }),
        call: ({ token, inputs }) => {
          const answer = answers[token];
          if (answer?.fails !== undefined) throw new Error(String(answer.fails));
          return { ...inputs, ...answer };
        },
      },
      "cht-backup",
      "moh",
    );
    pulumi.runtime.setAllConfig(settings, secretKeys);
    process.env.PULUMI_CONFIG_SECRET_KEYS = JSON.stringify(secretKeys);
    await pulumi.runtime.runInPulumiStack(async () => {
      delete require.cache[require.resolve("../../index")];
      return { ...require("../../index") };
    });
    await pulumi.runtime.disconnect();
    return { resources, outputs };
  } finally {
    Object.assign(MockMonitor.prototype, { registerResource, registerResourceOutputs });
    if (environment === undefined) delete process.env.PULUMI_CONFIG_SECRET_KEYS;
    else process.env.PULUMI_CONFIG_SECRET_KEYS = environment;
  }
}

/** Runs the program and returns what it warned of, too. */
export async function warned(...args: Parameters<typeof runProgram>): Promise<Run & { said: string[] }> {
  const said: string[] = [];
  const { warn } = pulumi.log;
  Object.assign(pulumi.log, { warn: async (text: string) => void said.push(text) });
  try {
    return { ...(await runProgram(...args)), said };
  } finally {
    Object.assign(pulumi.log, { warn });
  }
}
