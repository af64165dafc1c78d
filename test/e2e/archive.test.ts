import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { exec, output } from "../../lab/machines";
import { project } from "../../toolchain/paths";
import {
  assertComplete,
  backUp,
  container,
  data,
  location,
  programs,
  python,
  type Report,
  type Run,
  recovery,
  repository,
  withPassphrase,
} from "./backup";
import { withoutCopies } from "./bucket";
import { healthyLab } from "./hooks";

interface Entry {
  kind: "file" | "directory" | "link";
  mode: string;
  uid: number;
  gid: number;
  sha256: string;
}
type Tree = Record<string, Entry>;
type Counts = Record<string, { documents: number; deleted: number; updateSequence: number }>;
interface Manifest {
  archive: string;
  counts: { source: string; databases: Counts };
  versions?: Record<string, string | null>;
}

const cht = "/home/ubuntu/cht";
const volumes = "/var/lib/docker/volumes";
const collected = "/run/cht-backup/lab/collect";
/** Where the archive is extracted on the CHT machine: an empty place, known to no borg before. */
const extracted = "/var/tmp/archive-test";
/** What CouchDB rebuilds by itself, or hasn't finished. None of it may be in an archive. */
const leftOut = [
  `${data}/nouveau`,
  `${data}/shards/00000000-15555554/medic.1795302615.couch.compact.data`,
  `${data}/shards/00000000-15555554/medic.1795302615.couch.compact.meta`,
];
/** What has to be in an archive, by CHT's guide: each with a path that only it has. */
const items: [item: string, root: string, example: RegExp][] = [
  ["CouchDB's directory: the databases", `${data}/shards`, /^\/.*\/medic\.1795302615\.couch$/],
  ["CouchDB's directory: the list of databases", `${data}/_dbs.couch`, /^$/],
  ["CouchDB's directory: the views", `${data}/.shards`, /\.view$/],
  ["the compose files", `${cht}/compose`, /^\/cht-couchdb\.yml$/],
  ["the compose file of the upgrade service", `${cht}/upgrade-service`, /^\/docker-compose\.yml$/],
  [".env with the passwords", `${cht}/upgrade-service`, /^\/\.env$/],
  ["the volume with CouchDB's credentials", `${volumes}/cht_cht-credentials/_data`, /./],
  ["the volume with nginx's certificates", `${volumes}/cht_cht-ssl/_data`, /./],
  ["the certificate", collected, /^\/cert\.pem$/],
  ["the certificate's private key", collected, /^\/key\.pem$/],
  ["the manifest before", collected, /^\/manifest-before\.json$/],
  ["the manifest after", collected, /^\/manifest-after\.json$/],
];

