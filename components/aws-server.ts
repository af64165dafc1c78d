/** The offsite server at AWS. Loaded only by stacks that make one: the SDK takes a second. */

import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { Settings } from "../config";
import { type BucketAws, SERVER_ADMIN } from "../config";
import * as host from "../provider";
import type { MachineSettings } from "../provider/connection";
import { sshFrom } from "./aws-network-rules";
import { iamPath, instanceTrustPolicy } from "./aws-policies";
import { awsProvider, boundaryIn } from "./aws-provider";
import { waitForFirstBoot } from "./first-boot";
import { userData, volumeDevices } from "./user-data";

export interface AwsServerArgs {
  /** Name of the machine for all that is put on it. */
  machine: string;
  deployment: string;
  /** Where the data volume is mounted. */
  dataDirectory: string;
  settings: NonNullable<Settings["server"]["aws"]>;
  /** How operators reach it: what the settings say of that beside address, user and host key. */
  login: MachineSettings;
  /** The bucket that the server writes to with a role of its own; undefined: with a key, or to none. */
  writes: Pick<BucketAws, "boundary"> | undefined;
}

/** The processor of a type: those of Graviton have a g after the generation (EC2's naming of instance types). */
export function architectureOf(instanceType: string): "arm64" | "amd64" {
  return /^(a1|[a-z]+\d+g[a-z0-9-]*)\./.test(instanceType) ? "arm64" : "amd64";
}

/** The public parameter of SSM that names a distribution's newest image: as Debian's and Canonical's pages on EC2 say. */
export function imageParameter(image: "debian-13" | "ubuntu-24.04", architecture: "arm64" | "amd64"): string {
  return image === "debian-13"
    ? `/aws/service/debian/release/13/latest/${architecture}`
    : `/aws/service/canonical/ubuntu/server/24.04/stable/current/${architecture}/hvm/ebs-gp3/ami-id`;
}

/**
 * A server at AWS with a volume of its own for the data. The volume outlives the instance, and the stack: a replaced
 * instance gets it, a destroyed stack leaves it. Address and host key stay the same when the instance is replaced.
 */
export class AwsServer extends pulumi.ComponentResource {
  /** Where the server is, for all that is put on it. */
  readonly place: pulumi.Output<host.Place>;
  readonly address: pulumi.Output<string>;
  readonly volumeId: pulumi.Output<string>;
  /** The role that writes to the bucket. */
  readonly role: aws.iam.Role | undefined;

