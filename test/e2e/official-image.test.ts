import assert from "node:assert/strict";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { deployedImages } from "../../lab/cht";
import { ensureCouchdb, ensureImage } from "../../lab/images";
import { imagePrefix, label, waitFor } from "../../lab/machines";
import { Logged, run } from "../../toolchain/command";
import { labFolder, project } from "../../toolchain/paths";
import { Progress } from "../../toolchain/progress";

const name = `${imagePrefix}official-test`;
const folder = join(labFolder, "official-test");
const password = "of the official image";

/** Runs a program that must succeed. */
async function docker(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run("docker", args);
  assert.equal(code, 0, stderr);
  return stdout.trim();
}

/** Status and answer of the CouchDB in the container. */
async function ask(path: string): Promise<[status: number, answer: Record<string, unknown>]> {
  const script = `
import base64, json, urllib.error, urllib.request
login = base64.b64encode(b"medic:${password}").decode()
request = urllib.request.Request("http://127.0.0.1:5984/${path}", headers={"Authorization": "Basic " + login})
try: answer = urllib.request.urlopen(request)
except urllib.error.HTTPError as error: answer = error
print(json.dumps([answer.status, json.load(answer)]))`;
  return JSON.parse(await docker("exec", name, "python3", "-c", script));
}

describe("the lab's database on an image with the official one's layout", function () {
  this.timeout(60_000);

  const images: string[] = [];

  /** Starts it on the lab's data, with more options of `docker run`. */
  async function start(...more: string[]): Promise<void> {
    await run("docker", ["rm", "--force", name]);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    const files = join(project, "test", "fixtures", "couchdb-small.tar.gz");
    assert.equal((await run("tar", ["-xzf", files, "-C", folder, "--no-same-owner"])).code, 0);
    const environment = { USER: "medic", PASSWORD: password, SECRET: "secret", UUID: "uuid" };
    const words = Object.entries(environment).flatMap(([key, value]) => ["--env", `COUCHDB_${key}=${value}`]);
    const mount = ["--volume", `${folder}/couchdb:/opt/couchdb/data`];
    await docker("run", "--detach", "--name", name, "--label", label, ...words, ...mount, ...more, images.at(-1) ?? "");
    const answers = () =>
      ask("_up").then(
        () => true,
        () => false,
      );
    const logs = await waitFor(answers, 60_000).then((up) => (up ? "" : docker("logs", "--tail", "3", name)));
    assert.equal(logs, "");
  }

  before(async function () {
    const standIn = (await deployedImages())?.couchdb;
    assert.ok(standIn);
    const { stdout } = await run("docker", ["image", "inspect", "--format", "{{json .Config.Entrypoint}}", standIn]);
    if (stdout.includes("tini")) this.skip(); // the lab itself runs on it
    const [progress, logged] = [new Progress(() => undefined), new Logged(join(labFolder, "log"))];
    images.push(await ensureImage("official", standIn, join(__dirname, "official"), progress, logged));
    images.push(await ensureCouchdb(images[0] as string, progress, logged));
    await start();
  });

  after(async () => {
    await run("docker", ["rm", "--force", "--volumes", name]);
    await run("docker", ["rmi", ...images.reverse()]);
    rmSync(folder, { recursive: true, force: true });
  });

  it("opens the databases under the name of the node that they belong to, and lets the CHT's user in", async () => {
    assert.deepEqual((await ask("_membership"))[1].all_nodes, ["couchdb@127.0.0.1"]);
    const [status, medic] = await ask("medic");
    assert.deepEqual([status, medic.doc_count], [200, 419]);
  });

  it("runs as CouchDB's user, which makes its files for others to read, and keeps the password as a hash", async () => {
    const script = `
program=$(grep --null-data --files-with-matches '/server[.]py$' /proc/[0-9]*/cmdline | head -n 1)
grep -E '^(Umask|Uid)' "\${program%cmdline}status"
grep -c 'medic = -pbkdf2' /opt/couchdb/etc/local.d/cluster-credentials.ini
grep -c '${password}' /opt/couchdb/etc/local.d/*.ini || true`;
    const [umask, uid, ...counts] = (await docker("exec", name, "sh", "-c", script)).split("\n");
    assert.match(umask ?? "", /0022$/);
    assert.match(uid ?? "", /\t5984\t/);
    assert.equal(counts.map((line) => line.split(":").at(-1)).join(), "1,0,0");
  });

  it("without that name opens none of them, which is what a test must see", async () => {
    await start("--env", "NODENAME=");
    assert.deepEqual((await ask("_membership"))[1].all_nodes, ["nonode@nohost"]);
    assert.equal((await ask("medic"))[0], 500);
  });
});
