/** Hostile acts on the lab, by name: with the CHT machine's key, with its passphrase, with the bucket's keys. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { bucketSecrets } from "../lab/bucket";
import { containerOf, exec, output } from "../lab/machines";
import { run } from "../toolchain/command";
import { Problem } from "../toolchain/progress";
import { bucket, cht, server } from "./victims";

/** What came of one. */
export interface Act {
  /** Whose means the attacker has. */
  means: string;
  name: string;
  /** What was answered. */
  answer: string;
  /** It got nothing that the attacker isn't granted. */
  refused: boolean;
}

const keyPrograms = ["borg_session.py", "acts_of_the_key.py"].map(
  (name) => [name, readFileSync(join(__dirname, "machine", name), "utf8")] as const,
);
const bucketProgram = readFileSync(join(__dirname, "..", "test", "e2e", "machine", "bucket_attack.py"), "utf8");

async function keyActs(stdin: object): Promise<string> {
  const folder = "/var/tmp/cht-campaign/acts";
  for (const [name, text] of keyPrograms) {
    await output("cht", `mkdir -p ${folder} && cat >${folder}/${name}`, { stdin: text });
  }
  // The Python that runs borg, and so has its modules.
  const script = `exec $(sed -n '1s/^#!//p' "$(command -v borg)") -B ${folder}/acts_of_the_key.py`;
  return output("cht", script, { stdin: JSON.stringify(stdin), timeoutMs: 900_000 });
}

/** Calls of borg's protocol, spoken by hand. */
async function byProtocol(chosen: (name: string) => boolean): Promise<Act[]> {
  const names = (JSON.parse(await keyActs({})) as string[]).filter(chosen);
  if (names.length === 0) return [];
  const command = ["ssh", "-F", `${cht.settings}/ssh_config`, "offsite", "borg serve"];
  const answers = (await keyActs({ command, path: server.repository, acts: names })).split("\n");
  return answers.map((line) => {
    const [name, answer] = JSON.parse(line) as [string, string];
    const wrong = answer === "succeeded" || answer === "the server says nothing" || answer.startsWith("broken:");
    return { means: "the CHT machine's key", name, answer: answer.slice(0, 120), refused: !wrong };
  });
}

/** None of the limits of the ssh_config that is laid down. */
const ssh = `ssh -F none -i ${cht.settings}/ssh_key -o BatchMode=yes -o HostKeyAlias=offsite -o UserKnownHostsFile=${cht.settings}/known_hosts`;
const at = `${server.user}@cht-backup-lab-server`;

/** What sshd is asked for: each prints `succeeded` where it is granted. */
const bySsh: Record<string, string> = {
  "run a command": `${ssh} ${at} 'echo succeeded' </dev/null`,
  "get a shell": `echo 'echo succeeded' | ${ssh} ${at} sh`,
  "get a login shell": `echo 'echo succeeded' | ${ssh} -T ${at}`,
  "get a terminal": `echo 'echo succeeded' | timeout 10 ${ssh} -tt ${at}`,
  "run another program of borg's": `${ssh} ${at} 'borg --version && echo succeeded' </dev/null`,
  "hide a command behind borg's": `${ssh} ${at} 'borg serve; echo succeeded' </dev/null`,
  "forward a port out of the server": `timeout 10 ${ssh} -W 127.0.0.1:22 ${at} </dev/null | grep -q ^SSH-2.0 && echo succeeded`,
  "forward a port into the machine": `timeout 10 ${ssh} -f -N -o ExitOnForwardFailure=yes -R 18022:127.0.0.1:22 ${at} </dev/null && echo succeeded`,
  "fetch a file by scp": `scp -O ${ssh.slice(4)} ${at}:/etc/hostname got && test -s got && echo succeeded`,
  "fetch a file by sftp": `printf 'get /etc/hostname got\\n' | sftp -b - ${ssh.slice(4)} ${at} && test -s got && echo succeeded`,
  "name a file with code to run": `BORG_WORKAROUNDS=x ${ssh} -o SendEnv=BORG_WORKAROUNDS ${at} 'env; echo succeeded' </dev/null`,
  "have borg read an endless file": `timeout 20 ${ssh} ${at} 'borg serve --exclude-from /dev/zero && echo succeeded' </dev/null`,
};

