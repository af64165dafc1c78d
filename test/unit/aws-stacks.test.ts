import assert from "node:assert/strict";
import * as pulumi from "@pulumi/pulumi";
import { sshFrom } from "../../components/aws-network-rules";
import { bucketPolicy, lifecycleRules, readerPolicy, writerPolicy } from "../../components/aws-policies";
import { architectureOf, imageParameter } from "../../components/aws-server";
import { userData, volumeDevices } from "../../components/user-data";
import { type Run, replaceSecrets, runProgram, warned } from "./program";
import { dangers } from "./safety";

const operatorKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKfiJoOpb0g/MLl1wxeZ3RjGn6WJV0WbxnstsZ643dBZ";
const passphrase = "hunter2 in a passphrase of many words";
const cht = { address: "203.0.113.20", user: "ubuntu" };
const aws = {
  region: "eu-west-1",
  operatorKeys: [operatorKey],
  operatorNetworks: ["203.0.113.7/32", "2001:db8:7::/48"],
};
const madeBucket = { name: "moh-backup-copy", region: "eu-central-1", mode: "compliance", lockDays: 90, aws: {} };
const existingBucket = {
  name: "moh-backup-copy",
  endpoint: "https://s3.example.org",
  mode: "governance",
  accessKeyId: "WRITER",
  secretAccessKey: "hunter2/writer",
  reader: { accessKeyId: "READER", secretAccessKey: "hunter2/reader" },
};

/** A stack's settings as Pulumi hands them over. */
function settings(values: Record<string, unknown>): Record<string, string> {
  const all = { "cht-backup:drill": { manageDocker: false }, "cht-backup:passphrase": passphrase, ...values };
  return Object.fromEntries(
    Object.entries(all).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
  );
}
const secretKeys = ["cht-backup:passphrase", "cht-backup:bucket"];

const stacks = {
  "server and bucket at AWS": settings({
    "host:machines": { cht },
    "cht-backup:server": { aws },
    "cht-backup:bucket": madeBucket,
  }),
  "an existing server, a bucket at AWS": settings({
    "host:machines": { cht, server: { address: "backup.example.org" } },
    "cht-backup:bucket": madeBucket,
  }),
  "server and bucket that exist": settings({
    "host:machines": { cht, server: { address: "backup.example.org" } },
    "cht-backup:bucket": existingBucket,
  }),
  "a clustered CouchDB, all at AWS, drills from the bucket": settings({
    "host:machines": { cht: { address: "cht.example.org" }, server: { identityFile: "package.json" } },
    "cht-backup:cht": { couchdbData: ["/srv/couchdb1", "/srv/couchdb2", "/srv/couchdb3"] },
    "cht-backup:server": {
      aws: {
        ...aws,
        instanceType: "t3.small",
        image: "ubuntu-24.04",
        dataGibibytes: 300,
        chtNetworks: ["198.51.100.0/24"],
        vpc: { id: "vpc-0123456789abcdef0", subnetId: "subnet-0123456789abcdef0" },
        volumeId: "vol-0123456789abcdef0",
        tags: { owner: "moh" },
      },
    },
    "cht-backup:bucket": { ...madeBucket, aws: { adopt: true, boundary: "moh-boundary" } },
    "cht-backup:drill": { from: "bucket", manageDocker: false },
  }),
  "a second deployment on that server": settings({
    "host:machines": { cht: { address: "203.0.113.30" }, server: { address: "198.51.100.99", user: "cht-admin" } },
    "cht-backup:deployment": "second",
    "cht-backup:bucket": { ...madeBucket, name: "second-backup-copy" },
  }),
};
type StackName = keyof typeof stacks;