  constructor(name: string, args: AwsServerArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:AwsServer", name, {}, opts);
    const { machine, deployment, settings, dataDirectory } = args;
    const { region, instanceType, image } = settings;
    const child = { parent: this, provider: awsProvider("server-aws", region, settings, deployment, this) };
    const path = iamPath(deployment);

    const network =
      settings.vpc === undefined
        ? this.ownNetwork(settings.availabilityZone, child)
        : existingNetwork(settings.vpc, child);
    const availabilityZone = network.availabilityZone;
    const securityGroup = new aws.ec2.SecurityGroup(
      "server-security-group",
      {
        vpcId: network.id,
        description: `Backups of the CHT deployment ${deployment}`,
        ingress: sshFrom({ "the CHT machine": settings.chtNetworks, operators: settings.operatorNetworks }),
        // Packages, the bucket, alarms by mail or chat: these have no addresses that could be listed.
        egress: [
          {
            description: "Everywhere",
            protocol: "-1",
            fromPort: 0,
            toPort: 0,
            cidrBlocks: ["0.0.0.0/0"],
            ipv6CidrBlocks: ["::/0"],
          },
        ],
      },
      child,
    );

    if (args.writes) {
      this.role = new aws.iam.Role(
        "server-role",
        {
          path,
          assumeRolePolicy: JSON.stringify(instanceTrustPolicy()),
          description: `Writes copies of ${deployment}`,
          permissionsBoundary: boundaryIn(args.writes.boundary, child),
        },
        child,
      );
    }
    const profile =
      this.role && new aws.iam.InstanceProfile("server-instance-profile", { path, role: this.role.name }, child);

    this.volumeId =
      settings.volumeId === undefined
        ? this.dataVolume(args, availabilityZone, child).id
        : pulumi.output(settings.volumeId);
    const operatorKeys = settings.operatorKeys;
    const hostKey = new host.HostKeyPair("server-host-key-pair", { machine }, { parent: this });
    const boot = pulumi
      .all([hostKey.privateKey, hostKey.publicKey, this.volumeId])
      .apply(([privateKey, publicKey, volumeId]) =>
        userData({
          adminUser: SERVER_ADMIN,
          operatorKeys,
          hostKey: { privateKey, publicKey },
          dataDirectory,
          volumeDevices: volumeDevices(volumeId),
        }),
      );
    const architecture = architectureOf(instanceType);
    const parameter = imageParameter(image, architecture);
    const instance = new aws.ec2.Instance(
      // Another distribution or processor is another instance, while a newer image of the same one isn't. So is one with
      // another volume or another place for it: the first boot sees to these.
      ["server-instance", image.replace(".", "-"), architecture, ...placeOfData(settings.volumeId, dataDirectory)].join(
        "-",
      ),
      {
        ami: aws.ssm.getParameterOutput({ name: parameter }, child).value,
        instanceType,
        subnetId: network.subnetId,
        // For the first boot, until the elastic address is there.
        associatePublicIpAddress: true,
        vpcSecurityGroupIds: [securityGroup.id],
        iamInstanceProfile: profile?.name,
        userData: pulumi.secret(boot),
        metadataOptions: { httpEndpoint: "enabled", httpTokens: "required", httpPutResponseHopLimit: 1 },
        maintenanceOptions: { autoRecovery: "default" },
        rootBlockDevice: {
          volumeType: "gp3",
          volumeSize: 8,
          encrypted: true,
          // On read the provider takes those out that are equal to its default tags: named twice they would be drift for ever.
          tags: { Name: `cht-backup-${deployment} system` },
        },
      },
      {
        ...child,
        additionalSecretOutputs: ["userData"],
        // Both are for the first boot. A newer image is no reason for another machine, and other user data would stop this one.
        // An instance that is replaced boots with the former ones; keys and files are today's as soon as it has booted.
        ignoreChanges: ["ami", "userData"],
      },
    );
    const attachment = new aws.ec2.VolumeAttachment(
      "server-data-attachment",
      { deviceName: "/dev/sdf", instanceId: instance.id, volumeId: this.volumeId, stopInstanceBeforeDetaching: true },
      // A volume is attached to one instance at a time.
      { ...child, deleteBeforeReplace: true, deletedWith: instance },
    );
    const elastic = new aws.ec2.Eip("server-address", { domain: "vpc" }, child);
    const association = new aws.ec2.EipAssociation(
      "server-address-association",
      { allocationId: elastic.allocationId, instanceId: instance.id },
      { ...child, deleteBeforeReplace: true, deletedWith: instance },
    );
    const booted = waitForFirstBoot(
      pulumi.all([elastic.publicIp, hostKey.publicKey]).apply(([address, publicKey]) => ({
        ...args.login,
        address,
        user: SERVER_ADMIN,
        hostKey: publicKey,
        sudo: true,
      })),
      instance.id,
      settings,
      { parent: this, dependsOn: [attachment, association], deletedWith: instance },
    );

    this.address = elastic.publicIp;
    this.place = pulumi.all([elastic.publicIp, hostKey.publicKey, instance.id]).apply(([address, publicKey, id]) => ({
      machine,
      address,
      user: SERVER_ADMIN,
      hostKey: publicKey,
      instance: id,
    }));
    putOnto(machine, this.place, instance, booted);
    // The first boot let in those of its day.
    new host.File(
      "server-operator-keys",
      {
        machine,
        path: `/home/${SERVER_ADMIN}/.ssh/authorized_keys`,
        content: operatorKeys.map((key) => `${key}\n`).join(""),
        mode: "0600",
        owner: SERVER_ADMIN,
        group: SERVER_ADMIN,
        at: this.place,
      },
      { parent: this, dependsOn: booted, deletedWith: instance, retainOnDelete: true },
    );
    this.registerOutputs({ address: this.address, volumeId: this.volumeId });
  }

