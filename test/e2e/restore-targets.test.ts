import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { documentCounts } from "../../lab/cht";
import { exec, output, waitFor } from "../../lab/machines";
import { run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertComplete, backUp, data, programs, python, settings, state, timer } from "./backup";
import { removeArchives } from "./damage";
import { type FreshMachine, freshMachine, loadImages, tree } from "./fresh-machine";
import { healthyLab } from "./hooks";

const cht = "/home/ubuntu/cht";
/** A CHT with a cluster of three nodes: its home, and a data directory of each node outside of it. */
const cluster = "/srv/cluster";
const nodes = [1, 2, 3].map((node) => `${cluster}/db${node}`);

/** Sets up the files of a cluster on the CHT machine: the ranges of the lab's databases, divided among three nodes. */
const makeCluster = `set -e
rm -rf ${cluster}; mkdir -p ${cluster}
cp -a ${cht} ${cluster}/cht; rm -r ${cluster}/cht/couchdb
sed -i '/^COUCHDB_DATA=/d' ${cluster}/cht/upgrade-service/.env
node=0
for range in $(ls ${data}/shards); do
  node=$((node % 3 + 1))
  for kind in shards .shards; do
    [ -e ${cluster}/db$node/$kind ] || install -d -o 5984 -g 5984 ${cluster}/db$node ${cluster}/db$node/$kind
    [ ! -e ${data}/$kind/$range ] || cp -a ${data}/$kind/$range ${cluster}/db$node/$kind/
  done
done
for node in 1 2 3; do
  cp -a ${data}/_dbs.couch ${data}/_nodes.couch ${cluster}/db$node/
  echo "DB\${node}_DATA=${cluster}/db$node" >>${cluster}/cht/upgrade-service/.env
done`;

/** Makes a backup of the cluster with the real program and its own settings. @returns the archive's name */
async function backUpCluster(): Promise<string> {
  const script = `${makeCluster}
cp -p ${state}/last-backup.json ${state}/last-backup.prom ${cluster}/
sed -e 's|"chtHome": *"[^"]*"|"chtHome": "${cluster}/cht"|' -e 's|"couchdbData": *\\[\\]|"couchdbData": ${JSON.stringify(nodes)}|' \
  ${settings}/settings.json >${cluster}/settings.json
${programs}/venv/bin/python -B ${programs}/chtbackup backup ${cluster}/settings.json >&2 || [ $? -eq 1 ]
cat ${state}/last-backup.json
cp -p ${cluster}/last-backup.json ${cluster}/last-backup.prom ${state}/`;
  const report = JSON.parse(await output("cht", script));
  // The lab's own database has one node and another home, and the program sees that.
  assert.deepEqual(
    report.problems.map((line: string) => line.replace(/, a mount of \S+( \(.*\))?, is/, " is")),
    [
      `CouchDB keeps its data in ${data}, which is not backed up (only ${nodes.join(", ")} is)`,
      `${cht}/compose is not backed up: it is outside the home ${cluster}/cht`,
      `${data} is not backed up: it is outside the home ${cluster}/cht`,
    ],
  );
  return report.archive;
}