describe("stacks with AWS", function () {
  this.timeout(60_000);

  const runs = new Map<StackName, Run & { said: string[] }>();
  const environment = { ...process.env };

  before(async () => {
    Object.assign(process.env, {
      AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE",
      AWS_SECRET_ACCESS_KEY: "hunter2-operator",
    });
    for (const name of Object.keys(stacks) as StackName[]) runs.set(name, await warned(stacks[name], secretKeys));
  });
  after(() => {
    process.env = environment;
  });

  const run = (name: StackName) => runs.get(name) as Run & { said: string[] };
  const inputsOf = (stack: StackName, name: string) => {
    const found = run(stack).resources.get(name);
    assert.ok(found, `${name} isn't registered`);
    return found.inputs;
  };
  /** What a stack makes at AWS: type and inputs, without what every resource there has. */
  const atAws = (stack: StackName) =>
    Object.fromEntries(
      [...run(stack).resources]
        .filter(([, { type }]) => /^(pulumi:providers:)?aws/.test(type))
        .map(([name, { type, inputs }]) => [name, { is: type.replace(/^aws:(\w+)\/.*:/, "$1."), ...inputs }]),
    );

  const tags = (deployment: string, others = {}) => ({
    tags: { ...others, "cht-backup:deployment": deployment, Name: `cht-backup-${deployment}` },
  });
  const boot = (volumeId: string) =>
    userData({
      adminUser: "cht-admin",
      operatorKeys: [operatorKey],
      hostKey: { privateKey: "hunter2 PRIVATE KEY", publicKey: "ssh-ed25519 AAAAserver" },
      dataDirectory: "/srv/cht-backup",
      volumeDevices: volumeDevices(volumeId),
    });
  const everywhere = {
    description: "Everywhere",
    protocol: "-1",
    fromPort: 0,
    toPort: 0,
    cidrBlocks: ["0.0.0.0/0"],
    ipv6CidrBlocks: ["::/0"],
  };
  const ssh = (from: string, cidrBlocks: string[], ipv6CidrBlocks: string[]) => ({
    description: `SSH from ${from}`,
    protocol: "tcp",
    fromPort: 22,
    toPort: 22,
    cidrBlocks,
    ipv6CidrBlocks,
  });
  const provider = (region: string, deployment: string, others = {}) => ({
    is: "pulumi:providers:aws",
    region,
    defaultTags: JSON.stringify(tags(deployment, others)),
    skipMetadataApiCheck: "false",
    // The SDK's defaults.
    skipCredentialsValidation: "false",
    skipRegionValidation: "true",
  });
  const bucketArn = "arn:aws:s3:::moh-backup-copy";
  const rights = { bucketArn, prefix: "moh/", longestLockDays: 91 };
  const user = (who: string, policy: object, deployment = "moh") => ({
    [`bucket-${who}`]: { is: "iam.User", path: `/cht-backup/${deployment}/` },
    [`bucket-${who}-rights`]: {
      is: "iam.UserPolicy",
      user: `bucket-${who}-1a2b3c`,
      policy: JSON.stringify(policy),
    },
    [`bucket-${who}-key`]: { is: "iam.AccessKey", user: `bucket-${who}-1a2b3c` },
  });
  const bucketParts = (writerArn: string) => {
    const of = { bucket: "moh-backup-copy" };
    const all = { blockPublicAcls: true, blockPublicPolicy: true, ignorePublicAcls: true, restrictPublicBuckets: true };
    return {
      "bucket-aws": provider("eu-central-1", "moh"),
      bucket: { is: "s3.Bucket", ...of, objectLockEnabled: true, forceDestroy: false },
      "bucket-versioning": { is: "s3.BucketVersioning", ...of, versioningConfiguration: { status: "Enabled" } },
      "bucket-public-access": { is: "s3.BucketPublicAccessBlock", ...of, ...all },
      "bucket-object-lock": {
        is: "s3.BucketObjectLockConfiguration",
        ...of,
        rule: { defaultRetention: { mode: "COMPLIANCE", days: 90 } },
      },
      "bucket-encryption": {
        is: "s3.BucketServerSideEncryptionConfiguration",
        ...of,
        rules: [
          {
            applyServerSideEncryptionByDefault: { sseAlgorithm: "AES256" },
            // As AWS sets it by itself.
            blockedEncryptionTypes: ["SSE-C"],
          },
        ],
      },
      "bucket-ownership": {
        is: "s3.BucketOwnershipControls",
        ...of,
        rule: { objectOwnership: "BucketOwnerEnforced" },
      },
      "bucket-lifecycle": {
        is: "s3.BucketLifecycleConfiguration",
        ...of,
        rules: lifecycleRules,
      },
      "bucket-policy": {
        is: "s3.BucketPolicy",
        ...of,
        policy: JSON.stringify(
          bucketPolicy({
            ...rights,
            account: "123456789012",
            writerArn,
            readerArn: "arn:aws:iam::123456789012:bucket-reader/cht-backup/moh/bucket-reader-1a2b3c",
          }),
        ),
      },
      ...user("reader", readerPolicy({ bucketArn, prefix: "moh/" })),
    };
  };

  it("server and bucket at AWS: exactly these resources with exactly these inputs", () => {
    const path = "/cht-backup/moh/";
    assert.deepEqual(atAws("server and bucket at AWS"), {
      "server-aws": provider("eu-west-1", "moh"),
      "server-vpc": { is: "ec2.Vpc", cidrBlock: "10.83.0.0/24", assignGeneratedIpv6CidrBlock: true },
      "server-subnet": {
        is: "ec2.Subnet",
        vpcId: "server-vpc-id",
        cidrBlock: "10.83.0.0/24",
        ipv6CidrBlock: "2001:db8:1234:1a00::/64",
        assignIpv6AddressOnCreation: true,
      },
      "server-gateway": { is: "ec2.InternetGateway", vpcId: "server-vpc-id" },
      "server-routes": {
        is: "ec2.RouteTable",
        vpcId: "server-vpc-id",
        routes: [
          { cidrBlock: "0.0.0.0/0", gatewayId: "server-gateway-id" },
          { ipv6CidrBlock: "::/0", gatewayId: "server-gateway-id" },
        ],
      },
      "server-routes-association": {
        is: "ec2.RouteTableAssociation",
        subnetId: "server-subnet-id",
        routeTableId: "server-routes-id",
      },
      "server-security-group": {
        is: "ec2.SecurityGroup",
        vpcId: "server-vpc-id",
        description: "Backups of the CHT deployment moh",
        ingress: [
          ssh("the CHT machine", ["203.0.113.20/32"], []),
          ssh("operators", ["203.0.113.7/32"], ["2001:db8:7::/48"]),
        ],
        egress: [everywhere],
      },
      "server-role": {
        is: "iam.Role",
        path,
        description: "Writes copies of moh",
        assumeRolePolicy: JSON.stringify({
          Version: "2012-10-17",
          Statement: [
            {
              Sid: "Instances",
              Effect: "Allow",
              Principal: { Service: "ec2.amazonaws.com" },
              Action: "sts:AssumeRole",
            },
          ],
        }),
      },
      "server-instance-profile": { is: "iam.InstanceProfile", path, role: "server-role-1a2b3c" },
      "server-role-rights": {
        is: "iam.RolePolicy",
        role: "server-role-1a2b3c",
        policy: JSON.stringify(writerPolicy(rights)),
      },
      "server-data-volume": {
        is: "ebs.Volume",
        availabilityZone: "eu-west-1a",
        size: 100,
        type: "gp3",
        encrypted: true,
        tags: { Name: "cht-backup-moh data" },
      },
      "server-instance-debian-13-arm64": {
        is: "ec2.Instance",
        ami: "ami-0123456789abcdef0",
        instanceType: "t4g.small",
        subnetId: "server-subnet-id",
        associatePublicIpAddress: true,
        vpcSecurityGroupIds: ["server-security-group-id"],
        iamInstanceProfile: "server-instance-profile-1a2b3c",
        userData: boot("server-data-volume-id"),
        metadataOptions: { httpEndpoint: "enabled", httpTokens: "required", httpPutResponseHopLimit: 1 },
        maintenanceOptions: { autoRecovery: "default" },
        rootBlockDevice: {
          volumeType: "gp3",
          volumeSize: 8,
          encrypted: true,
          tags: { Name: "cht-backup-moh system" },
        },
      },
      "server-data-attachment": {
        is: "ec2.VolumeAttachment",
        deviceName: "/dev/sdf",
        instanceId: "server-instance-debian-13-arm64-id",
        volumeId: "server-data-volume-id",
        stopInstanceBeforeDetaching: true,
      },
      "server-address": { is: "ec2.Eip", domain: "vpc" },
      "server-address-association": {
        is: "ec2.EipAssociation",
        allocationId: "eipalloc-1",
        instanceId: "server-instance-debian-13-arm64-id",
      },
      ...bucketParts("arn:aws:iam::123456789012:server-role/cht-backup/moh/server-role-1a2b3c"),
    });
  });

  it("an existing server, a bucket at AWS: the bucket alone, and a user who writes", () => {
    assert.deepEqual(atAws("an existing server, a bucket at AWS"), {
      ...bucketParts("arn:aws:iam::123456789012:bucket-writer/cht-backup/moh/bucket-writer-1a2b3c"),
      ...user("writer", writerPolicy(rights)),
    });
    assert.equal(
      inputsOf("an existing server, a bucket at AWS", "bucket-credentials").content,
      "[default]\naws_access_key_id = AKIA-bucket-writer-key\naws_secret_access_key = hunter2-bucket-writer-key\n",
    );
  });

  it("server and bucket that exist: nothing at AWS, and no SDK of it is loaded", () => {
    assert.deepEqual(atAws("server and bucket that exist"), {});
  });

  it("a clustered CouchDB, all at AWS: in the operator's VPC, on the operator's volume, with an image for its processor", () => {
    const stack = "a clustered CouchDB, all at AWS, drills from the bucket";
    const names = Object.keys(atAws(stack));
    assert.deepEqual(
      names.filter((name) => /vpc|subnet|gateway|routes|data-volume/.test(name)),
      [],
    );
    const instance = inputsOf(stack, "server-instance-ubuntu-24-04-amd64-vol-0123456789abcdef0");
    assert.equal(instance.subnetId, "subnet-0123456789abcdef0");
    assert.equal(instance.userData, boot("vol-0123456789abcdef0"));
    assert.equal(inputsOf(stack, "server-data-attachment").volumeId, "vol-0123456789abcdef0");
    assert.equal(inputsOf(stack, "server-security-group").vpcId, "vpc-0123456789abcdef0");
    assert.deepEqual(inputsOf(stack, "server-security-group").ingress, [
      ssh("the CHT machine", ["198.51.100.0/24"], []),
      ssh("operators", ["203.0.113.7/32"], ["2001:db8:7::/48"]),
    ]);
    assert.deepEqual(atAws(stack)["server-aws"], provider("eu-west-1", "moh", { owner: "moh" }));
    assert.match(String(inputsOf(stack, "first-boot").stdin), /cloud-init/);
    const { couchdbData } = JSON.parse(String(inputsOf(stack, "backup-settings").content));
    assert.deepEqual(couchdbData, ["/srv/couchdb1", "/srv/couchdb2", "/srv/couchdb3"]);
  });

  it("the boundary that an operator has to give is everybody's who is made", () => {
    const made = (stack: StackName) =>
      [...run(stack).resources]
        .filter(([, { type }]) => /^aws:iam\/(user|role):/.test(type))
        .map(([name, { inputs }]) => [name, inputs.permissionsBoundary])
        .sort();
    const boundary = "arn:aws:iam::123456789012:policy/moh-boundary";
    assert.deepEqual(made("a clustered CouchDB, all at AWS, drills from the bucket"), [
      ["bucket-reader", boundary],
      ["server-role", boundary],
    ]);
    assert.deepEqual(made("a second deployment on that server"), [
      ["bucket-reader", undefined],
      ["bucket-writer", undefined],
    ]);
  });

  it("drills from a bucket that the stack makes get the reader's key on their machine, the server gets none at all", () => {
    const stack = "a clustered CouchDB, all at AWS, drills from the bucket";
    const holds = (text: string) =>
      [...run(stack).resources].filter(([, { inputs }]) => JSON.stringify(inputs).includes(text)).map(([name]) => name);
    assert.deepEqual(
      holds("hunter2-bucket-reader-key").map((name) => inputsOf(stack, name).machine),
      ["cht"],
    );
    assert.ok(!run(stack).resources.has("bucket-credentials"));
    assert.equal(JSON.parse(String(inputsOf(stack, "bucket-settings").content)).credentials, null);
  });

  it("a second deployment on that server shares nothing of what is made with the first one", () => {
    const [first, second] = ["server and bucket at AWS", "a second deployment on that server"] as const;
    assert.deepEqual(
      Object.keys(atAws(second)).filter((name) => name.startsWith("server")),
      [],
    );
    /** What a resource is on its machine, or at AWS: users, paths, units, names. */
    const places = (stack: StackName) =>
      [...run(stack).resources.values()]
        .filter(({ inputs }) => inputs.machine === "server" || /^aws:s3/.test(inputs.type as string))
        .flatMap(({ inputs: { path, user, unit, bucket } }) => [path, user, unit, bucket])
        .filter((place) => place !== undefined);
    const shared = places(first).filter((place) => places(second).includes(place));
    assert.deepEqual(shared, []);
    assert.ok(places(second).length > 10);
  });

  it("what is on a server that the stack makes is put there once it has booted, by its address and key, and goes with it", () => {
    const { resources } = run("server and bucket at AWS");
    const onServer = [...resources].filter(
      ([, { type, inputs }]) =>
        type.startsWith("host:") &&
        type !== "host:index:HostKeyPair" &&
        [inputs.machine, inputs.server].includes("server"),
    );
    assert.ok(onServer.length > 20);
    for (const [name, { inputs, dependencies, deletedWith }] of onServer) {
      assert.deepEqual(
        inputs.at,
        {
          machine: "server",
          address: "198.51.100.99",
          user: "cht-admin",
          hostKey: "ssh-ed25519 AAAAserver",
          instance: "server-instance-debian-13-arm64-id",
        },
        name,
      );
      assert.ok(dependencies.includes("first-boot"), name);
      assert.equal(deletedWith, inputs.machine === "server" ? "server-instance-debian-13-arm64" : "", name);
    }
    for (const [name, { inputs }] of resources) {
      if (inputs.machine === "cht" && inputs.server === undefined) assert.equal(inputs.at, undefined, name);
    }
  });

  it("the operators of the settings and nobody else may log in, not those of the day of the first boot", () => {
    const keys = inputsOf("server and bucket at AWS", "server-operator-keys");
    assert.deepEqual(
      [keys.path, keys.content, keys.mode, keys.owner],
      ["/home/cht-admin/.ssh/authorized_keys", `${operatorKey}\n`, "0600", "cht-admin"],
    );
  });

  it("a bucket that was left is taken again, and the kit's key for reading outlives the stack", () => {
    const adopted = run("a clustered CouchDB, all at AWS, drills from the bucket").resources;
    assert.ok(!adopted.has("bucket"));
    assert.equal(adopted.get("bucket-object-lock")?.inputs.bucket, "moh-backup-copy");
    const { resources } = run("server and bucket at AWS");
    for (const name of ["bucket-reader", "bucket-reader-rights", "bucket-reader-key"]) {
      assert.ok(resources.get(name)?.retained, name);
    }
  });

  it("the CHT machine gets the server's address, and waits for the bucket's protection before anything is copied", () => {
    const { resources } = run("server and bucket at AWS");
    assert.match(String(inputsOf("server and bucket at AWS", "cht-ssh-config").content), /HostName 198\.51\.100\.99\n/);
    const before = resources.get("bucket-settings-directory")?.dependencies ?? [];
    for (const part of ["bucket-object-lock", "bucket-policy", "bucket-public-access", "server-role-rights"]) {
      assert.ok(before.includes(part), part);
    }
  });

  it("the first boot is waited for with the volume and the address in place, once for each instance", () => {
    const boot = run("server and bucket at AWS").resources.get("first-boot");
    assert.equal(boot?.type, "command:local:Command");
    assert.deepEqual(boot?.inputs.triggers, ["server-instance-debian-13-arm64-id"]);
    const environment = boot?.inputs.environment as Record<string, string> | undefined;
    const { machine, starting } = JSON.parse(environment?.CHT_BACKUP_SCRIPT ?? "");
    assert.deepEqual(machine, {
      address: "198.51.100.99",
      user: "cht-admin",
      sudo: true,
      hostKey: "ssh-ed25519 AAAAserver",
    });
    assert.match(starting.refused, /terminate-instances --region eu-west-1 --instance-ids server-instance-debian/);
    assert.ok(boot?.dependencies.includes("server-data-attachment"));
    assert.ok(boot?.dependencies.includes("server-address-association"));
    assert.equal(boot?.deletedWith, "server-instance-debian-13-arm64");
    assert.deepEqual(run("server and bucket at AWS").resources.get("server-instance-debian-13-arm64")?.ignored, [
      "ami",
      "userData",
    ]);
  });

  it("operations and the kit are told what only the stack knows; the operator what a month costs, and what a destroy leaves", () => {
    const outputs = replaceSecrets(run("server and bucket at AWS").outputs, (inner) => inner) as {
      recovery: Record<string, unknown>;
      monthlyCost: string;
      kept: Record<string, string>;
    };
    const { serverAddress, bucketReader } = outputs.recovery;
    assert.equal(serverAddress, "198.51.100.99");
    assert.deepEqual(bucketReader, {
      accessKeyId: "AKIA-bucket-reader-key",
      secretAccessKey: "hunter2-bucket-reader-key",
    });
    assert.match(outputs.monthlyCost, /US dollars a month/);
    assert.match(outputs.kept.volume ?? "", /server-data-volume-id/);
    assert.equal(run("server and bucket that exist").outputs.monthlyCost, "nothing is made at AWS");
  });

  for (const name of Object.keys(stacks) as StackName[]) {
    it(`${name}: nothing public, unencrypted, unprotected or secret in plain`, () => {
      assert.deepEqual(dangers(run(name).resources), []);
    });
  }

  it("are refused before anything is made where this computer has no credential", async () => {
    const saved = { ...process.env };
    for (const key of Object.keys(process.env)) if (key.startsWith("AWS_")) delete process.env[key];
    process.env.HOME = "/nowhere";
    try {
      await assert.rejects(runProgram(stacks["server and bucket at AWS"], secretKeys), (error: Error) => {
        assert.ok(pulumi.RunError.isInstance(error));
        return /^no credential for AWS: /.test(error.message);
      });
    } finally {
      process.env = saved;
    }
  });
});