  private dataVolume(
    { settings, deployment }: AwsServerArgs,
    availabilityZone: pulumi.Output<string>,
    child: pulumi.CustomResourceOptions,
  ) {
    return new aws.ebs.Volume(
      "server-data-volume",
      {
        availabilityZone,
        size: settings.dataGibibytes,
        type: "gp3",
        encrypted: true,
        tags: { Name: `cht-backup-${deployment} data` },
      },
      // Whatever would make another volume of it would leave the backups in the former one.
      { ...child, retainOnDelete: true, ignoreChanges: ["availabilityZone", "encrypted", "kmsKeyId", "snapshotId"] },
    );
  }

  /** One subnet with a way to the internet, for IPv4 and IPv6. */
  private ownNetwork(availabilityZone: string | undefined, child: pulumi.CustomResourceOptions) {
    const cidrBlock = "10.83.0.0/24";
    const vpc = new aws.ec2.Vpc("server-vpc", { cidrBlock, assignGeneratedIpv6CidrBlock: true }, child);
    const subnet = new aws.ec2.Subnet(
      "server-subnet",
      {
        vpcId: vpc.id,
        availabilityZone,
        cidrBlock,
        // The first of the 256 that a VPC's /56 has.
        ipv6CidrBlock: vpc.ipv6CidrBlock.apply((block) => block.replace(/\/56$/, "/64")),
        assignIpv6AddressOnCreation: true,
      },
      // The data volume is in its zone, and can't go to another one.
      { ...child, ignoreChanges: ["availabilityZone"] },
    );
    const gateway = new aws.ec2.InternetGateway("server-gateway", { vpcId: vpc.id }, child);
    const routes = new aws.ec2.RouteTable(
      "server-routes",
      {
        vpcId: vpc.id,
        routes: [
          { cidrBlock: "0.0.0.0/0", gatewayId: gateway.id },
          { ipv6CidrBlock: "::/0", gatewayId: gateway.id },
        ],
      },
      child,
    );
    const way = new aws.ec2.RouteTableAssociation(
      "server-routes-association",
      { subnetId: subnet.id, routeTableId: routes.id },
      child,
    );
    // Without the way to the internet a machine's first boot can't fetch anything.
    return {
      id: vpc.id,
      subnetId: pulumi.all([subnet.id, way.id]).apply(([id]) => id),
      availabilityZone: subnet.availabilityZone,
    };
  }
}

/** The operator's network. The server and its volume are in the zone of its subnet. */
function existingNetwork({ id, subnetId }: { id: string; subnetId: string }, opts: pulumi.InvokeOptions) {
  const { availabilityZone } = aws.ec2.getSubnetOutput({ id: subnetId }, opts);
  return { id: pulumi.output(id), subnetId: pulumi.output(subnetId), availabilityZone };
}

/** Parts of an instance's name, where its data aren't on a volume of the stack's own at the usual place. */
function placeOfData(volumeId: string | undefined, dataDirectory: string): string[] {
  const directory = dataDirectory === "/srv/cht-backup" ? [] : [dataDirectory.slice(1).replaceAll("/", "-")];
  return [...(volumeId === undefined ? [] : [volumeId]), ...directory];
}

/**
 * Everything that is registered from now on and is on this machine goes where it is, once it has booted; and goes with it,
 * so that an instance which has vanished is in nobody's way.
 */
function putOnto(
  machine: string,
  at: pulumi.Output<host.Place>,
  instance: pulumi.Resource,
  booted: pulumi.Resource,
): void {
  pulumi.runtime.registerStackTransformation(({ type, props, opts }) => {
    // The repository is the CHT machine's, and looks at the server, too.
    const { machine: on, server } = props as { machine?: unknown; server?: unknown };
    if (!type.startsWith(host.namespace) || (on !== machine && server !== machine)) return undefined;
    if (type === `${host.namespace}HostKeyPair`) return undefined;
    const further = on === machine ? { dependsOn: booted, deletedWith: instance } : { dependsOn: booted };
    return { props: { ...props, at }, opts: pulumi.mergeOptions(opts, further) };
  });
}