/** borg's own commands, with the passphrase. */
const byBorg: Record<string, string> = {
  "delete the oldest archive": 'delete "$location::$(borg list --short --first 1 "$location")"',
  "delete all archives": "delete --glob-archives '*' \"$location\"",
  "prune to the last archive": 'prune --keep-last 1 "$location"',
  "rename the oldest archive": 'rename "$location::$(borg list --short --first 1 "$location")" other',
  "delete the repository": 'delete "$location"',
  "break its lock by borg": 'break-lock "$location"',
  "repair it by borg": 'check --repair "$location"',
  "switch append-only off": 'config "$location" append_only 0',
  "change the passphrase": 'key change-passphrase "$location"',
  "make a repository elsewhere": "init --encryption none ssh://offsite/srv/cht-backup/lab/other",
  "make a repository in /tmp": "init --encryption none ssh://offsite/tmp/campaign-repository",
};

const borgEnvironment = `cd /tmp; export BORG_PASSPHRASE="$(cat ${cht.settings}/passphrase)" BORG_NEW_PASSPHRASE=stolen
export BORG_RSH='ssh -F ${cht.settings}/ssh_config' BORG_BASE_DIR=/var/tmp/cht-campaign/hostile
export BORG_RELOCATED_REPO_ACCESS_IS_OK=yes BORG_DELETE_I_KNOW_WHAT_I_AM_DOING=YES BORG_CHECK_I_KNOW_WHAT_I_AM_DOING=YES
location=ssh://offsite${server.repository}
borg() { command borg --lock-wait 60 "$@"; }`;

async function byCommands(chosen: (name: string) => boolean): Promise<Act[]> {
  const acts: Act[] = [];
  const scratch = "mkdir -p /var/tmp/cht-campaign/hostile && cd /var/tmp/cht-campaign/hostile && rm -f got";
  for (const [name, script] of Object.entries(bySsh).filter(([name]) => chosen(name))) {
    const tried = await exec("cht", `${scratch}\n${script}`, { timeoutMs: 60_000 });
    const answer = (tried.stderr.trim().split("\n").at(-1) ?? "").slice(0, 120) || `exit code ${tried.code}`;
    const refused = !tried.stdout.includes("succeeded") && tried.code !== 124;
    acts.push({ means: "the CHT machine's key", name, answer: refused ? answer : "succeeded", refused });
  }
  for (const [name, words] of Object.entries(byBorg).filter(([name]) => chosen(name))) {
    const tried = await exec("cht", `${borgEnvironment}\nborg ${words}`, { timeoutMs: 120_000 });
    const answer = (tried.stderr.trim().split("\n").at(-1) ?? "").slice(0, 120);
    acts.push({ means: "the key and the passphrase", name, answer, refused: tried.code !== 0 && tried.code !== 124 });
  }
  return acts;
}

/** What the bucket answers, asked with one of its keys. It may write over a name: what is below that is what counts. */
async function byBucketKey(whose: "writer" | "reader", chosen: (name: string) => boolean): Promise<Act[]> {
  const folder = "/run/campaign-bucket";
  const { [whose]: secret } = bucketSecrets();
  const prepare = `set -e; umask 077; mkdir -p ${folder}; IFS= read -r secret
printf '[default]\\naws_access_key_id = lab-${whose}\\naws_secret_access_key = %s\\n' "$secret" >${folder}/credentials
sed 's,"credentials": "[^"]*","credentials": "${folder}/credentials",' ${bucket.settings}/bucket.json >${folder}/bucket.json`;
  await output("server", prepare, { stdin: `${secret}\n` });
  try {
    const words = ["exec", "-i", "-e", `PYTHONPATH=${server.programs}`, containerOf("server")];
    const python = [`${bucket.programs}/venv/bin/python`, "-B", "-", `${folder}/bucket.json`];
    const done = await run("docker", [...words, ...python], { stdin: bucketProgram, timeoutMs: 300_000 });
    if (done.code !== 0) throw new Problem(`the ${whose}'s acts: ${done.stderr.trim().split("\n").at(-1)}`);
    const granted = whose === "writer" ? ["write over a segment's name"] : [];
    return Object.entries(JSON.parse(done.stdout) as Record<string, string>)
      .filter(([name]) => chosen(name))
      .map(([name, answer]) => ({
        means: `the bucket's ${whose}`,
        name,
        answer,
        refused: answer === "AccessDenied" || granted.includes(name),
      }));
  } finally {
    await exec("server", `rm -rf ${folder}`);
  }
}

/** All of them whose name or means hold a word. Each group that is done is passed on. */
export async function hostileActs(word: string | undefined, done: (acts: Act[]) => Promise<void>): Promise<void> {
  const chosen = (name: string) => word === undefined || name.includes(word);
  await done(await byProtocol(chosen));
  await done(await byCommands(chosen));
  for (const whose of ["writer", "reader"] as const) await done(await byBucketKey(whose, chosen));
}
