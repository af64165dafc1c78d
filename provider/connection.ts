/**
 * How a machine is reached over SSH: the setting `host:machines`. Read by the program, which checks it, and by
 * the plugin, which connects with it. Nothing in here talks to a machine or reads a file.
 */
import { z } from "zod";

/** A host name, an IPv4 or IPv6 address. It never starts with a dash: ssh would take it for an option. */
export const hostPattern = /^[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252}$/;

const hopPattern = /^([A-Za-z0-9_][A-Za-z0-9_.-]*@)?([A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$/;

const keyTypes = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];

/**
 * Whether a text is a public key in OpenSSH's form, `TYPE BASE64`. The decoded key begins with its own type
 * (RFC 4253, 6.6), so a key that was cut or pasted wrongly is found.
 */
export function isPublicKey(text: string): boolean {
  const [type = "", encoded = "", ...rest] = text.split(" ");
  if (rest.length > 0 || !keyTypes.includes(type) || !/^[A-Za-z0-9+/]+={0,2}$/.test(encoded)) return false;
  const key = Buffer.from(encoded, "base64");
  const start = 4 + type.length;
  if (key.length < start + 4 || key.readUInt32BE(0) !== type.length) return false;
  if (key.toString("latin1", 4, start) !== type) return false;
  return type !== "ssh-ed25519" || key.length === start + 4 + 32;
}

const localPath = z.string().regex(/^[^\s-][^\0\r\n]*$/);

/** The settings of one machine. */
export const machineSchema = z
  .strictObject({
    address: z.string().regex(hostPattern).optional().meta({
      description: "Where your computer reaches the machine.",
      allowed: "a host name, an IP address or an alias of your ssh configuration",
      example: "cht.example.org",
      fallback: "none: it must be given, but for a machine that the stack makes",
    }),
    user: z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/)
      .default("root")
      .meta({
        description:
          "Who logs in. Anybody but `root` needs `sudo` without a password. A `User` of your ssh configuration isn't asked.",
        allowed: "the name of a user",
        example: "ubuntu",
      }),
    port: z.int().min(1).max(65535).optional().meta({
      description: "The port of the machine's SSH server.",
      allowed: "a port, a number from 1 to 65535",
      example: "2222",
      fallback: "what your ssh configuration says, else 22",
    }),
    identityFile: localPath.optional().meta({
      description: "The private key to log in with, a file on your computer.",
      allowed: "the path of a file (absolute, from `~/`, or relative to the project)",
      example: "~/.ssh/id_ed25519",
      fallback: "what ssh takes by itself: the agent, your ssh configuration, the usual files",
    }),
    jump: z
      .string()
      .refine((hops) => hops.split(",").every((hop) => hopPattern.test(hop)))
      .optional()
      .meta({
        description: "The machine to go through, as ssh's `ProxyJump`; several are divided by commas.",
        allowed: "`[user@]host[:port]`",
        example: "admin@bastion.example.org",
        fallback: "none",
      }),
    configFile: localPath.optional().meta({
      description:
        "The ssh configuration to use instead of your own, a file on your computer. For the machine that drills better a path " +
        "that is the same for every operator, thus not from `~/`: the Docker plugin keeps it in the state.",
      allowed: "the path of a file (absolute, from `~/`, or relative to the project)",
      example: "./ssh_config",
      fallback: "`~/.ssh/config`",
    }),
    hostKey: z
      .string()
      .refine(isPublicKey)
      .optional()
      .meta({
        description:
          "The machine's public host key, the only one that is accepted. `ssh-keyscan -t ed25519 ADDRESS` prints it " +
          "after the address; compare it with `/etc/ssh/ssh_host_ed25519_key.pub` on the machine.",
        allowed: "a public key on one line, its type and the key, without a comment",
        example: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…",
        fallback: "the key of the first contact, kept from then on",
      }),
    sudo: z.boolean().optional().meta({
      description: "Whether commands run through `sudo`.",
      allowed: "true or false",
      example: "true",
      fallback: "true for every user but `root`",
    }),
  })
  .transform((machine) => ({ ...machine, sudo: machine.sudo ?? machine.user !== "root" }))
  .meta({
    description: "How one machine is reached.",
    allowed: "a mapping with at least `address`",
    example: "{ address: cht.example.org, user: ubuntu }",
  });

/** Name of a machine in the settings. */
export const machineName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}$/)
  .meta({
    description: "A name you choose.",
    allowed: "lower-case letters, digits and dashes, a letter first, 31 characters at most",
    example: "cht",
  });

/** The setting `host:machines`: every machine by its name. */
export const machinesSchema = z.record(machineName, machineSchema);

/**
 * What the settings say of one machine, with every default filled in. Without an address: the stack makes the machine, and
 * its resources say where it is.
 */
export type MachineSettings = z.output<typeof machineSchema>;

/** One machine's connection, with every default filled in. */
export type Machine = MachineSettings & { address: string };

export function hasAddress(machine: MachineSettings): machine is Machine {
  return machine.address !== undefined;
}

/**
 * The words with which an operator's shell runs a command on a machine, for texts that are shown.
 * Values that a shell would split or expand are quoted.
 */
export function sshCommandLine(machine: Machine, command: string): string {
  const words = ["ssh"];
  if (machine.configFile !== undefined) words.push("-F", machine.configFile);
  if (machine.identityFile !== undefined) words.push("-i", machine.identityFile);
  if (machine.jump !== undefined) words.push("-J", machine.jump);
  if (machine.port !== undefined) words.push("-p", String(machine.port));
  words.push(`${machine.user}@${machine.address}`, machine.sudo ? `sudo ${command}` : command);
  return words.map(quoteWord).join(" ");
}

function quoteWord(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./~-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
