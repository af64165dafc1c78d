import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serveCommand } from "../../components/repository-guard";
import { identityFile } from "../../lab/boot";
import { documentCounts } from "../../lab/cht";
import { containerOf, exec, output } from "../../lab/machines";
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
  let terminal: Terminal | undefined;

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

  /** Pastes commands into the new machine's window, as one group: the shell reads them all before it begins. */
  async function paste(commands: string, ...answers: [RegExp, string][]) {
    assert.ok(terminal);
    return terminal.paste(`( set -e\n${commands}\n)`, ...answers);
  }

  async function done(...args: Parameters<typeof paste>): Promise<string> {
    const { code, shown } = await paste(...args);
    assert.equal(code, 0, shown);
    return shown;
  }

  async function stops(reason: RegExp, ...args: Parameters<typeof paste>): Promise<string> {
    const { code, shown } = await paste(...args);
    assert.notEqual(code, 0, shown);
    assert.match(shown, reason);
    return shown;
  }

  /** The page's frame below a heading that has these words. */
  function frame(heading: string, words = ""): string {
    const [found, ...others] = frames(heading, NEW).filter((each) => each.includes(words));
    assert.ok(found && others.length === 0, `${heading}: ${others.length + 1} frames`);
    return found;
  }

  const secret = (heading: string) => frames(heading, "secret")[0] ?? "";
  const recover = (words: string) => `cd /root; python3 recover.pyz ${words}`;

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
    terminal?.close();
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

  it("is three pages for nobody else to read, which needs nothing else; the terminal shows only where it is", async () => {
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

  it("prepares an empty machine, and takes part A into its memory", async () => {
    assert.ok(machine);
    const [, file = "", , config = ""] = machine.login;
    terminal = await Terminal.open(
      ...["-i", file, "-F", config, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new"],
      machine.destination,
    );
    await done(frame("2. "), [/\nborg 1\.[\d.]+\n$/, `${secret("A. ")}\n\x04`]);
    assert.equal(await output("kit", "stat -c '%a %U' /run/kit; stat -f -c %T /run/kit"), "600 root\ntmpfs");
  });

  it("fetches the program from the bucket and from the server, and knows it by its sum", async () => {
    await done(`cd /root\n${frame("3. ", "--aws-sigv4")}`);
    assert.match(await done(`cd /root\n${frame("3. ", "sha256sum")}`), /^recover\.pyz: OK$/m);
    // Who may be root on the server has a key for it, as an agent would bring it along.
    await exec("kit", "install -D -m 0600 /dev/stdin /root/.ssh/id_ed25519", { stdin: readFileSync(identityFile) });
    await done(`cd /root\nrm recover.pyz\n${frame("3. ", "scp")}`, [/\(yes\/no\/\[fingerprint\]\)\? $/, "yes\n"]);
    await output("kit", "rm -r /root/.ssh/id_ed25519 /root/.ssh/known_hosts");
    assert.match(await done(`cd /root\n${frame("3. ", "sha256sum")}`), /^recover\.pyz: OK$/m);
    // It is no secret: whoever may log in may fetch it. Nobody but root can put another one there.
    // Those of earlier versions stay.
    const kept = await output("server", `stat -c '%a %U' ${home}/recovery ${home}/recovery/recover-*.pyz | sort -u`);
    assert.equal(kept, "644 root\n755 root");
    await output("kit", "cp /root/recover.pyz /root/changed.pyz && echo >> /root/recover.pyz");
    await stops(/^recover\.pyz: FAILED$/m, `cd /root\n${frame("3. ", "sha256sum")}`);
    await output("kit", "mv /root/changed.pyz /root/recover.pyz");
  });

  it("lists what the copy in the bucket holds", async () => {
    const listed = await done(recover("list --from bucket"));
    assert.match(listed, /^repository [0-9a-f]{64}, as on the page$/m);
    assert.match(listed, new RegExp(`^${archive} {2}863 documents, `, "m"));
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
    // later step makes an archive in the copy.
    const carry = `docker exec ${containerOf("server")} tar -C ${home} -cf - repository |
      docker exec -i ${containerOf("kit")} sh -c 'mkdir -p "${copy}" && tar --no-same-owner -C "${copy}" -xf - && python3 -c "$0"' '${loseKey}'`;
    const carried = await run("sh", ["-c", carry]);
    assert.equal(carried.code, 0, carried.stderr);
    await stops(/--from \/nowhere: it must be server, bucket, or the directory/, recover("list --from /nowhere"));
    await stops(/[Nn]o key/, recover(`list --from '${copy}/repository'`));
    const [, sum = ""] = /recover\.pyz key DIRECTORY\s+([0-9a-f]{16})/.exec(page.replace(/\n +/g, " ")) ?? [];
    const put = recover(`key '${copy}/repository' ${sum}`);
    const prompt = /\nPaste or type the key of part B, then Enter and Ctrl-D:\n$/;
    const key = secret("B. The key");
    await stops(/this is not the key of the page/, put, [prompt, `${key.replace("A", "B")}\n\x04`]);
    await done(put, [prompt, `${key}\n\x04`]);
    // As a machine that died leaves it, and as the page says what to do.
    await output(
      "kit",
      `cd '${copy}/repository' && mkdir lock.exclusive && touch lock.exclusive/cht@1.4711-0 lock.roster`,
    );
    await output("kit", `cd '${copy}/repository' && rm -r lock.exclusive lock.roster`);
    assert.match(
      await done(recover(`list --from '${copy}/repository'`)),
      new RegExp(`^${archive} {2}863 documents`, "m"),
    );
  });

  it("finds the program in the archive, by borg alone", async () => {
    const extract = `export BORG_PASSCOMMAND="sed -n 's/^passphrase //p' /run/kit" BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
      borg extract --stdout '/mnt/copy of the disk/repository::${archive}' 'sh:run/cht-backup/*/collect/recover.pyz' | sha256sum
      rm -r /root/.cache/borg /root/.config/borg`;
    const [sum = ""] = /[0-9a-f]{64}/.exec(await output("kit", extract)) ?? [];
    assert.ok(page.includes(`sum=${sum}\n`), sum);
  });

  it("tells finished archives from unfinished ones", async function () {
    // Those of earlier tests are many, and each is looked into.
    this.timeout(300_000);
    const copy = "/mnt/copy of the disk/repository";
    const unfinished = "lab-2026-01-01T00:00:00Z";
    const create = `export BORG_PASSCOMMAND="sed -n 's/^passphrase //p' /run/kit" BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
      mkdir -p /run/cht-backup/lab/collect && touch /run/cht-backup/lab/collect/cert.pem
      borg create '${copy}::${unfinished}' /run/cht-backup && borg create '${copy}::by-hand' /etc/hostname
      rm -r /run/cht-backup /root/.cache/borg /root/.config/borg`;
    const created = await exec("kit", create);
    assert.equal(created.code, 0, created.stderr);
    const listed = await done(recover(`list --last 0 --from '${copy}'`));
    assert.match(listed, new RegExp(`^${unfinished} {2}unfinished, don't use it$`, "m"));
    assert.match(listed, /^by-hand {2}.*, made by hand: nothing proves that it is whole/m);
    await stops(/unfinished/, recover(`restore --from '${copy}' --archive ${unfinished}`));
    await stops(/there is no archive lab-1999/, recover(`restore --from '${copy}' --archive lab-1999-01-01T00:00:00Z`));
  });

  it("lets the machine in on the server for a week, by one line for root there", async () => {
    const shown = await stops(/the backup server doesn't know this machine yet/, recover("list"));
    const [line = ""] = /^install .*cht-recovery.*$/m.exec(shown) ?? [];
    // Twice is as good as once.
    for (const _ of [1, 2]) await output("server", line);
    const added = (await output("server", authorizedKeys)).replace(keys, "").trim();
    assert.match(added, /^restrict,expiry-time="\d{8}",command="[^"]*" ssh-ed25519 \S+ cht-recovery$/);
    // borg's own, for a server without anything of this project; where there is the guard, sshd runs that instead.
    const command = `/usr/bin/borg serve --append-only --restrict-to-repository ${repository}`;
    assert.equal(/command="([^"]*)"/.exec(added)?.[1], command);
    const runs = await output("server", `mkdir -p /run/sshd; /usr/sbin/sshd -T -C user=${user},host=x,addr=192.0.2.1`);
    assert.ok(runs.split("\n").includes(`forcecommand ${serveCommand("lab")}`), runs);
    const listed = await done(recover("list"));
    assert.match(listed, /^repository [0-9a-f]{64}, as on the page$/m);
    assert.match(listed, new RegExp(`^${archive} {2}863 documents`, "m"));
  });

  it("puts nothing where something is, and nothing anywhere in a dry run", async () => {
    await output("kit", "mkdir -p /home/ubuntu/cht && touch /home/ubuntu/cht/mine");
    await stops(/there is data already: \/home\/ubuntu\/cht\. Nothing was changed/, recover("restore"));
    await output("kit", "rm -r /home/ubuntu/cht");
    assert.match(await done(recover("restore --dry-run")), /^dry run: nothing was changed$/m);
    assert.equal(await output("kit", "ls -d /home/ubuntu/cht 2> /dev/null || true"), "");
  });

  it("restores the newest archive and starts the CHT", async () => {
    const begin = Date.now();
    assert.match(await done(`cd /root\n${frame("5. ")}`), new RegExp(`^${archive} is restored to .* and right`, "m"));
    const [start = ""] = frame("6. ").split("\n");
    const started = await done(`cd /root\n${start}`);
    console.log(`      steps 5 and 6 took ${((Date.now() - begin) / 1000).toFixed(1)} s`);
    assert.match(started, /^right: login: CouchDB accepts the user medic with the password of \.env$/m);
    assert.match(started, /^right: CouchDB itself answers with 7 databases and 863 documents$/m);
    assert.match(started, /^right: TLS: nginx shows the restored certificate on port 443$/m);
  });

  it("brings back every file byte for byte, with owners and modes, both volumes, logins and the certificate", async () => {
    const [source, copy] = await Promise.all([tree("cht"), tree("kit")]);
    assert.deepEqual(copy, source);
    assert.ok(copy["/var/lib/docker/volumes/cht_cht-ssl/_data/key.pem"]);
    assert.deepEqual(await documentCounts("kit"), await documentCounts("cht"));
    const shown = "openssl s_client -connect 127.0.0.1:443 < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint";
    assert.equal(await output("kit", shown), await output("cht", shown));
  });

  it("leaves the passphrase in no argument, environment, history or file but the one in memory", async () => {
    await terminal?.paste("history -w /root/history-of-the-day");
    assert.match(await output("kit", "cat /root/history-of-the-day"), /recover\.pyz/);
    const search = `umask 077; cat > /run/word
cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -cFf /run/word
grep -rlFf /run/word /root /home /var /etc /tmp /run; rm /run/word`;
    const { passphrase } = await recovery();
    const { stdout } = await exec("kit", search, { stdin: `${passphrase}\n` });
    assert.deepEqual(stdout.split("\n").sort(), ["", "/run/kit", "/run/word", "0"]);
  });

  it("leaves no key, no passphrase and no copy behind", async () => {
    const shown = await done(frame("7. "));
    const [line = ""] = /^sed -i .*authorized_keys.*$/m.exec(shown) ?? [];
    for (const _ of [1, 2]) await output("server", line);
    assert.equal(await output("server", authorizedKeys), keys);
    const left =
      "ls -d /run/kit /tmp/cht-recover-* /var/lib/cht-restore/lab/re* /home/ubuntu/.*restoring 2>/dev/null || true";
    assert.equal(await output("kit", left), "/var/lib/cht-restore/lab/restored.json");
    assert.deepEqual(await tree("kit"), await tree("cht"));
    await assertNoDrift();
  });
});
