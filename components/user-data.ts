/** What a server made at AWS is told for its first boot: cloud-init's user data. */
import { readHostFile, render, renderHostFile } from "./host-files";

/** EC2 takes no more, in bytes, before base64. */
export const userDataLimit = 16_384;

export interface FirstBoot {
  /** The account that the operator and Pulumi log in as. */
  adminUser: string;
  /** Public keys that may, in OpenSSH's form. */
  operatorKeys: readonly string[];
  /** The server's Ed25519 host key in OpenSSH's forms. It goes in clear into what is returned. */
  hostKey: { privateKey: string; publicKey: string };
  /** Where the data volume is mounted. */
  dataDirectory: string;
  /** All names that the data volume may appear by: see `volumeDevices`. */
  volumeDevices: readonly string[];
  /** How long the first boot waits for the volume to be attached, in seconds. Default: 600. */
  waitSeconds?: number;
}

/** Names by which a machine may see an EBS volume that is attached as `/dev/sdf`: over NVMe by its id, over Xen by the letter. */
export function volumeDevices(volumeId: string): string[] {
  const byId = `/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${volumeId.replace("-", "")}`;
  // udev has two forms, without and with the number of the NVMe namespace.
  return [byId, `${byId}_1`, "/dev/sdf", "/dev/xvdf"];
}

/**
 * The user data: cloud-init's YAML.
 *
 * @throws Error when EC2 wouldn't take it for its length
 */
export function userData(boot: FirstBoot): string {
  const directory = { DATA_DIRECTORY: boot.dataDirectory };
  const unit = renderHostFile("aws/cht-data-volume.service", {
    ...directory,
    WAIT_SECONDS: boot.waitSeconds ?? 600,
    DEVICES: boot.volumeDevices.join(" "),
  });
  const values = {
    ADMIN_USER: boot.adminUser,
    OPERATOR_KEYS: boot.operatorKeys,
    HOST_PRIVATE_KEY: `${boot.hostKey.privateKey.trimEnd()}\n`,
    HOST_PUBLIC_KEY: boot.hostKey.publicKey,
    SSHD: readHostFile("aws/sshd.conf"),
    APT: readHostFile("aws/unattended-upgrades.conf"),
    TMPFILES: renderHostFile("aws/tmpfiles.conf", directory),
    DATA_VOLUME: readHostFile("aws/data-volume.sh"),
    DATA_VOLUME_UNIT: unit,
  };
  // JSON is YAML, on one line and with nothing in it that could be taken for YAML's own.
  const lines = Object.entries(values).map(([name, value]) => [name, JSON.stringify(value)]);
  const text = render(readHostFile("aws/cloud-config.yaml"), Object.fromEntries(lines));
  const length = Buffer.byteLength(text);
  if (length > userDataLimit) {
    throw new Error(`the user data has ${length} bytes, ${userDataLimit} at most are allowed: give fewer operatorKeys`);
  }
  return text;
}
