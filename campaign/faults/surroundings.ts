/** What happens around a program: too little memory, Docker, CouchDB at work, packages, sshd. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { exec, type Machine, output } from "../../lab/machines";
import type { Fault, VictimName } from "../fault";
import { bucket, cht, data, drills } from "../victims";
import { chtIsBack } from "./power";

const services: [VictimName, Machine, string][] = [
  ["backup", "cht", cht.service],
  ["copy", "server", bucket.copyService],
  ["drill", "cht", drills.service],
];

/** Address space instead of `MemoryMax`: the lab's containers have no memory controller of their own. */
function memory(mebibytes: number): Fault[] {
  return services.map(([victim, machine, service]) => {
    const folder = `/run/systemd/system/${service}.d`;
    return {
      kind: "memory",
      name: `no program of the ${victim} gets more than ${mebibytes} MiB`,
      victims: [victim],
      expect: "told",
      early: true,
      lasts: [400, 400],
      inject: async () => {
        const dropIn = `[Service]\\nLimitAS=${mebibytes}M\\n`;
        await output(
          machine,
          `mkdir -p ${folder}; printf '${dropIn}' >${folder}/campaign.conf; systemctl daemon-reload`,
        );
        return true;
      },
      undo: () => output(machine, `rm -rf ${folder}; systemctl daemon-reload`),
    };
  });
}

const withDocker: VictimName[] = ["backup", "drill"];
const docker = (name: string, begin: string, end: string, victims = withDocker): Fault => ({
  kind: "Docker",
  name,
  victims,
  expect: "told",
  lasts: [1, 20],
  inject: async ({ running }) => (await exec("cht", begin, { timeoutMs: 120_000 })).code === 0 && running(),
  undo: async () => {
    await output("cht", end, { timeoutMs: 120_000 });
    await chtIsBack();
  },
});

const kept = "/var/tmp/cht-campaign-couchdb";
const shards = `${data}/shards/00000000-15555554`;
const grow = readFileSync(join(__dirname, "..", "..", "test", "e2e", "machine", "grow.py"), "utf8");
/** CouchDB's files as they were. What is done to them here is done behind its back, so it is started anew. */
const putBack = `set -e
[ -d ${kept} ] || exit 0
cp -a ${kept}/. ${data}/; rm -rf ${kept}
docker restart --time 1 $(docker ps --quiet --filter label=com.docker.compose.service=couchdb)`;

function couchdb(name: string, script: string, stdin?: string): Fault {
  return {
    kind: "CouchDB at work",
    name,
    victims: ["backup"],
    expect: "told",
    before: () => output("cht", `rm -rf ${kept}; cp -a ${data} ${kept}`),
    inject: async ({ running }) => {
      await output("cht", script, { stdin });
      return running();
    },
    after: async () => {
      await output("cht", putBack, { timeoutMs: 120_000 });
      await chtIsBack();
    },
  };
}

const around = (name: string, machine: Machine, script: string, victims: VictimName[]): Fault => ({
  kind: "packages and services",
  name,
  victims,
  expect: "told",
  inject: async ({ running }) => (await exec(machine, script, { timeoutMs: 180_000 })).code === 0 && running(),
});

const reinstall = (name: string) =>
  `DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=60 install --reinstall ${name} >/dev/null 2>&1`;

export const surroundings: Fault[] = [
  ...[40, 120, 300].flatMap(memory),
  docker("Docker is restarted", "systemctl restart docker.service", "true"),
  docker(
    "Docker is stopped",
    "systemctl stop docker.socket docker.service",
    "systemctl start docker.socket docker.service",
  ),
  docker("Docker hangs", "pkill -STOP -x dockerd", "pkill -CONT -x dockerd"),
  docker(
    "the drill's container is killed",
    "docker kill $(docker ps --quiet --filter label=cht-backup.drill=lab)",
    "true",
    ["drill"],
  ),
  couchdb(
    "a compaction swaps all files of a range",
    `for file in ${shards}/*.couch; do cp -a $file $file.compact; mv $file.compact $file; done`,
  ),
  couchdb("a database's file grows", `python3 - ${shards}/medic.1795302615.couch 8`, grow),
  couchdb("a database is deleted", `rm ${data}/shards/*/medic.1795302615.couch`),
  couchdb("a database's file is lost", `rm ${shards}/medic.1795302615.couch`),
  couchdb("a view is dropped", `rm ${data}/.shards/2aaaaaaa-3ffffffe/medic.1795302615_design/mrview/*.view`),
  around("borg is installed again", "cht", reinstall("borgbackup"), ["backup", "drill"]),
  around("sshd is installed again", "server", reinstall("openssh-server"), ["backup", "restore"]),
  around("sshd is restarted", "server", "systemctl restart ssh.service", [
    "backup",
    "drill",
    "restore",
    "retention",
    "up",
  ]),
  around("systemd is started anew on the CHT machine", "cht", "systemctl daemon-reexec", ["backup", "drill", "up"]),
  around("systemd is started anew on the server", "server", "systemctl daemon-reexec", ["backup", "copy", "up"]),
];
