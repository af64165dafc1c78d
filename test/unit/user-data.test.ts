import assert from "node:assert/strict";
import { parse } from "yaml";
import { readHostFile } from "../../components/host-files";
import { type FirstBoot, userData, userDataLimit, volumeDevices } from "../../components/user-data";

// An Ed25519 key has always this length.
const privateKey = `-----BEGIN OPENSSH PRIVATE KEY-----\n${"A".repeat(70)}\n-----END OPENSSH PRIVATE KEY-----\n`;
const operatorKey = `ssh-ed25519 ${"A".repeat(68)} operator@example.org`;
const boot: FirstBoot = {
  adminUser: "cht-admin",
  operatorKeys: [operatorKey],
  hostKey: { privateKey, publicKey: `ssh-ed25519 ${"B".repeat(68)}` },
  dataDirectory: "/srv/cht-backup",
  volumeDevices: volumeDevices("vol-0123456789abcdef0"),
};

describe("the user data of a server at AWS", () => {
  const config = parse(userData(boot));
  const file = (path: string) => config.write_files.find((each: { path: string }) => each.path === path);

  it("lets the operator's keys in as one account, with sudo, and nobody by a password", () => {
    assert.deepEqual(config.users, [
      {
        name: "cht-admin",
        shell: "/bin/bash",
        lock_passwd: true,
        sudo: "ALL=(ALL) NOPASSWD:ALL",
        ssh_authorized_keys: [operatorKey],
      },
    ]);
    assert.equal(config.ssh_pwauth, false);
    assert.equal(config.disable_root, true);
  });

  it("brings the host key of the stack, whole, and has the image's go", () => {
    assert.deepEqual(config.ssh_keys, { ed25519_private: privateKey, ed25519_public: boot.hostKey.publicKey });
    assert.equal(config.ssh_deletekeys, true);
  });

  it("brings the files of hosts/ as they are", () => {
    assert.equal(file("/usr/local/sbin/cht-data-volume").content, readHostFile("aws/data-volume.sh"));
    assert.equal(file("/etc/ssh/sshd_config.d/10-cht-backup.conf").content, readHostFile("aws/sshd.conf"));
    assert.equal(file("/etc/apt/apt.conf.d/60cht-backup").content, readHostFile("aws/unattended-upgrades.conf"));
  });

  it("waits ten minutes for the volume, under each name that it may have", () => {
    const command =
      "ExecStart=/usr/local/sbin/cht-data-volume /srv/cht-backup 600 " +
      "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0 " +
      "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0_1 /dev/sdf /dev/xvdf\n";
    assert.ok(file("/etc/systemd/system/cht-data-volume.service").content.includes(command));
  });

  it("takes an operator's comment for nothing but a comment", () => {
    const comment = 'x"] # : {a: b} \\n @HOST_PRIVATE_KEY@ $&';
    const odd = parse(userData({ ...boot, operatorKeys: [`${operatorKey} ${comment}`] }));
    assert.deepEqual(odd.users[0].ssh_authorized_keys, [`${operatorKey} ${comment}`]);
  });

  it("has room for thirty operators' keys, and says when EC2 wouldn't take it", () => {
    const keys = (count: number) => userData({ ...boot, operatorKeys: Array(count).fill(operatorKey) });
    const used = Buffer.byteLength(keys(30));
    assert.ok(used < userDataLimit, `${used} bytes with thirty keys, ${Buffer.byteLength(keys(1))} with one`);
    assert.throws(
      () => keys(200),
      /^Error: the user data has \d+ bytes, 16384 at most are allowed: give fewer operatorKeys$/,
    );
  });
});