describe("the rules for what a stack registers", function () {
  this.timeout(30_000);
  let sound: Run["resources"];
  before(async () => {
    const environment = { ...process.env };
    Object.assign(process.env, {
      AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE",
      AWS_SECRET_ACCESS_KEY: "hunter2-operator",
    });
    sound = (await warned(stacks["server and bucket at AWS"], secretKeys)).resources;
    process.env = environment;
  });

  type Change = (resource: { inputs: Record<string, never>; raw: Record<string, unknown>; retained: boolean }) => void;
  const input =
    (change: (inputs: Record<string, never>) => void): Change =>
    (resource) => {
      change(resource.inputs);
      change(resource.raw as Record<string, never>);
    };
  const set = (values: Record<string, unknown>) => input((inputs) => void Object.assign(inputs, values));
  const leave: Change = (resource) => {
    resource.retained = false;
  };
  const open = { protocol: "tcp", fromPort: 22, toPort: 22, cidrBlocks: ["0.0.0.0/0"], ipv6CidrBlocks: [] };
  const anything = { Version: "2012-10-17", Statement: [{ Sid: "X", Effect: "Allow", Action: "s3:*", Resource: "*" }] };
  const anybody = {
    Version: "2012-10-17",
    Statement: [{ Sid: "X", Effect: "Allow", Principal: "*", Action: "s3:GetObject", Resource: "*" }],
  };
  const broken: [string, string, Change, RegExp][] = [
    ["SSH from everywhere", "server-security-group", set({ ingress: [open] }), /lets in 0\.0\.0\.0\/0/],
    [
      "another port",
      "server-security-group",
      set({ ingress: [{ ...open, cidrBlocks: ["203.0.113.7/32"], toPort: 443 }] }),
      /lets in ports 22 to 443/,
    ],
    [
      "a network twice",
      "server-security-group",
      set({ ingress: [1, 2].map(() => ({ ...open, cidrBlocks: ["203.0.113.7/32"] })) }),
      /lets in 203\.0\.113\.7\/32 twice/,
    ],
    [
      "a network as AWS doesn't write it",
      "server-security-group",
      set({ ingress: [{ ...open, cidrBlocks: [], ipv6CidrBlocks: ["2001:DB8:7::/48"] }] }),
      /is read back with 2001:db8:7::\/48/,
    ],
    [
      "a rule for nobody",
      "server-security-group",
      set({ ingress: [{ ...open, cidrBlocks: [] }] }),
      /a rule for nobody/,
    ],
    [
      "a tag that the provider gives, too",
      "server-instance-debian-13-arm64",
      set({ rootBlockDevice: { encrypted: true, tags: { "cht-backup:deployment": "moh" } } }),
      /tag cht-backup:deployment of its provider a second time/,
    ],
    [
      "a tag that IAM refuses",
      "bucket-aws",
      set({ defaultTags: JSON.stringify({ tags: { owner: "Ministry (Health)" } }) }),
      /owner: Ministry \(Health\), which IAM refuses/,
    ],
    ["a data volume in plain", "server-data-volume", set({ encrypted: false }), /isn't encrypted/],
    ["a system volume in plain", "server-instance-debian-13-arm64", set({ rootBlockDevice: {} }), /isn't encrypted/],
    ["metadata without a token", "server-instance-debian-13-arm64", set({ metadataOptions: {} }), /IMDSv2/],
    ["a key pair of AWS", "server-instance-debian-13-arm64", set({ keyName: "x" }), /key pair/],
    ["a volume that goes with the stack", "server-data-volume", leave, /goes with the stack/],
    ["a bucket that goes with the stack", "bucket", leave, /goes with the stack/],
    ["a lock that goes with the stack", "bucket-object-lock", leave, /goes with the stack/],
    ["a repository that goes with the stack", "borg-repository", leave, /goes with the stack/],
    ["a bucket that is emptied", "bucket", set({ forceDestroy: true }), /is emptied/],
    ["a bucket without a lock", "bucket", set({ objectLockEnabled: false }), /no object lock/],
    [
      "versions switched off",
      "bucket-versioning",
      set({ versioningConfiguration: { status: "Suspended" } }),
      /versioning/,
    ],
    [
      "a public access that isn't blocked",
      "bucket-public-access",
      set({ restrictPublicBuckets: false }),
      /public access/,
    ],
    ["a policy for anybody", "bucket-policy", set({ policy: JSON.stringify(anybody) }), /anybody/],
    ["no word on TLS", "bucket-policy", set({ policy: JSON.stringify(anything) }), /TLS/],
    ["a role that may do anything", "server-role-rights", set({ policy: JSON.stringify(anything) }), /allows s3:\*/],
    [
      "the host's key in plain",
      "server-instance-debian-13-arm64",
      set({ userData: "hunter2 PRIVATE KEY" }),
      /in plain/,
    ],
    ["the passphrase in plain", "backup-settings", set({ content: "hunter2" }), /in plain/],
  ];
  for (const [what, name, change, words] of broken) {
    it(`find ${what}`, () => {
      const resources = new Map([...sound].map(([key, value]) => [key, structuredClone(value)]));
      const resource = resources.get(name) ?? [...resources.values()].find(({ type }) => type === "host:index:File");
      assert.ok(resource, name);
      change(resource as never);
      const found = dangers(resources);
      assert.equal(found.length, 1, found.join("\n"));
      assert.match(String(found[0]), words);
    });
  }

  for (const [name, words] of [
    ["bucket-public-access", /no block of public access/],
    ["bucket-encryption", /no encryption/],
    ["bucket-versioning", /no versioning/],
    ["bucket-object-lock", /no default lock/],
    ["bucket-policy", /no policy/],
  ] as const) {
    it(`find that ${name} is missing`, () => {
      const resources = new Map([...sound].filter(([key]) => key !== name));
      assert.match(dangers(resources).join("\n"), words);
    });
  }
});

describe("the networks that a server lets in", () => {
  it("are let in once each, though the CHT and its operators are behind one address", () => {
    const rules = sshFrom({
      "the CHT machine": ["203.0.113.7/32", "2001:db8:7::/48"],
      operators: ["203.0.113.7/32", "198.51.100.0/24", "198.51.100.0/24"],
    });
    assert.deepEqual(
      rules.map(({ description, cidrBlocks, ipv6CidrBlocks }) => ({ description, cidrBlocks, ipv6CidrBlocks })),
      [
        {
          description: "SSH from the CHT machine",
          cidrBlocks: ["203.0.113.7/32"],
          ipv6CidrBlocks: ["2001:db8:7::/48"],
        },
        { description: "SSH from operators", cidrBlocks: ["198.51.100.0/24"], ipv6CidrBlocks: [] },
      ],
    );
    const one = ["203.0.113.7/32"];
    assert.equal(sshFrom({ "the CHT machine": one, operators: one }).length, 1);
  });
});

describe("a server's image", () => {
  it("is for the processor of its type", () => {
    const arm = [
      "t4g.small",
      "a1.medium",
      "m7g.large",
      "c7gn.xlarge",
      "im4gn.large",
      "is4gen.medium",
      "x2gd.medium",
      "g5g.xlarge",
    ];
    const amd = [
      "t3.small",
      "t3a.nano",
      "m7i.large",
      "c7a.xlarge",
      "g5.xlarge",
      "g4dn.xlarge",
      "i4i.large",
      "u-6tb1.metal",
    ];
    for (const type of arm) assert.equal(architectureOf(type), "arm64", type);
    for (const type of amd) assert.equal(architectureOf(type), "amd64", type);
    assert.equal(imageParameter("debian-13", "arm64"), "/aws/service/debian/release/13/latest/arm64");
  });
});
