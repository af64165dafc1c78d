/**
 * Why a machine can't be worked on, in one line: what ssh, a login or `sudo` said, and what to do. The tables are for
 * OpenSSH 8.9 to 10 and sudo 1.9; whatever isn't in them is shown as it was said.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import type { Machine } from "./connection";

/** What there is to log in with, as ssh sees it. */
export interface Keys {
  /** `dead`: SSH_AUTH_SOCK names an agent that doesn't answer. */
  agent: "none" | "dead" | "empty" | "has keys";
  /** The files that ssh would take and that exist. `locked`: it needs a passphrase, and the agent hasn't got it. */
  files: { path: string; locked: boolean }[];
}

/**
 * Asks ssh and the agent what there is to log in with.
 * @param args ssh's arguments that lead to the machine
 */
export function keysFor(args: readonly string[]): Keys {
  const ask = (program: string, words: readonly string[]) =>
    spawnSync(program, words, { encoding: "utf8", timeout: 5000, input: "" });
  const settings = ask("ssh", ["-G", ...args]).stdout ?? "";
  const files = [...settings.matchAll(/^identityfile (.*)$/gm)]
    .map(([, path = ""]) => path.replace(/^~(?=\/)/, homedir()))
    .filter((path) => existsSync(path));
  const list = process.env.SSH_AUTH_SOCK ? ask("ssh-add", ["-l"]) : undefined;
  const agent = list === undefined ? "none" : list.status === 0 ? "has keys" : list.status === 1 ? "empty" : "dead";
  const offered = (path: string) => {
    const print = ask("ssh-keygen", ["-lf", path]).stdout?.split(" ")[1];
    return print !== undefined && (list?.stdout ?? "").split("\n").some((line) => line.split(" ")[1] === print);
  };
  const locked = (path: string) =>
    /passphrase/i.test(ask("ssh-keygen", ["-y", "-P", "", "-f", path]).stderr ?? "") && !offered(path);
  return { agent, files: files.map((path) => ({ path, locked: locked(path) })) };
}

const last = (text: string) => text.trim().split("\n").at(-1)?.trim() ?? "";
const inBrackets = (text: string) => (text === "" ? "" : ` (${text})`);
const AGENT_DEAD = "the agent that SSH_AUTH_SOCK names doesn't answer";

/**
 * Why a login was refused. Pure.
 * @param settings where the user and the key are chosen
 */
function refusedLogin(stderr: string, keys: Keys, { user, key }: { user: string; key: string }): string {
  const [, missing] = /Identity file (.+) not accessible/.exec(stderr) ?? [];
  if (missing !== undefined) return `the key file ${missing} can't be read. Check ${key}`;
  const [, open] = /Permissions \d+ for '(.+)' are too open/.exec(stderr) ?? [];
  if (open !== undefined) {
    return `ssh doesn't take the key file ${open}, because others may read it. Close it: \`chmod 600 ${open}\``;
  }
  const [, odd, reason] = /Load key "(.+)": (.+)/.exec(stderr) ?? [];
  if (odd !== undefined) return `${odd} is no private key that ssh can read (${reason?.trim()}). Check ${key}`;
  const locked = keys.files.find((file) => file.locked)?.path;
  const usable = keys.agent === "has keys" || keys.files.some((file) => !file.locked);
  const dead = keys.agent === "dead" ? `, and ${AGENT_DEAD}` : "";
  if (!usable && locked !== undefined) {
    const how = keys.agent === "dead" || keys.agent === "none" ? "start an agent (`eval $(ssh-agent)`), then" : "run";
    return `the key file ${locked} needs a passphrase, and no agent has the key${dead}: ${how} \`ssh-add ${locked}\``;
  }
  if (!usable) {
    return `there is no key to log in with: none of the usual files exists, and no agent has one${dead}. Check ${key}`;
  }
  const [, methods = ""] = /Permission denied \(([^)]*)\)/.exec(stderr) ?? [];
  if (methods !== "" && !methods.includes("publickey")) {
    return `its SSH server takes no keys at all (only ${methods}), and nothing here may ask for a password. Allow \`PubkeyAuthentication\` there`;
  }
  return `login refused (${last(stderr)}). Check ${user} and ${key}, and that the key is authorized there${
    keys.agent === "dead" ? `. Also, ${AGENT_DEAD}` : ""
  }`;
}