describe("an archive", function () {
  this.timeout(120_000);

  let run: Run;
  let report: Report;
  let source: Tree;
  let copy: Tree;
  /** The archive's paths in the order in which they were stored. */
  let stored: string[];
  let certificates: string;
  let passphrase: string;

  before(async () => {
    await healthyLab();
    ({ passphrase } = await recovery());
    const files = leftOut.slice(1).map((path) => `'${path}'`);
    await output(
      "cht",
      `rm -rf ${extracted}; mkdir -p '${leftOut[0]}/x' && touch '${leftOut[0]}/x/y' ${files.join(" ")}`,
    );
    try {
      run = await backUp();
    } finally {
      await output("cht", `rm -rf ${leftOut.map((path) => `'${path}'`).join(" ")}`);
    }
    report = assertComplete(run);
    const roots = [
      data,
      `${volumes}/cht_cht-credentials/_data`,
      `${volumes}/cht_cht-ssl/_data`,
      `${cht}/upgrade-service/.env`,
      ...(await output("cht", `ls ${cht}/compose/*.yml ${cht}/upgrade-service/*.yml`)).split("\n"),
    ];
    const nginx = await container("nginx");
    const script = withPassphrase(`
mkdir ${extracted} ${extracted}/borg ${extracted}/place ${extracted}/nginx
export BORG_BASE_DIR=${extracted}/borg
borg list --format '{path}{NL}' '${location}::${report.archive}'
cd ${extracted}/place
borg extract --numeric-ids '${location}::${report.archive}' >&2
docker cp -L ${nginx}:/etc/nginx/private/cert.pem ${extracted}/nginx/ >&2
docker cp -L ${nginx}:/etc/nginx/private/key.pem ${extracted}/nginx/ >&2`);
    stored = (await output("cht", script, { stdin: `${passphrase}\n` })).split("\n").map((path) => `/${path}`);
    certificates = await output("cht", `cd ${extracted}/nginx && sha256sum cert.pem key.pem`);
    const [ofSource, ofCopy] = await Promise.all([
      python("cht", "tree.py", [], JSON.stringify({ roots })),
      python("cht", "tree.py", [], JSON.stringify({ roots: [...roots, collected], base: `${extracted}/place` })),
    ]);
    source = JSON.parse(ofSource.stdout);
    copy = JSON.parse(ofCopy.stdout);
  });

  after(() => exec("cht", `rm -rf ${extracted}`));

  it("is made by the service, which then says how large it is", () => {
    assert.match(run.journal, new RegExp(`${report.archive} is complete: ${report.files} files, [\\d.]+ MB`));
  });

  for (const [item, root, example] of items) {
    it(`holds ${item}`, () => {
      const inside = Object.keys(copy).filter((path) => path === root || path.startsWith(`${root}/`));
      assert.ok(
        inside.some((path) => example.test(path.slice(root.length))),
        `nothing like ${example} of ${root} in ${inside.join(" ")}`,
      );
    });
  }

  it("extracted in full, is byte for byte what is on the machine, with the same owners and modes", () => {
    const others = Object.keys(copy).filter((path) => path.startsWith(collected));
    const same = Object.fromEntries(Object.entries(copy).filter(([path]) => !others.includes(path)));
    assert.deepEqual(same, source);
    assert.ok(Object.values(source).filter(({ kind }) => kind === "file").length > 100);
    assert.equal(source[`${cht}/upgrade-service/.env`]?.mode, "0600");
    assert.equal(copy[`${data}/_dbs.couch`]?.uid, 5984);
  });

  it("holds nothing that isn't there for a purpose: no nouveau, no unfinished compaction", () => {
    assert.deepEqual(
      [...stored].sort(),
      Object.keys({ ...source, ...copy })
        .filter((path) => path !== collected)
        .sort(),
    );
    assert.ok(!stored.some((path) => leftOut.some((out) => path.startsWith(out))));
  });

  it("holds the certificate and key that nginx uses, the key for root alone", () => {
    const key = copy[`${collected}/key.pem`];
    const cert = copy[`${collected}/cert.pem`];
    assert.equal(certificates, `${cert?.sha256}  cert.pem\n${key?.sha256}  key.pem`);
    assert.deepEqual([key?.mode, key?.uid, key?.gid], ["0600", 0, 0]);
  });

  it("has views first, then the other databases, medic-sentinel before them, medic after, then the rest", () => {
    const stage = (path: string) => {
      if (path.startsWith(`${data}/.shards/`)) return 0;
      const shard = /\/shards\/[^/]+\/(.*)\.\d+\.couch$/.exec(path);
      if (!shard) return path.startsWith(`${data}/`) ? 1 : 5;
      return shard[1] === "medic-sentinel" ? 2 : shard[1] === "medic" ? 4 : 3;
    };
    const files = stored.filter((path) => copy[path]?.kind === "file");
    const stages = files.map(stage);
    assert.deepEqual(
      stages,
      [...stages].sort((one, other) => one - other),
    );
    assert.deepEqual([...new Set(stages)], [0, 1, 2, 3, 4, 5]);
    assert.match(files.at(-1) ?? "", /manifest-after\.json$/);
  });

  it("holds a manifest with the counts that CouchDB itself reported of these files", async () => {
    const fixture = JSON.parse(readFileSync(join(project, "test", "fixtures", "couchdb-small.json"), "utf8"));
    const expected: Counts = Object.fromEntries(
      Object.entries<Record<string, number>>(fixture.databases).map(([name, of]) => [
        name,
        {
          documents: of.doc_count as number,
          deleted: of.doc_del_count as number,
          updateSequence: of.update_seq_number as number,
        },
      ]),
    );
    for (const part of ["before", "after"]) {
      const text = await output("cht", `cat ${extracted}/place${collected}/manifest-${part}.json`);
      const { archive, counts, versions }: Manifest = JSON.parse(text);
      assert.equal(archive, report.archive);
      assert.equal(counts.source, "server");
      assert.deepEqual(counts.databases, expected);
      if (part === "before") assert.ok(versions?.borg && versions.docker && versions.compose);
    }
    // The copy's own headers say the same, without a database.
    const scan = `${programs}/venv/bin/python ${programs}/chtbackup couchdb --json ${extracted}/place${data}`;
    const { databases, views } = JSON.parse(await output("cht", scan));
    const found = Object.entries<Counts[string]>(databases).map(([name, { documents, deleted, updateSequence }]) => [
      name,
      { documents, deleted, updateSequence },
    ]);
    assert.deepEqual(Object.fromEntries(found), expected);
    assert.equal(Object.keys(views).length, 12);
  });

  it("passes borg's strictest check, which reads and decrypts every byte", async () => {
    // Checks are the server's. On a copy, so that nobody waits for it.
    const check = withPassphrase(`
export BORG_BASE_DIR=/var/tmp/check/borg BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
rm -rf /var/tmp/check; mkdir /var/tmp/check
cp -a ${repository} /var/tmp/check/; rm -rf /var/tmp/check/repository/lock.*
borg check --verify-data /var/tmp/check/repository 2>&1
rm -rf /var/tmp/check`);
    const result = await withoutCopies(() => exec("server", check, { stdin: `${passphrase}\n` }));
    assert.equal(result.code, 0, result.stdout);
  });
});
