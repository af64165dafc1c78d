/** Disks that are full, or can't be written. A small one is put over a directory, with all that was in it. */
import { exec, type Machine, output } from "../../lab/machines";
import type { Fault, VictimName } from "../fault";
import { bucket, cht, server } from "../victims";

const lower = "/run/campaign-below";

interface Disk {
  machine: Machine;
  directory: string;
  /** Mebibytes that are free on it. */
  spare: number;
  /** Units that watch what is in the directory: they look at the disk below otherwise. */
  watchers?: string[];
}

/** Puts a disk over the directory. What was there stays reachable below. */
const mount = ({ machine, directory, spare, watchers = [] }: Disk) =>
  output(
    machine,
    `set -e
mkdir -p ${lower} && mount --bind ${directory} ${lower} && mount --make-private ${lower}
size=$(( $(du -sm ${directory} | cut -f 1) + ${spare} ))
mount -t tmpfs -o size=\${size}m,mode=0700 none ${directory}
cp -a ${lower}/. ${directory}/
chown --reference=${lower} ${directory} && chmod --reference=${lower} ${directory}
${watchers.map((unit) => `systemctl restart ${unit}`).join("\n")}`,
  );

/** Takes it away again; what was written onto it meanwhile stays. */
const unmount = ({ machine, directory, watchers = [] }: Disk) =>
  exec(
    machine,
    `mountpoint -q ${lower} || exit 0
set -e
find ${lower} -mindepth 1 -delete
cp -a ${directory}/. ${lower}/
umount ${directory} || umount -l ${directory}
umount ${lower}
${watchers.map((unit) => `systemctl restart ${unit}`).join("\n")}`,
  );

function full(name: string, disk: Disk, victims: VictimName[]): Fault {
  const filling = `${disk.directory}/campaign-filling`;
  return {
    kind: "disk full",
    name,
    victims,
    expect: "told",
    lasts: [5, 60],
    before: () => mount(disk),
    inject: async (hit) => {
      const free = `$(df --output=avail -m ${disk.directory} | tail -n 1)`;
      // All of it, and then the last bytes.
      const fill = `fallocate -l ${free}M ${filling} 2>/dev/null; cat /dev/zero >>${filling} 2>/dev/null`;
      await exec(disk.machine, fill);
      return hit.running();
    },
    undo: () => exec(disk.machine, `rm -f ${filling}`),
    after: () => unmount(disk),
  };
}

function readOnly(name: string, disk: Disk, victims: VictimName[]): Fault {
  return {
    kind: "disk read-only",
    name,
    victims,
    expect: "told",
    early: true,
    lasts: [5, 60],
    before: () => mount(disk),
    inject: async () => {
      await output(disk.machine, `mount -o remount,ro ${disk.directory}`);
      return true;
    },
    undo: () => exec(disk.machine, `mount -o remount,rw ${disk.directory}`),
    after: () => unmount(disk),
  };
}

const state: Disk = { machine: "cht", directory: cht.state, spare: 40 };
// borg keeps 500 MiB free.
const repository: Disk = { machine: "server", directory: server.repository, spare: 620 };
const ofCopies: Disk = { machine: "server", directory: bucket.state, spare: 2 };
const ofServer: Disk = {
  machine: "server",
  directory: server.state,
  spare: 2,
  watchers: [server.sealPath, server.auditPath, server.alertLaterPath],
};
const destination: Disk = { machine: "cht", directory: "/var/lib/cht-restore", spare: 8 };

export const disks: Fault[] = [
  full("the disk of the backup's state is full", state, ["backup"]),
  full("the repository's disk is full", repository, ["backup"]),
  full("the disk of the copies' state is full", ofCopies, ["copy"]),
  full("the disk of the server's state is full", ofServer, ["backup"]),
  full("the disk of the restore's notes is full", destination, ["restore", "restore from the bucket"]),
  readOnly("the disk of the backup's state is read-only", state, ["backup", "drill"]),
  readOnly("the repository's disk is read-only", repository, ["backup"]),
  readOnly("the disk of the copies' state is read-only", ofCopies, ["copy"]),
];