/** How ssh says that a connection didn't come about, and what that means. `$1` and `$2` are what it says. */
const causes: [said: RegExp, means: string][] = [
  [/Can't open user config file (.+): (.+)/, "the ssh configuration $1 can't be read ($2). Check CONFIG"],
  [
    /(.+: (?:line \d+: )?Bad configuration option: .+|Bad owner or permissions on .+|.+ terminating, \d+ bad configuration options)/,
    "ssh doesn't take its configuration on this computer ($1)",
  ],
  [
    /connect to host .+ port (\d+): Connection refused/,
    "nothing answers at port $1. Check PORT, and that sshd runs there",
  ],
  [
    /connect to host .+ port (\d+): (?:Connection|Operation) timed out/,
    "no answer at port $1: it is down, or a firewall is in between. Check ADDRESS",
  ],
  [
    /Connection timed out during banner exchange/,
    "something accepts the connection, but no SSH server answers. Check PORT, and how busy the machine is",
  ],
  [
    /connect to host .+ port \d+: (Network is unreachable)/,
    "this computer has no way to that network ($1). Check its own connection, then ADDRESS",
  ],
  [
    /Too many authentication failures/,
    "the agent on this computer has more keys than the server lets anybody try. Name the right one in KEY",
  ],
  [
    /(?:banner line contains invalid characters|Bad packet length|Invalid SSH identification string|invalid protocol identifier)/,
    "what answers there is no SSH server. Check PORT",
  ],
  [
    /(no matching (?:host key type|key exchange method|cipher|mac) found.*)/i,
    "its SSH server and the ssh of this computer have nothing in common ($1)",
  ],
  [
    /kex_exchange_identification: (.+)|Connection (?:reset|closed) by .+ port \d+/,
    "its SSH server hangs up before the login. It shuts this computer out for a while after refused logins, or a firewall does. Try again in some minutes",
  ],
  [
    /(Timeout, server .+ not responding|Broken pipe|Connection to .+ closed by remote host|client_loop: .+)/,
    "the SSH connection broke off ($1). Run the same command again",
  ],
];

/**
 * What ssh's words about a failed connection mean for the operator, in one line. Pure.
 * @param name the machine's name in `host:machines`
 * @param option the option of a command that names the machine, where it isn't one of `host:machines`
 * @param keys what there is to log in with; asked only where a login was refused
 */
export function explainConnectionFailure(
  name: string,
  machine: Machine,
  stderr: string,
  option?: string,
  keys: () => Keys = () => ({ agent: "has keys", files: [] }),
): string {
  const where = `${name} (${machine.address})`;
  const setting = `host:machines.${name}`;
  const names =
    option === undefined
      ? {
          ADDRESS: `${setting}.address`,
          PORT: `${setting}.port`,
          USER: `${setting}.user`,
          KEY: `${setting}.identityFile`,
          CONFIG: `${setting}.configFile`,
        }
      : {
          ADDRESS: option,
          PORT: option,
          USER: `the user in ${option}`,
          KEY: "--identity-file",
          CONFIG: "--ssh-config",
        };
  const filled = (text: string) => text.replace(/\b[A-Z]{3,7}\b/g, (word) => names[word as keyof typeof names] ?? word);

  // A jump host's ssh is another one, whose words come first.
  const [inner = "", outer] = stderr.split(
    /^(?=kex_exchange_identification: |Connection (?:closed|reset) by UNKNOWN port )/m,
  );
  const jump = machine.jump ?? "of the ssh configuration";
  if (outer !== undefined && inner.trim() !== "" && (machine.jump !== undefined || /UNKNOWN port 65535/.test(stderr))) {
    const [, reason] = /open failed: (?:connect failed: )?(.+)/.exec(inner) ?? [];
    if (reason !== undefined) {
      return `${where}: the jump host ${jump} has no way there (${reason.trim()}). Check ${names.ADDRESS}, as seen from the jump host`;
    }
    const first = inner.trim().split("\n");
    const said =
      first.find((line) => /Could not resolve|connect to host|verification failed|denied/.test(line)) ?? last(inner);
    const todo = /verification failed/.test(said)
      ? ": its host key isn't known on this computer, or is another one. Log in there once by hand"
      : "";
    return `${where}: the jump host ${jump} can't be passed (${said.trim()})${todo || `. Check ${option ?? `${setting}.jump`}`}`;
  }

  const [, offended] = /Host key for (\S+) has changed/.exec(stderr) ?? [];
  if (offended !== undefined || /HOST IDENTIFICATION HAS CHANGED|Host key verification failed/i.test(stderr)) {
    if (machine.hostKey !== undefined) {
      return `${where}: its SSH host key is not the one pinned in ${setting}.hostKey. If the machine was set up anew, pin its new key; if not, someone may be in between`;
    }
    const [, file] = /Offending \S+ key in (.+):\d+/.exec(stderr) ?? [];
    const usual = file === undefined || file === `${homedir()}/.ssh/known_hosts` ? "" : ` -f ${file}`;
    const known =
      offended ??
      (machine.port === undefined || machine.port === 22 ? machine.address : `[${machine.address}]:${machine.port}`);
    const word = /[[\]*?]/.test(known) ? `'${known}'` : known;
    return `${where}: its SSH host key is not the one known from earlier. If the machine was set up anew, remove the old key with \`ssh-keygen -R ${word}${usual}\`; if not, someone may be in between`;
  }
  if (/Permission denied/i.test(stderr)) {
    return `${where}: ${refusedLogin(stderr, keys(), { user: names.USER, key: names.KEY })}`;
  }
  if (/Could not resolve hostname/i.test(stderr)) {
    return `${where}: the name can't be resolved. Check ${names.ADDRESS}`;
  }
  for (const [said, means] of causes) {
    const found = said.exec(stderr);
    if (found !== null)
      return `${where}: can't be reached over SSH: ${filled(means)
        .replace(/\$1/g, found[1] ?? "")
        .replace(/\$2/g, found[2] ?? "")}`;
  }
  return `${where}: can't be reached over SSH${inBrackets(last(stderr))}. Check ${option ?? setting} and that the machine is up`;
}

/** How a login that worked comes to nothing, by what was said there. `USER` is the login's, `ROOT` how to do without sudo. */
const ends: [said: RegExp, means: string][] = [
  [
    /you must have a tty to run sudo/,
    "sudo there wants a terminal (`requiretty`). Put `Defaults:USER !requiretty` into its sudoers, or ROOT",
  ],
  [
    /sudo: (?:a password is required|a terminal is required|no tty present)|sudo: .*password/,
    "the login may not use sudo without a password. Allow that (`USER ALL=(ALL) NOPASSWD: ALL` in its sudoers), or ROOT",
  ],
  [
    /(?:is not in the sudoers file|may not run sudo|not allowed to execute|is not allowed to run sudo)/,
    "the login may not use sudo. Allow that (`USER ALL=(ALL) NOPASSWD: ALL` in its sudoers), or ROOT",
  ],
  [
    /sudo: (?:command )?not found|sudo: No such file|sudo: inaccessible or not found/,
    "there is no sudo. Install it, or ROOT",
  ],
  [
    /sudo: (.*(?:syntax error|no valid sudoers|must be setuid|should be|is world writable).*)/,
    "sudo there doesn't work ($1)",
  ],
  [
    /(This account is currently not available|account has expired|[Pp]assword change required|System is (?:booting up|going down).*)/,
    "the login of USER comes to nothing ($1)",
  ],
];

/**
 * Why a login that ssh came to started nothing: whether by its shell or by `sudo`. Pure.
 * @param said what came before the mark, on either channel
 */
export function explainLogin(
  name: string,
  machine: Machine,
  said: string,
  code: number | null,
  option?: string,
): string {
  const root = option === undefined ? `set host:machines.${name}.user to root` : `log in as root`;
  const filled = (text: string) => text.replaceAll("USER", machine.user).replaceAll("ROOT", root);
  for (const [words, means] of ends) {
    const found = words.exec(said);
    if (found !== null) return `${name}: ${filled(means).replace("$1", found[1]?.trim() ?? "")}`;
  }
  const what = last(said) || (code === null ? "the connection ended" : `exit code ${code}`);
  return `${name}: the login of ${machine.user} starts no shell there (${what}). Check its shell, its start-up files, and what its key may run`;
}
