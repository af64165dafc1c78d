/** AWS, as far as a lab can be it: one machine that boots with the user data it is given, and one data volume. */
import { readFileSync, writeFileSync } from "node:fs";
import { canonicalNetwork } from "../../../config/networks";
import { addressOf, exec, waitFor } from "../../../lab/machines";
import { run } from "../../../toolchain/command";
import { attach, blankDisk, cloudMachine, type Disk, launch } from "../cloud-machine";
import { configuration, serve } from "./standin";

/** The file with what there is: the disk and the instance in the machine. */
const file = process.env.STANDIN_CLOUD ?? "";
interface Cloud {
  disk?: Disk;
  instance?: string;
  instances: number;
  /** The elastic one. */
  address?: string;
}
const cloud = (): Cloud => JSON.parse(readFileSync(file, "utf8"));
const change = (changes: Partial<Cloud>) => writeFileSync(file, JSON.stringify({ ...cloud(), ...changes }));

const runs = async () => (await run("docker", ["inspect", "--format", "{{.State.Running}}", cloudMachine])).stdout;

interface Rule {
  cidrBlocks: string[];
  ipv6CidrBlocks: string[];
}

/** A look at the system's volume finds the tags that the provider gives to everything only in that list, not among its own. */
function withoutDefaultTags(device: unknown): unknown {
  const { tags, ...others } = device as { tags?: Record<string, string> };
  const given = (configuration.defaultTags as { tags?: Record<string, string> } | undefined)?.tags ?? {};
  const own = Object.entries(tags ?? {}).filter(([name, value]) => given[name] !== value);
  return { ...others, tags: Object.fromEntries(own) };
}

serve(
  "7.48.0",
  {
    "aws:ebs/volume:Volume": {
      replaces: ["availabilityZone"],
      async create() {
        change({ disk: await blankDisk(1024) });
        return { id: "vol-0123" };
      },
    },
    "aws:ec2/instance:Instance": {
      replaces: ["ami", "subnetId", "availabilityZone"],
      async create({ userData }) {
        const { disk, instances } = cloud();
        if (disk === undefined) throw new Error("an instance before its volume: the lab's order is another one");
        const id = `i-${instances + 1}`;
        // The lab has one machine, so a new one takes the old one's place at once.
        await launch(String(userData), disk, { id, attached: false });
        change({ instance: id, instances: instances + 1 });
        return { id };
      },
      exists: async (id) => cloud().instance === id && (await runs()).trim() === "true",
      read: (_, inputs) => ({ ...inputs, rootBlockDevice: withoutDefaultTags(inputs.rootBlockDevice) }),
      async remove(id) {
        if (cloud().instance !== id) return;
        await run("docker", ["rm", "--force", "--volumes", cloudMachine]);
        change({ instance: "" });
      },
    },
    "aws:ec2/volumeAttachment:VolumeAttachment": {
      replaces: ["instanceId", "volumeId"],
      async create() {
        const booting = async () =>
          /^(starting|running|degraded)/.test((await exec("cloud", "systemctl is-system-running")).stdout);
        if (!(await waitFor(booting, 300_000))) throw new Error("the machine doesn't boot");
        await attach(cloud().disk as Disk);
        return {};
      },
    },
    "aws:ec2/eip:Eip": {
      async create() {
        const up = await waitFor(async () => (await runs()).trim() === "true", 300_000);
        if (!up) throw new Error("no machine to take the address from");
        const address = await addressOf("cloud");
        change({ address });
        return { id: "eipalloc-1", outputs: { allocationId: "eipalloc-1", publicIp: address } };
      },
    },
    "aws:ec2/eipAssociation:EipAssociation": {
      replaces: ["instanceId"],
      async create() {
        // The engine gives the lowest address that is free: the one that the machine before had.
        const address = await addressOf("cloud");
        if (address !== cloud().address)
          throw new Error(`the new machine has ${address}, the old one had ${cloud().address}`);
        return {};
      },
    },
    "aws:ec2/securityGroup:SecurityGroup": {
      async create({ ingress }) {
        const blocks = (ingress as Rule[]).flatMap((rule) => [...rule.cidrBlocks, ...rule.ipv6CidrBlocks]);
        const twice = blocks.map(canonicalNetwork).find((block, index, all) => all.indexOf(block) < index);
        if (twice !== undefined)
          throw new Error(`InvalidParameterValue: the same permission must not appear twice: ${twice}`);
        return {};
      },
      read: (_, inputs) => ({
        ...inputs,
        ingress: (inputs.ingress as Rule[]).map((rule) => ({
          ...rule,
          cidrBlocks: rule.cidrBlocks.map(canonicalNetwork),
          ipv6CidrBlocks: rule.ipv6CidrBlocks.map(canonicalNetwork),
        })),
      }),
    },
    "aws:ec2/subnet:Subnet": { create: async () => ({ outputs: { availabilityZone: "eu-west-1a" } }) },
    "aws:ec2/vpc:Vpc": { create: async () => ({ outputs: { ipv6CidrBlock: "2001:db8:1234:1a00::/56" } }) },
  },
  { "aws:ssm/getParameter:getParameter": () => ({ value: "ami-0123456789abcdef0" }) },
);