/** The blocks of commands in the runbook's section about parts, for the lab. */
function documented(archive: string): string[] {
  const [, section = ""] = readFileSync(join(project, "docs", "restore.md"), "utf8").split(/^## 6\. /m);
  const blocks = [...(section.split(/^## /m)[0] ?? "").matchAll(/```shell\n([\s\S]*?)```/g)];
  return blocks.map(([, block = ""]) =>
    block
      .replaceAll("/prod/", "/lab/")
      .replaceAll("--stack prod", "--stack lab")
      .replaceAll("npm run", "npm run -s")
      // The lab's stand-in for CouchDB has nothing to write when it stops.
      .replace("cht stop", "cht stop --timeout 1")
      .replace("down --volumes", "down --volumes --timeout 1")
      .replaceAll("ARCHIVE", archive),
  );
}

describe("a restore to where", function () {
  this.timeout(120_000);

  let machine: FreshMachine;
  let archive: string;
  let clustered: string | undefined;

  before(async () => {
    await healthyLab();
    // The nightly backup must not become the newest archive in between.
    await output("cht", `systemctl stop ${timer}`);
    const making = freshMachine("restore");
    archive = assertComplete(await backUp()).archive as string;
    machine = await making;
  });

  after(async () => {
    if (clustered !== undefined) await removeArchives(clustered);
    await output("cht", `rm -rf ${cluster}; systemctl start ${timer}`);
    await machine.remove();
  });

  it("it can't work is refused in one line that says what is missing, and nothing is changed", async () => {
    // Where nobody listens for SSH. What becomes of an address that nobody has depends on the network around.
    const other = "$(getent hosts cht-backup-lab-bucket | cut -d' ' -f1)";
    const hosts = `cp /etc/hosts /tmp/hosts; echo "${other} cht-backup-lab-server" >>/etc/hosts`;
    const sudoers = "/etc/sudoers.d/90-ubuntu";
    const wrong: [make: string, undo: string, reason: RegExp][] = [
      [`mv ${sudoers} /root/`, `mv /root/90-ubuntu ${sudoers}`, /: the login may not use sudo without a password/],
      [
        "mv /usr/bin/apt-get /root/",
        "mv /root/apt-get /usr/bin/",
        /: this machine has no apt-get; only Debian and Ubuntu are supported/,
      ],
      [
        hosts,
        "cat /tmp/hosts >/etc/hosts",
        /^the backup server can't be reached \(.*\)\. This machine must reach the server's SSH at cht-backup-lab-server, port 22: see the setting cht-backup:server\.address$/m,
      ],
      [
        `mkdir ${cht}; mount -t tmpfs -o size=100m none ${cht}`,
        `umount ${cht}; rmdir ${cht}`,
        new RegExp(`^too little space in ${cht}: 20\\d\\.\\d MB needed .*, 104\\.9 MB free$`, "m"),
      ],
    ];
    for (const [make, undo, reason] of wrong) {
      await output("restore", make);
      const { code, stdout, stderr } = await machine.restore("--archive", archive);
      await output("restore", undo);
      assert.equal(code, 2, stdout + stderr);
      assert.match(stderr, reason);
      assert.doesNotMatch(stderr, /Traceback|\n\s+at /);
    }
    assert.equal(await output("restore", "ls -A /home/ubuntu | grep cht || true"), "");
  });

  it("there is no Docker says so, and installs it when that is asked for", async () => {
    const purge = `export DEBIAN_FRONTEND=noninteractive
systemctl stop docker.socket docker.service
apt-get purge -y -q docker.io docker-cli docker-compose containerd runc
! command -v docker`;
    const purged = await exec("restore", purge);
    assert.equal(purged.code, 0, purged.stderr);
    const { code, stderr } = await machine.restore("--archive", archive);
    assert.equal(code, 2);
    assert.match(
      stderr,
      /^Docker is needed for the volumes cht_cht-credentials, cht_cht-ssl, and doesn't answer: docker is not installed\. Add --install-docker, or install it yourself$/m,
    );
    const dry = await machine.restore("--archive", archive, "--install-docker", "--dry-run");
    assert.equal(dry.code, 0, dry.stderr);
    assert.match(dry.stdout, /^would install Docker$/m);
    assert.equal(await output("restore", "command -v docker || echo none"), "none");
    const none = await machine.restore("--archive", "lab-1999-01-01T00:00:00Z", "--install-docker");
    assert.equal(none.code, 2, "an archive that isn't there");
    await output("restore", "docker compose version");
    // The purge took the engine's data along.
    await loadImages("restore");
  });

  it("file systems of their own are mounted fills them: the CHT's home, and CouchDB's directory inside it", async () => {
    await output(
      "restore",
      `mkdir ${cht}; mount -t tmpfs -o size=1g none ${cht}; mkdir ${data}; mount -t tmpfs -o size=1g none ${data}; mkdir ${data}/lost+found`,
    );
    const { code, stdout, stderr } = await machine.restore("--archive", archive, "--start");
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, new RegExp(`is restored to ${cht}, ${data} and right`));
    assert.equal(await output("restore", `findmnt -n -o FSTYPE ${cht}; findmnt -n -o FSTYPE ${data}`), "tmpfs\ntmpfs");
    const copy = await tree("restore");
    assert.ok(delete copy[`${data}/lost+found`]);
    assert.deepEqual(copy, await tree("cht"));
    assert.deepEqual(await documentCounts("restore"), await documentCounts("cht"));
  });

  /** Pastes a block into a shell of root on the machine. */
  const onMachine = (block: string) => exec("restore", `set -e\n${block}`);

  /** Runs the first block that has these words in it: the operator's with a way in, the others there as root. */
  async function follow(words: string): Promise<string> {
    const block = documented(archive).find((each) => each.includes(words)) ?? assert.fail(words);
    const command = block.replace("--to cht", ["--to", machine.destination, ...machine.login].join(" "));
    const done = block.startsWith("npm")
      ? await run("sh", ["-ec", command], { cwd: project, timeoutMs: 400_000 })
      : await onMachine(block);
    assert.equal(done.code, 0, done.stdout + done.stderr);
    return done.stdout;
  }

  it("a database was spoilt gives it its lost documents back, by the documented commands", async () => {
    const [counts, before] = await Promise.all([documentCounts(), tree("restore")]);
    // A shard without documents, as after a mistake, and nouveau's index of it.
    const range = `${data}/shards/00000000-15555554`;
    const spoil = `cp $(ls ${range}/_replicator.*.couch) ${range}/medic.1795302615.couch; mkdir ${data}/nouveau; echo old >${data}/nouveau/index`;
    await output("restore", spoil);
    const lost = async () => (await documentCounts("restore")).medic !== counts.medic;
    assert.ok(await waitFor(lost, 30_000));
    await follow("--database medic-sentinel");
    const spoilt = await tree("restore");
    const block = (name: string) => documented(name).find((each) => each.includes("$aside")) ?? assert.fail();
    const running = () => output("restore", "docker inspect --format '{{.Id}} {{.State.StartedAt}}' $(docker ps -q)");

    // The archive's name wasn't put in.
    const undisturbed = await running();
    const { code, stdout } = await onMachine(block("ARCHIVE"));
    assert.notEqual(code, 0);
    assert.match(stdout, /^STOP: there is no \/var\/lib\/cht-restore\/lab\/out\/ARCHIVE\/\S+\/medic\.\*\.couch$/m);
    assert.deepEqual(await tree("restore"), spoilt);
    assert.equal(await running(), undisturbed);

    const restored = async (text: string) => {
      const done = await onMachine(text);
      assert.equal(done.code, 0, done.stdout + done.stderr);
      const answers = () =>
        documentCounts("restore").then(
          () => true,
          () => false,
        );
      assert.ok(await waitFor(answers, 120_000), "its containers were started, and it doesn't answer");
      return /^DONE. What was there before is in (\S+)$/m.exec(done.stdout)?.[1] ?? assert.fail(done.stdout);
    };
    const aside = await restored(block(archive));
    assert.deepEqual(await documentCounts("restore"), counts);
    const movedAside = `cd ${aside}; find . -type f | sort | xargs sha256sum`;
    const moved = await output("restore", movedAside);
    assert.equal(moved.match(/\.couch$/gm)?.length, 24);
    assert.equal(await output("restore", `cat ${aside}/nouveau/index`), "old");

    const inPlace = (of: object) =>
      Object.fromEntries(Object.entries(of).filter(([path]) => !path.includes("-aside-")));
    // A second try, and the way back from the first.
    const second = await restored(block(archive));
    assert.notEqual(second, aside);
    assert.equal(await output("restore", movedAside), moved);
    assert.deepEqual(await documentCounts("restore"), counts);
    await restored(block(archive).replace(/^from=.*$/m, `from=${aside}`));
    assert.deepEqual(inPlace(await tree("restore")), spoilt);
    await restored(block(archive));
    assert.deepEqual(await documentCounts("restore"), counts);
    await output("restore", `rm -r ${cht}/couchdb-aside-* ${data}/nouveau`);
    assert.deepEqual(await tree("restore"), before);
  });

  it("single documents are wanted shows them in a second CouchDB, by the documented commands", async () => {
    await output("restore", "apt-get install -y -q curl");
    await follow("--into /var/lib/cht-look");
    const shown = await follow("cht-look --env-file");
    const counts = await documentCounts("restore");
    assert.equal(JSON.parse(shown).doc_count, counts.medic);
    const left =
      "docker ps --all --quiet --filter name=look; docker volume ls -q; docker network ls --format '{{.Name}}' | grep look || true";
    assert.equal(await output("restore", left), "cht_cht-credentials\ncht_cht-ssl");
  });

  it("such a file system holds data is refused, also with --replace", async () => {
    await output("restore", "docker compose --project-name cht down --timeout 1");
    const { code, stderr } = await machine.restore("--archive", archive, "--replace");
    assert.equal(code, 2);
    assert.match(stderr, new RegExp(`${cht} is a file system of its own and isn't empty, so it can't be moved aside`));
    assert.deepEqual(Object.keys(await tree("restore")).length, Object.keys(await tree("cht")).length + 1);
  });

  it("a cluster was: every node's directory outside the home, one of them a file system of its own", async () => {
    clustered = await backUpCluster();
    await output("restore", `mkdir -p ${nodes[1]}; mount -t tmpfs -o size=1g none ${nodes[1]}`);
    const { code, stdout, stderr } = await machine.restore("--archive", clustered, "--replace");
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /right: counts: 7 databases with 863 documents/);
    assert.match(stdout, new RegExp(`is restored to ${cluster}/cht, ${nodes.join(", ")} and right`));
    const roots = JSON.stringify({ roots: [`${cluster}/cht`, ...nodes] });
    const [source, copy] = await Promise.all([
      python("cht", "tree.py", [], roots),
      python("restore", "tree.py", [], roots),
    ]);
    assert.deepEqual(JSON.parse(copy.stdout), JSON.parse(source.stdout));
    for (const node of nodes) assert.ok(JSON.parse(copy.stdout)[`${node}/_dbs.couch`], node);
    assert.equal(await output("restore", `findmnt -n -o FSTYPE ${nodes[1]}`), "tmpfs");
  });

  it("a cluster was: one database is got out with the shards of all nodes", async () => {
    const out = "/var/tmp/medic";
    const { code, stdout, stderr } = await machine.restore(
      "--archive",
      clustered as string,
      "--database",
      "medic",
      "--into",
      out,
    );
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /right: counts: 1 database with 419 documents/);
    for (const node of nodes) assert.match(stdout, new RegExp(`^ {2}${out}${node}$`, "m"));
  });
});
