import { accessSync, constants, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import type { Machine as MachineSettings } from "./connection";
import { Refused } from "./refused";

/**
 * Options of ssh that lead to the machine. Pure.
 * @param pin options of ssh that give it the pinned host key under the name `pinned`; undefined: the first one it sees
 * @param home what `~` stands for in the identity file's path. `~` leaves it to ssh, which asks the system's list of users
 * and not HOME
 */
export function connectionOptions(
  machine: MachineSettings,
  pin: readonly string[] | undefined,
  home: string = homedir(),
): string[] {
  const options = [
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    // What an operator's own configuration may say for logins by hand, and what would keep a root login open here.
    "ControlPersist=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "PermitLocalCommand=no",
    "LogLevel=ERROR",
  ];
  if (pin === undefined) {
    options.push("StrictHostKeyChecking=accept-new");
  } else {
    options.push("StrictHostKeyChecking=yes", ...pin, "GlobalKnownHostsFile=/dev/null");
    // The pin holds for the machine whatever its address is, and no other file has a say.
    options.push("HostKeyAlias=pinned", "UpdateHostKeys=no");
  }
  const result = options.flatMap((option) => ["-o", option]);
  // A shell expands `~`, ssh doesn't in `-F`.
  const local = (path: string, of: string) => path.replace(/^~(?=\/)/, of);
  if (machine.configFile !== undefined) result.push("-F", local(machine.configFile, homedir()));
  if (machine.identityFile !== undefined)
    result.push("-i", local(machine.identityFile, home), "-o", "IdentitiesOnly=yes");
  if (machine.jump !== undefined) result.push("-J", machine.jump);
  return result;
}

/** Arguments of ssh that lead to the machine, without the command. Pure. */
export function connectionArguments(machine: MachineSettings, knownHosts: string | undefined): string[] {
  const pin = knownHosts === undefined ? undefined : [`UserKnownHostsFile="${knownHosts}"`, "KnownHostsCommand=none"];
  const result = connectionOptions(machine, pin);
  if (machine.port !== undefined) result.push("-p", String(machine.port));
  return [...result, "-l", machine.user, machine.address];
}

/**
 * Arguments of ssh that lead to the machine, its pinned host key (where there is one) written to a file for ssh.
 * @param directory a directory of the caller's own, which it removes when it is done
 */
export function pinnedConnection(machine: MachineSettings, directory: string): string[] {
  if (machine.hostKey === undefined) return connectionArguments(machine, undefined);
  const knownHosts = join(directory, "known_hosts");
  writeFileSync(knownHosts, `pinned ${machine.hostKey}\n`, { mode: 0o600 });
  return connectionArguments(machine, knownHosts);
}

/** What ssh may put behind a socket's path while it makes it, and the end of the text. */
const SOCKET_SUFFIX = 18;

/** The shortest that a socket's path may be on any system: macOS has 104, Linux 108. */
const LONGEST_SOCKET = 104;

const SOCKET_NAME = "/host-ssh-XXXXXX/connection";

/**
 * The folder under which a connection's socket goes: the first that is short enough and may be written to.
 * @throws Refused
 */
export function socketFolder(
  folders: readonly string[] = [tmpdir(), process.env.XDG_RUNTIME_DIR ?? "", "/tmp", "/var/tmp", "/dev/shm", homedir()],
): string {
  const fits = (folder: string) => Buffer.byteLength(folder + SOCKET_NAME) + SOCKET_SUFFIX <= LONGEST_SOCKET;
  const short = folders.filter((folder) => folder.startsWith("/") && fits(folder));
  for (const folder of short) {
    try {
      accessSync(folder, constants.W_OK | constants.X_OK);
      return folder;
    } catch {
      // The next one.
    }
  }
  throw new Refused(
    `no folder for ssh's socket: TMPDIR (${tmpdir()}) is too long or can't be written to, as are /tmp and the home directory. Set TMPDIR to a shorter one`,
  );
}
