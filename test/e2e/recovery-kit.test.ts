import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serveCommand } from "../../components/names";
import { identityFile } from "../../lab/boot";
import { documentCounts } from "../../lab/cht";
import { addressOf, containerOf, exec, output } from "../../lab/machines";
import { stackFile } from "../../lab/stack";
import { type Result, run } from "../../toolchain/command";
import { project } from "../../toolchain/paths";
import { assertComplete, backUp, home, recovery, repository, timer, user } from "./backup";
import { copyNow } from "./bucket";
import { type FreshMachine, freshMachine, tree } from "./fresh-machine";
import { healthyLab } from "./hooks";
import { assertNoDrift, up } from "./stack";
import { Terminal } from "./terminal";

const NEW = "NEW MACHINE";
const SERVER = "BACKUP SERVER";
const authorizedKeys = `cat ${home}/.ssh/authorized_keys`;

describe("the recovery kit", function () {
  this.timeout(120_000);

  const folder = mkdtempSync(join(tmpdir(), "cht-backup-kit-test-"));
  const html = join(folder, "kit.html");
  const textFile = join(folder, "kit.txt");
  const settingsBefore = join(folder, "settings");

  let machine: FreshMachine | undefined;
  let archive: string;
  let keys: string;
  let made: Result;
  /** The page as plain text: from here on all that the restore has. */
  let page: string;
  const terminals: Record<string, Terminal> = {};

  const kit = (...args: string[]) => run("npm", ["run", "-s", "recovery-kit", "--", ...args], { cwd: project });

  /** The page's frames for a machine (or its secrets) below the heading that begins so. */
  function frames(heading: string, where: string): string[] {
    // One `#` begins a comment in a frame, too.
    const section = page.split(/^(?=##+ )/m).find((each) => each.replace(/^#+ /, "").startsWith(heading));
    assert.ok(section, heading);
    return [...section.matchAll(/^={8} (.*?) =+\n([\s\S]*?)^={78}$/gm)].flatMap(([, title = "", body = ""]) =>
      title.startsWith(where) ? [body.trimEnd()] : [],
    );
  }

  /** Pastes the frame of a step into the window that it names. */
  async function step(heading: string, where = NEW, ...answers: [RegExp, string][]) {
    const [frame, ...others] = frames(heading, where);
    assert.ok(frame && others.length === 0, `${heading}: ${others.length + 1} frames for ${where}`);
    const terminal = terminals[where];
    assert.ok(terminal);
    return terminal.paste(frame, ...answers);
  }

  async function done(...args: Parameters<typeof step>): Promise<string> {
    const { code, shown } = await step(...args);
    assert.equal(code, 0, shown);
    assert.match(shown, /^DONE: /m);
    return shown;
  }

  async function stops(reason: RegExp, ...args: Parameters<typeof step>): Promise<void> {
    const { code, shown } = await step(...args);
    assert.notEqual(code, 0, shown);
    assert.match(shown, reason);
  }

  const secret = (heading: string) => frames(heading, "secret")[0] ?? "";
  const typePassphrase = () =>
    done("5. ", NEW, [/nothing shows while you type\): $/, `${secret("A. The passphrase")}\n`]);
  const chooseArchive = (name: string): [string, string, [RegExp, string]] => [
    "7. ",
    NEW,
    [/\nName of the archive: $/, `${name}\n`],
  ];

  before(async () => {
    copyFileSync(stackFile, settingsBefore);
    await healthyLab();
    await output("cht", `systemctl stop ${timer}`);
    // As before the first kit, with a comment of the operator's.
    const without = readFileSync(stackFile, "utf8").replace(/^ {2}cht-backup:recoveryKit: .*\n/m, "");
    writeFileSync(stackFile, without.replace("config:\n", "config:\n  # who looks after this: Wanjiru\n"));
    archive = assertComplete(await backUp()).archive as string;
    assert.equal((await copyNow()).ok, true);
    keys = await output("server", authorizedKeys);
    machine = await freshMachine("kit");
  });

  after(async () => {
    for (const terminal of Object.values(terminals)) terminal.close();
    copyFileSync(settingsBefore, stackFile);
    rmSync(folder, { recursive: true });
    await output("cht", `systemctl start ${timer}`);
    await machine?.remove();
  });

  it("is asked for by `up` until it is made", async () => {
    assert.match(await up(), /warning: no recovery kit has been made: .*npm run recovery-kit -- --stack lab/);
    made = await kit("--stack", "lab", "--output", html);
    assert.equal(made.code, 0, made.stderr);
    assert.doesNotMatch(await up(), /warning: [^\n]*recovery kit/);
    await assertNoDrift();
    assert.match(readFileSync(stackFile, "utf8"), /# who looks after this: Wanjiru\n/);
  });

  it("is one page for nobody else to read, which needs nothing else; the terminal shows only where it is", async () => {
    const { passphrase, key } = await recovery();
    const pages = [readFileSync(html, "utf8"), readFileSync(textFile, "utf8")];
    page = pages[1] as string;
    for (const path of [html, textFile]) assert.equal(statSync(path).mode & 0o777, 0o600);
    for (const text of pages) {
      for (const line of [passphrase, ...key.trim().split("\n")]) assert.ok(text.includes(line));
      assert.ok(text.includes(repository));
    }
    assert.doesNotMatch(pages[0] as string, /<script|<link|<img|src=|href=|@import|url\(|@[A-Z_]+@/);
    assert.match(made.stdout, new RegExp(`^written:\n {2}${html}\n {2}${textFile}\n`));
    assert.ok(!(made.stdout + made.stderr).includes(passphrase));
    assert.doesNotMatch(made.stdout + made.stderr, /BORG_KEY/);
    // A newer one takes its place, and another file's place is never taken.
    assert.match((await kit("--stack", "lab", "--output", html)).stdout, /^written in place of an older kit:/);
    writeFileSync(html, "my notes");
    const refused = await kit("--stack", "lab", "--output", html);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /kit\.html is there already and is no recovery kit/);
    const inGit = await kit("--stack", "lab", "--output", join(project, "kit.html"));
    assert.equal(inGit.code, 2);
    assert.match(inGit.stderr, /is inside the git work tree .*--output/);
  });

  it("prepares an empty machine", async () => {
    assert.ok(machine);
    const [, file = "", , config = ""] = machine.login;
    terminals[NEW] = await Terminal.open(
      ...["-i", file, "-F", config, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new"],
      machine.destination,
    );
    assert.match(await done("2. "), /^borg 1\.[\d.]+$/m);
    assert.match(await done("2a. "), /^borg 1\.[\d.]+$/m);
    await done("3. ");
  });

  it("fetches the repository from the bucket, and opens it", async () => {
    const answers = (word: string): [RegExp, string][] => [
      [/\nWhich copy\? Enter: the newest; or its number: $/, "\n"],
      [/nothing shows while you type\): $/, `${word}\n`],
    ];
    await stops(/STOP: .*SignatureDoesNotMatch/, "4, from the bucket", NEW, ...answers("mistyped"));
    const got = await done("4, from the bucket", NEW, ...answers(secret("C. The secret of the bucket's key")));
    assert.match(got, /^1 finished .*\n(.*\n)*fetching 1\n\d+ files are right\n/m);
    await typePassphrase();
    assert.match(await done("6. "), new RegExp(`^${archive} 863 documents, 2 MB\n`, "m"));
  });

  it("opens a copy of the repository that lost its key, on a disk that is at hand", async () => {
    const copy = "/mnt/copy of the disk";
    const loseKey = `
import configparser
config = configparser.ConfigParser(interpolation=None)
config.read("${copy}/repository/config")
config.remove_option("repository", "key")
config.write(open("${copy}/repository/config", "w"))`;
    // The kernel keeps even root from writing to another's file in a directory as sealed (fs.protected_regular), and a
    // later test makes an archive in the copy.
    const carry = `docker exec ${containerOf("server")} tar -C ${home} -cf - repository |
      docker exec -i ${containerOf("kit")} sh -c 'mkdir -p "${copy}" && tar --no-same-owner -C "${copy}" -xf - && python3 -c "$0"' '${loseKey}'`;
    const carried = await run("sh", ["-c", carry]);
    assert.equal(carried.code, 0, carried.stderr);
    const directory = /\nDirectory of the repository, here: $/;
    await stops(/STOP: \/nowhere is no repository/, "4, the other way", NEW, [directory, "/nowhere\n"]);
    await done("4, the other way", NEW, [directory, `${copy}/repository\n`]);
    await typePassphrase();
    await stops(/No key entry found/, "6. ");
    const key = secret("B. The key");
    const pasteKey = /\nPaste the key of part B, then press Enter and Ctrl-D:\n$/;
    await stops(/STOP: this is not the key of this page/, "6a. ", NEW, [pasteKey, `${key.replace("A", "B")}\n\x04`]);
    await done("6a. ", NEW, [pasteKey, `${key}\n\x04`]);
    assert.match(await done("6. "), new RegExp(`^${archive} 863 documents, 2 MB\n`, "m"));
  });

  it("opens it also when a machine that died left a lock", async () => {
    const lock = '"$(cat /root/cht-recovery/repository)/lock.exclusive"';
    await output("kit", `mkdir ${lock} && touch ${lock}/cht@123456789.4711-0`);
    await stops(/Failed to create\/acquire the lock/, "6. ");
    await done("6b. ");
    await done("6. ");
  });

  it("tells finished archives from unfinished ones", async () => {
    const unfinished = "lab-2099-01-01T00:00:00Z";
    for (const name of [unfinished, "by-hand"]) {
      const create = await exec("kit", `. /root/cht-recovery/settings && borg create ::${name} /etc/hostname`);
      assert.equal(create.code, 0, create.stderr);
    }
    const listed = `${archive} 863.*\n${unfinished} UNFINISHED, do not use it\nby-hand BY HAND, not for this page\n`;
    assert.match(await done("6. "), new RegExp(listed));
    await stops(/STOP: there is no finished archive lab-2099/, ...chooseArchive(unfinished));
    await stops(/STOP: there is no finished archive lab-1999/, ...chooseArchive("lab-1999-01-01T00:00:00Z"));
  });

  it("lets the machine in on the server for reading and for a week, and lists the archives", async () => {
    terminals[SERVER] = await Terminal.open(
      ...["-i", identityFile, "-F", "none", "-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile=/dev/null"],
      ...["-o", "StrictHostKeyChecking=no", `root@${await addressOf("server")}`],
    );
    const prepared = await done("3. ");
    await stops(/Permission denied/, "6. ");
    const [line = ""] = /^ssh-ed25519 \S+ cht-recovery$/m.exec(prepared) ?? [];
    const prompt = /\nPaste the line of step 3 and press Enter: $/;
    await stops(/STOP: that was not the line/, "4. ", SERVER, [prompt, "hello\n"]);
    // Twice is as good as once.
    for (const _ of [1, 2]) await done("4. ", SERVER, [prompt, `${line}\n`]);
    const added = (await output("server", authorizedKeys)).replace(keys, "").trim();
    assert.match(added, /^restrict,expiry-time="\d{8}",command="[^"]*" ssh-ed25519 \S+ cht-recovery$/);
    // borg's own, for a server without anything of this project; where there is the guard, sshd runs that instead.
    const command = `/usr/bin/borg serve --append-only --restrict-to-repository ${repository}`;
    assert.equal(/command="([^"]*)"/.exec(added)?.[1], command);
    const runs = await output("server", `mkdir -p /run/sshd; /usr/sbin/sshd -T -C user=${user},host=x,addr=192.0.2.1`);
    assert.ok(runs.split("\n").includes(`forcecommand ${serveCommand("lab")}`), runs);
    const list = await done("6. ");
    assert.match(list, /^repository ([0-9a-f]{64})\n/m);
    assert.ok(page.includes(/^repository ([0-9a-f]{64})\n/m.exec(list)?.[1] as string));
    assert.match(list, new RegExp(`^${archive} 863 documents, 2 MB\nDONE`, "m"));
  });

  const stage = "/home/ubuntu/cht-recovery";

  it("catches what isn't as it was backed up, and puts nothing where something is", async () => {
    await done(...chooseArchive(archive));
    await done("8. ");
    const damage = `cd ${stage}/${archive}/home/ubuntu/cht && echo X=1 >> upgrade-service/.env && chown 0 compose/cht-core.yml &&
      shard=$(ls couchdb/shards/*/medic.*.couch | head -n 1) && rm $shard && echo $shard`;
    const shard = await output("kit", damage);
    const wrong = [
      `WRONG: /home/ubuntu/cht/${shard} is missing`,
      "WRONG: /home/ubuntu/cht/compose/cht-core.yml has another owner or mode",
      "WRONG: /home/ubuntu/cht/upgrade-service/.env is not what was backed up",
    ];
    for (const line of wrong) await stops(new RegExp(`^${line}$`, "m"), "9. Check");
    const home = (path: string) =>
      output("kit", `sed -i 's|^CHT_HOME=.*|CHT_HOME=${path}|' /root/cht-recovery/settings`);
    await home("/srv/other");
    await stops(/STOP: in this archive \.env is \/home\/ubuntu\/cht\/upgrade-service\/\.env,/, "9. Check");
    await home("/home/ubuntu/cht");
    await output("kit", "mkdir -p /home/ubuntu/cht && touch /home/ubuntu/cht/mine");
    await stops(/STOP: there is something in \/home\/ubuntu\/cht already/, "10. ");
    await output("kit", "rm -r /home/ubuntu/cht");
  });

  it("restores the newest archive and starts the CHT", async () => {
    const begin = Date.now();
    await done(...chooseArchive(archive));
    await done("8. ");
    assert.match(await done("9. Check"), /^\d{3} files and directories are right, 0 wrong$/m);
    for (const _ of [1, 2])
      assert.match(await done("10. "), /the volume cht_cht-credentials\n.*the volume cht_cht-ssl\n/);
    await done("11. ");
    const checked = await done("12. ");
    assert.match(checked, /^login: right, medic\n(right .*\n){7}certificate: right\n/m);
    console.log(`      steps 7 to 12 took ${((Date.now() - begin) / 1000).toFixed(1)} s`);
    assert.match(checked, /^right medic backup: 419 {2}now: 419$/m);
  });

  it("brings back every file byte for byte, with owners and modes, both volumes, logins and the certificate", async () => {
    const [source, copy] = await Promise.all([tree("cht"), tree("kit")]);
    assert.deepEqual(copy, source);
    assert.ok(copy["/var/lib/docker/volumes/cht_cht-ssl/_data/key.pem"]);
    assert.deepEqual(await documentCounts("kit"), await documentCounts("cht"));
    const shown = "openssl s_client -connect 127.0.0.1:443 < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint";
    assert.equal(await output("kit", shown), await output("cht", shown));
  });

  it("tells when the database doesn't hold what it held", async () => {
    const part = `${stage}/${archive}/run/cht-backup/lab/collect/manifest-`;
    const more = `for part in before after; do sed -i.bak 's/"documents": 419,/"documents": 421,/' ${part}$part.json; done`;
    await output("kit", more);
    await stops(/^LOOK {2}medic backup: 421 {2}now: 419$/m, "12. ");
    await output("kit", `for part in before after; do mv ${part}$part.json.bak ${part}$part.json; done`);
    await done("12. ");
  });

  it("leaves the passphrase in no argument, environment, history or file but the one in memory", async () => {
    await terminals[NEW]?.paste("history -w /root/history-of-the-day");
    assert.match(await output("kit", "cat /root/history-of-the-day"), /Passphrase \(nothing shows/);
    const search = `umask 077; cat > /run/word
cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -cFf /run/word
grep -rlFf /run/word /root /home /var /etc /tmp /run; rm /run/word`;
    const { stdout } = await exec("kit", search, { stdin: `${secret("A. The passphrase")}\n` });
    assert.deepEqual(stdout.split("\n").sort(), ["", "/run/cht-recovery/passphrase", "/run/word", "0"]);
  });

  it("leaves no key, no passphrase and no copy behind", async () => {
    for (const _ of [1, 2]) {
      await done("14. ", NEW);
      await done("14. ", SERVER);
    }
    assert.equal(await output("server", authorizedKeys), keys);
    assert.equal(
      await output("kit", "ls -d /root/cht-recovery /run/cht-recovery /home/ubuntu/*recovery* 2>/dev/null || true"),
      "",
    );
    assert.deepEqual(await tree("kit"), await tree("cht"));
    await assertNoDrift();
  });
});
