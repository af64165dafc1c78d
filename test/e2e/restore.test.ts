import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { documentCounts } from "../../lab/cht";
import { exec, output, waitFor } from "../../lab/machines";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertComplete, backUp, data, home, recovery, stopExtraction, timer } from "./backup";
import { type FreshMachine, freshMachine, tree } from "./fresh-machine";
import { healthyLab } from "./hooks";

const cht = "/home/ubuntu/cht";
const staging = "/home/ubuntu/.cht.restoring";
const volumes = "/var/lib/docker/volumes";
const authorizedKeys = `cat ${home}/.ssh/authorized_keys`;

describe("a restore", function () {
  this.timeout(120_000);

  let machine: FreshMachine;
  let destination: string[];
  let archive: string;
  let older: string;
  let keys: string;
  /** Where --replace moved what was there. */
  let aside = "";

  /** Runs the command of docs/restore.md that has these words in it, on the lab. */
  function documented(words: string): Promise<Result> {
    const lines = readFileSync(join(project, "docs", "restore.md"), "utf8").split("\n");
    const line = lines.find((each) => each.startsWith("npm run ") && each.includes(words));
    assert.ok(line, words);
    const [, , , , , to, ...login] = destination;
    const command = line
      .replace("--stack prod", "--stack lab")
      .replace("root@new.example.org", [to, ...login].join(" "));
    return run("sh", ["-c", command.replace("npm run", "npm run -s")], { cwd: project, timeoutMs: 400_000 });
  }

  /** Runs the command as an operator does. */
  function restore(...args: string[]): Promise<Result> {
    return run("npm", ["run", "-s", "restore", "--", ...destination, ...args], { cwd: project, timeoutMs: 400_000 });
  }

  before(async () => {
    await healthyLab();
    // The nightly backup must not become the newest archive in between.
    await output("cht", `systemctl stop ${timer}`);
    older = assertComplete(await backUp()).archive as string;
    archive = assertComplete(await backUp()).archive as string;
    keys = await output("server", authorizedKeys);
    machine = await freshMachine("restore");
    destination = ["--stack", "lab", "--from", "server", "--to", machine.destination, ...machine.login];
  });

  after(async () => {
    await output("cht", `systemctl start ${timer}`);
    await machine.remove();
  });

  /** What a restore may leave neither on the server nor on the machine, however it ended. */
  async function assertTidy(): Promise<void> {
    assert.equal(await output("server", authorizedKeys), keys);
    const left = "ls -A /var/lib/cht-restore/lab | grep run || true; pgrep -x borg || true";
    assert.equal(await output("restore", left), "");
  }

  it("can be chosen from a list, from the operator's computer", async () => {
    const list = await run("npm", ["run", "-s", "archives", "--", "--stack", "lab", "--last", "2", "--json"], {
      cwd: project,
    });
    assert.equal(list.code, 0, list.stderr);
    const [first, second] = JSON.parse(list.stdout).archives;
    assert.deepEqual([first.name, second.name], [archive, older]);
    assert.equal(first.finished, true);
    assert.deepEqual(first.problems, []);
    assert.deepEqual(first.documents, await documentCounts());
    // With the CHT machine gone, from any other one.
    const words = ["--", "--stack", "lab", "--last", "2", "--json", "--via", ...destination.slice(5)];
    const via = await run("npm", ["run", "-s", "archives", ...words], { cwd: project });
    assert.equal(via.stdout, list.stdout, via.stderr);
    await assertTidy();
    const table = await documented("archives");
    assert.match(table.stdout, new RegExp(`^${archive} .* MB, 863 documents\n.*medic 419`));
  });

  it("says beforehand what it would do, how much room and how long it takes, and does nothing", async () => {
    const { code, stdout, stderr } = await documented("--dry-run");
    assert.equal(code, 0, stderr);
    assert.match(stdout, new RegExp(`archive ${archive}, begun`));
    assert.match(stdout, /files, [\d.]+ MB; about .* at/);
    assert.match(stdout, /space: [\d.]+ MB needed, [\d.,]+ MB free in/);
    assert.match(stdout, new RegExp(`would put back ${cht}\nwould put back the volume cht_cht-credentials`));
    assert.equal(await output("restore", "ls -A /home/ubuntu | grep cht || true; docker volume ls -q"), "");
    await assertTidy();
  });

  it("that is interrupted leaves nothing in the CHT's place, no key, and no secret where others see it", async () => {
    const { passphrase } = await recovery();
    // In the middle of the extraction it is made to wait, so that there is time to look.
    const stopped = stopExtraction("restore", `${staging}/home`, 20);
    const running = restore();
    await stopped;
    const added = (await output("server", authorizedKeys)).replace(keys, "").trim();
    assert.match(
      added,
      /^restrict,expiry-time="\d{12}",command="\S*python3 -I \/opt\/cht-backup-server\/lab\/chtbackup guard /,
    );
    // The word itself must not be in the search's own arguments.
    const search = `umask 077; cat > /tmp/word; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -cFf /tmp/word; rm /tmp/word`;
    assert.equal((await exec("restore", search, { stdin: `${passphrase}\n` })).stdout.trim(), "0");
    const second = await restore();
    assert.equal(second.code, 2);
    assert.match(second.stderr, /another restore is running on this machine/);
    // As Ctrl-C does: to the program itself, which npm waits for.
    const program = await run("pgrep", ["-f", `^node toolchain/run.mjs operations/restore.ts.*${destination[5]}`]);
    process.kill(Number(program.stdout.trim().split("\n").at(-1)), "SIGINT");
    const { code, stderr } = await running;
    assert.equal(code, 130, stderr);
    assert.match(stderr, /The same command goes on from here/);
    assert.equal(await output("restore", `ls -d ${cht} 2>/dev/null || true; docker volume ls -q`), "");
    await assertTidy();
  });

  it("whose files were damaged on the way is caught: named, and not put in place", async () => {
    const damage = `
file=$(find ${staging} -name '*.couch' ! -newermt 2026-11-21T12:00Z | head -n 1)
touch -r "$file" /tmp/time
size=$(stat -c %s "$file")
head -c "$size" /dev/zero > "$file"
touch -r /tmp/time "$file"
echo "\${file#${staging}}"`;
    const damaged = await output("restore", damage);
    const { code, stdout, stderr } = await restore();
    assert.equal(code, 1, stdout + stderr);
    assert.match(stdout, /of which [\d.]+ MB are here from a run before/);
    assert.ok(stderr.includes(`WRONG: ${damaged}: none of its`), stderr);
    assert.match(stdout, /NOT put in place: 1 of the checks failed/);
    assert.equal(await output("restore", `ls -d ${cht} 2>/dev/null || true`), "");
    await assertTidy();
  });

  it("then works with the same command, and starts the CHT", async () => {
    const begin = Date.now();
    const { code, stdout, stderr } = await documented("--start");
    assert.equal(code, 0, stdout + stderr);
    const right = [...stdout.matchAll(/^right: (\w+)/gm)].map(([, what]) => what);
    assert.deepEqual(right, ["files", "checksums", "headers", "counts", "TLS", "login", "CouchDB", "TLS"]);
    assert.match(stdout, new RegExp(`${archive} is restored to ${cht} and right`));
    console.log(`      a restore with its start took ${((Date.now() - begin) / 1000).toFixed(1)} s`);
    await assertTidy();
  });

  it("brings back every file byte for byte, with owners and modes, and both volumes", async () => {
    const [source, copy] = await Promise.all([tree("cht"), tree("restore")]);
    assert.deepEqual(copy, source);
    assert.equal(copy[`${data}/_dbs.couch`]?.uid, 5984);
    assert.equal(copy[`${cht}/upgrade-service/.env`]?.mode, "0600");
    assert.ok(copy[`${volumes}/cht_cht-ssl/_data/key.pem`]);
    assert.equal(await output("restore", "ls -A /home/ubuntu | grep restoring || true"), "");
  });

  it("brings back logins, documents and the certificate, behind nginx", async () => {
    assert.deepEqual(await documentCounts("restore"), await documentCounts("cht"));
    const shown = "openssl s_client -connect 127.0.0.1:443 < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint";
    assert.equal(await output("restore", shown), await output("cht", shown));
  });

  it("makes volumes that Compose takes for its own", async () => {
    const compose = `cd ${cht} && docker compose --project-name cht --env-file upgrade-service/.env --file compose/cht-core.yml --file compose/cht-couchdb.yml`;
    const up = await exec("restore", `${compose} up --detach && ${compose} down --timeout 1`);
    assert.equal(up.code, 0, up.stderr);
    assert.doesNotMatch(up.stderr, /already exists|external|not created by/);
  });

  it("onto a machine with data is refused, and nothing is changed", async () => {
    const before = await tree("restore");
    const { code, stderr } = await restore("--archive", older);
    assert.equal(code, 2);
    assert.match(stderr, new RegExp(`there is data already: ${cht}, the volume cht_cht-credentials, .*--replace`));
    assert.deepEqual(await tree("restore"), before);
    assert.equal(await output("restore", "ls -A /home/ubuntu | grep restoring || true"), "");
    await assertTidy();
  });

  it("that is to replace what is there moves it aside and says where", async () => {
    await output("restore", `echo changed > ${cht}/compose/mine.txt`);
    const { code, stdout, stderr } = await restore("--archive", older, "--replace");
    assert.equal(code, 0, stdout + stderr);
    [, aside = ""] = new RegExp(`what was in ${cht} is in (\\S+)`).exec(stdout) ?? [];
    assert.equal(await output("restore", `cat ${aside}/compose/mine.txt`), "changed");
    assert.deepEqual(await tree("restore"), await tree("cht"));
  });

  it("can be undone by the documented commands: what was there before is back, and runs", async () => {
    const page = readFileSync(join(project, "docs", "restore.md"), "utf8");
    const [, block = ""] = /```shell\n([\s\S]*?)```/.exec(page.slice(page.indexOf("\n## 5. "))) ?? [];
    assert.match(block, /before-restore-TIME/);
    const back = await exec("restore", `set -e\n${block.replaceAll("TIME", aside.split("before-restore-")[1] ?? "")}`);
    assert.equal(back.code, 0, back.stderr);
    assert.equal(await output("restore", `cat ${cht}/compose/mine.txt; rm ${cht}/compose/mine.txt`), "changed");
    const [cert, left] = [`${volumes}/cht_cht-ssl/_data/cert.pem`, `${cht}.restored/upgrade-service/.env`];
    await output("restore", `test -e ${cert} -a -e ${left} -a ! -e ${aside}`);
    const answers = () =>
      documentCounts("restore").then(
        () => true,
        () => false,
      );
    assert.ok(await waitFor(answers, 90_000), "the CHT doesn't answer");
    assert.deepEqual(await documentCounts("restore"), await documentCounts("cht"));
  });

  it("that can't begin says why in one line, and its exit code is 2", async () => {
    const wrong: [string[], RegExp][] = [
      [["--archive", "lab-2020-01-01T00:00:00Z"], /there is no archive lab-2020-01-01/],
      [["--as-of", "2020-01-01"], /no archive is as old as 2020-01-01T23:59:59Z: the oldest is lab-/],
      [["--as-of", "yesterday"], /--as-of yesterday: it must be a time such as/],
      [["--nonsense"], /--nonsense/],
    ];
    for (const [args, reason] of wrong) {
      const { code, stderr } = await restore(...args);
      assert.equal(code, 2, stderr);
      assert.match(stderr, reason);
      assert.doesNotMatch(stderr, /\n\s+at /);
    }
  });
});
