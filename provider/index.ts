/**
 * The classes of the plugin `host`: the state of a machine, reached over SSH, as Pulumi resources. One file, because it is
 * the plugin's whole interface, to be read as its reference: a class and its arguments each, and nothing that works.
 *
 * A program uses these; the code that talks to machines is in the files beside this one, one a resource,
 * and runs in the plugin's own process (`main.ts`). Every resource names the machine it lives on by the
 * name it has in the setting `host:machines`, so that the connection always comes from today's settings
 * and never from a stack's older state (pulumi#9085).
 */
import * as pulumi from "@pulumi/pulumi";
import type { Answer, Question } from "./survey";

/** A replacement takes the old one's place on the machine, so the old one must go first, however it was asked for. */
function inPlace(opts: pulumi.CustomResourceOptions = {}): pulumi.CustomResourceOptions {
  return { deleteBeforeReplace: true, ...opts };
}

/**
 * Where a machine is that the stack makes itself, so that `host:machines` can't say it. Its `identityFile` still comes
 * from there.
 */
export interface Place {
  /** Name of the machine. */
  machine: string;
  address: string;
  /** Who logs in. Anybody but `root` needs `sudo` without a password. */
  user: string;
  /** The only host key that is accepted, in OpenSSH's form without a comment. */
  hostKey: string;
  /** Identity of what is there now. When it changes, everything on the machine is looked at and made anew. */
  instance: string;
}

/** What every resource of the plugin has in common. */
export interface OnMachine {
  /** Name of the machine, a key of the setting `host:machines`. */
  machine: pulumi.Input<string>;
  /** Where the machine is, if the stack makes it. Default: `host:machines` says it. */
  at?: pulumi.Input<Place>;
}

/** The type of every resource of the plugin begins with this. */
export const namespace = "host:index:";

/**
 * Asks machines what they are like, side by side, each in one round trip. It changes nothing there.
 * @returns an answer to each question
 */
export async function survey(questions: Question[]): Promise<Answer[]> {
  const { answers } = await pulumi.runtime.invoke(`${namespace}survey`, { questions });
  return answers;
}

/** Who owns a path and who may do what with it. */
export interface Ownership {
  /** Permissions as four octal digits, for instance `"0644"`. Each class gives its default. */
  mode?: pulumi.Input<string>;
  /** Name of the owning user. Default: `root`. */
  owner?: pulumi.Input<string>;
  /** Name of the owning group. Default: `root`. */
  group?: pulumi.Input<string>;
}

export interface FileArgs extends OnMachine, Ownership {
  /** Absolute path of the file on the machine. */
  path: pulumi.Input<string>;
  /** The text. Give this or `source`. A secret stays one, in previews, in errors and in the state. */
  content?: pulumi.Input<string>;
  /** A file on the operator's machine, relative to the project, whose text is taken. */
  source?: pulumi.Input<string>;
  /**
   * A shell command that must succeed on the machine while the file is in place, and changes nothing. It runs after the
   * file was written (where it fails, the file that was there before is put back and its words are the error) and at
   * each look (where it fails, that is drift). Default: none. Example: `"sshd -t"`.
   */
  validate?: pulumi.Input<string>;
  /** Systemd unit to reload after the file changed or was removed. Default: none. Example: `"ssh.service"`. */
  reload?: pulumi.Input<string>;
}

/** A regular file. Default mode `0644`. */
export class File extends pulumi.CustomResource {
  declare readonly path: pulumi.Output<string>;
  constructor(name: string, args: FileArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:File", name, { ...args }, inPlace(opts));
  }
}

export interface GroupMemberArgs extends OnMachine {
  /** Name of the user, who exists. */
  user: pulumi.Input<string>;
  /** Name of the group, which exists. */
  group: pulumi.Input<string>;
}

/** That a user is in a group. Deleting the resource leaves it so. */
export class GroupMember extends pulumi.CustomResource {
  constructor(name: string, args: GroupMemberArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:GroupMember", name, { ...args }, inPlace(opts));
  }
}

export interface DirectoryArgs extends OnMachine, Ownership {
  /** Absolute path of the directory on the machine; its parents are made where they are missing. */
  path: pulumi.Input<string>;
  /**
   * Whether all that is in it must belong to owner and group too. On a disk that comes from another machine, files have the
   * numbers of accounts there. Default: false.
   */
  ownsContents?: pulumi.Input<boolean>;
}

/** A directory. Default mode `0755`. Deleting the resource removes the directory only when it is empty. */
export class Directory extends pulumi.CustomResource {
  declare readonly path: pulumi.Output<string>;
  constructor(name: string, args: DirectoryArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:Directory", name, { ...args }, inPlace(opts));
  }
}

export interface TreeArgs extends OnMachine {
  /** Absolute path of the directory on the machine; the one above it exists. */
  path: pulumi.Input<string>;
  /** A folder on the operator's machine, relative to the project, whose files are taken. */
  source: pulumi.Input<string>;
  /**
   * A shell command that must succeed on the machine while the tree is in place, and changes nothing: as that of a `File`.
   * Default: none.
   */
  validate?: pulumi.Input<string>;
}

/**
 * A directory and all that is in it, root's: files `0644`, directories `0755`. A file that differs, is missing or is too
 * many is drift, named by its path. It changes as a whole: a program finds the old tree or the new one.
 */
export class Tree extends pulumi.CustomResource {
  declare readonly path: pulumi.Output<string>;
  constructor(name: string, args: TreeArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:Tree", name, { ...args }, inPlace(opts));
  }
}

export interface PackagesArgs extends OnMachine {
  /**
   * Names of Debian or Ubuntu packages that must be installed. With `unless`, `one|other` is the first of them that the
   * distribution has.
   */
  packages: pulumi.Input<string[]>;
  /**
   * Lowest acceptable version by package name, for instance `{ borgbackup: "1.2.8" }`. Where the distribution offers only
   * an older one, its backports are asked, if the machine's package sources name them. Default: any version.
   */
  minimum?: pulumi.Input<Record<string, string>>;
  /**
   * How the one package is built where neither has it. Default: such a machine is refused, and the error says so. What
   * was built is removed with the resource.
   */
  build?: pulumi.Input<Build>;
  /**
   * A shell command that succeeds where the machine has what the packages are for, from wherever, and changes nothing:
   * then no package is needed. Default: the packages themselves are needed. Example: `"docker compose version"`.
   */
  unless?: pulumi.Input<string>;
}

/** How a package is built in a Python environment of its own, from PyPI's sources. */
export interface Build {
  /** Absolute path of the environment on the machine; its commands are in `bin/`. */
  path: string;
  /** Text of a requirements file in which every requirement is pinned and has its hashes. */
  requirements: string;
  /** The same of what builds them. */
  tools: string;
  /** A line of Python that fails there where it doesn't work. */
  check: string;
  /** Packages of the distribution that it takes: compilers and headers. Those that weren't there are removed afterwards. */
  packages: string[];
}

/** Packages of the machine's distribution. Deleting the resource leaves them installed: others may use them. */
export class Packages extends pulumi.CustomResource {
  constructor(name: string, args: PackagesArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:Packages", name, { ...args }, inPlace(opts));
  }
}

export interface UserArgs extends OnMachine {
  /** Login name. */
  user: pulumi.Input<string>;
  /** Home directory. It is made, owned by root, and stays when the user is removed. */
  home: pulumi.Input<string>;
  /** Login shell. Default: `/bin/sh`. */
  shell?: pulumi.Input<string>;
}

/** A system user without a password. */
export class User extends pulumi.CustomResource {
  declare readonly user: pulumi.Output<string>;
  constructor(name: string, args: UserArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:User", name, { ...args }, inPlace(opts));
  }
}

export interface SshKeyArgs extends OnMachine {
  /** Absolute path of the private key; the public one is beside it with `.pub` added. */
  path: pulumi.Input<string>;
  /** Comment of the public key. */
  comment: pulumi.Input<string>;
}

/** An Ed25519 key pair made on the machine, owned by root. The private half never leaves it. */
export class SshKey extends pulumi.CustomResource {
  /** The public key in OpenSSH's form: `ssh-ed25519 AAAA… comment`. */
  declare readonly publicKey: pulumi.Output<string>;
  constructor(name: string, args: SshKeyArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:SshKey", name, { ...args, publicKey: undefined }, inPlace(opts));
  }
}

/** The host key by which clients know the machine's SSH server: Ed25519 where it offers that. It is read, never made or changed. */
export class SshHostKey extends pulumi.CustomResource {
  /** The host key in OpenSSH's form without a comment: `ssh-ed25519 AAAA…`. */
  declare readonly publicKey: pulumi.Output<string>;
  constructor(name: string, args: OnMachine, opts?: pulumi.CustomResourceOptions) {
    super("host:index:SshHostKey", name, { ...args, publicKey: undefined }, inPlace(opts));
  }
}

/**
 * The Ed25519 host key of a machine that the stack makes, made before the machine: whoever connects for the first time knows
 * it already. It is in the stack's state alone, encrypted, and on the machine.
 */
export class HostKeyPair extends pulumi.CustomResource {
  /** The host key in OpenSSH's form without a comment: `ssh-ed25519 AAAA…`. */
  declare readonly publicKey: pulumi.Output<string>;
  /** The private key as OpenSSH writes it; a secret. */
  declare readonly privateKey: pulumi.Output<string>;
  constructor(name: string, args: Pick<OnMachine, "machine">, opts?: pulumi.CustomResourceOptions) {
    super(
      "host:index:HostKeyPair",
      name,
      { ...args, publicKey: undefined, privateKey: undefined },
      { ...opts, additionalSecretOutputs: ["privateKey"] },
    );
  }
}

export interface AuthorizedKeyArgs extends OnMachine {
  /** The user who may log in with the key, with a home of its own. */
  user: pulumi.Input<string>;
  /** The public key in OpenSSH's form. */
  publicKey: pulumi.Input<string>;
  /** Further keys that may run that command. Default: none. */
  otherKeys?: pulumi.Input<pulumi.Input<string>[]>;
  /** The only command that the keys may run (`command=` in sshd(8)). */
  command: pulumi.Input<string>;
}

/**
 * The keys with which a user may log in, mostly one, `restrict`ed to one command. The resource owns the user's whole
 * `~/.ssh/authorized_keys`: a key that someone else adds is drift, and is removed. The file belongs to root.
 */
export class AuthorizedKey extends pulumi.CustomResource {
  constructor(name: string, args: AuthorizedKeyArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:AuthorizedKey", name, { ...args }, inPlace(opts));
  }
}

export interface UnitArgs extends OnMachine {
  /** Name with its type, for instance `"cht-backup-lab.timer"`. */
  unit: pulumi.Input<string>;
  /** Text of the unit file. It lands in `/etc/systemd/system`. Overrides by drop-ins are drift. */
  content: pulumi.Input<string>;
  /** Whether it starts at boot. Default: not looked after (right for a unit that another one starts). */
  enabled?: pulumi.Input<boolean>;
  /** Whether it runs now. Default: not looked after. */
  active?: pulumi.Input<boolean>;
  /** Anything whose change must restart an active unit, for instance digests of the files it reads. Default: none. */
  restartOn?: pulumi.Input<pulumi.Input<string>[]>;
}

/** A systemd unit of our own: installed, and where asked enabled and active. */
export class Unit extends pulumi.CustomResource {
  constructor(name: string, args: UnitArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:Unit", name, { ...args }, inPlace(opts));
  }
}

export interface PassphraseArgs extends OnMachine {
  /** Absolute path of the file that holds the passphrase on the machine, mode `0600`, owned by root. */
  path: pulumi.Input<string>;
  /**
   * The passphrase. Default: the one in the file, else a new one of 160 random bits. A file that holds another one is
   * never written over by a stack that didn't make it; one that a stack exchanges stays beside it as `PATH.former`.
   */
  value?: pulumi.Input<string>;
}

/**
 * A passphrase in a file. Without it no archive can be read, so deleting the resource leaves the file:
 * a stack that is made again finds it.
 */
export class Passphrase extends pulumi.CustomResource {
  /** The passphrase, always a secret. */
  declare readonly passphrase: pulumi.Output<string>;
  constructor(name: string, args: PassphraseArgs, opts?: pulumi.CustomResourceOptions) {
    super(
      "host:index:Passphrase",
      name,
      { ...args, passphrase: undefined },
      {
        ...opts,
        additionalSecretOutputs: ["passphrase", "value"],
      },
    );
  }
}

export interface SpaceReserveArgs extends OnMachine {
  /** Absolute path of the file that holds the space. */
  path: pulumi.Input<string>;
  /** Size in MiB. */
  mebibytes: pulumi.Input<number>;
}

/**
 * Disk space held back by a file that may be deleted when the disk is full: borg needs some even to list or
 * to compact (borg#9573). Deleting the resource frees the space.
 */
export class SpaceReserve extends pulumi.CustomResource {
  constructor(name: string, args: SpaceReserveArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:SpaceReserve", name, { ...args }, inPlace(opts));
  }
}

export interface PythonEnvironmentArgs extends OnMachine {
  /** Absolute path of the virtual environment. */
  path: pulumi.Input<string>;
  /** Text of a requirements file in which every requirement is pinned and has its hashes (pip's `--require-hashes`). */
  requirements: pulumi.Input<string>;
}

/** A Python virtual environment with exactly the locked packages in it, unchanged since they were installed. */
export class PythonEnvironment extends pulumi.CustomResource {
  declare readonly path: pulumi.Output<string>;
  constructor(name: string, args: PythonEnvironmentArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:PythonEnvironment", name, { ...args, digest: undefined }, inPlace(opts));
  }
}

export interface BorgRepositoryArgs extends OnMachine {
  /** The repository's address as borg takes it on `machine`, for instance `ssh://offsite/srv/…/repository`. */
  location: pulumi.Input<string>;
  /** Name of the machine that stores the repository, a key of `host:machines`: its identity is read there. */
  server: pulumi.Input<string>;
  /** Absolute path of the repository on `server`. */
  path: pulumi.Input<string>;
  /** The command borg uses for SSH (`BORG_RSH`), for instance `ssh -F /etc/…/ssh_config`. */
  rsh: pulumi.Input<string>;
  /** Borg's own files on `machine`: cache, security (`BORG_BASE_DIR`). */
  baseDirectory: pulumi.Input<string>;
  /** The passphrase. When it changes, the repository's key is wrapped by the new one, and the server's root puts it in. */
  passphrase: pulumi.Input<string>;
  /** Absolute path of a borg on `machine` that is taken where it is there (`Build`). Default: the distribution's. */
  borg?: pulumi.Input<string>;
  /** Borg's mode of encryption. Default: `repokey-blake2`. */
  encryption?: pulumi.Input<string>;
}

/**
 * A borg repository, initialised by the machine that writes to it. Deleting the resource leaves the repository.
 * One that has gone, or is another one than before, is drift; the repair makes or adopts one, and says so.
 */
export class BorgRepository extends pulumi.CustomResource {
  /** The repository's own id, 64 hexadecimal digits. */
  declare readonly repositoryId: pulumi.Output<string>;
  /**
   * The key as `borg key export` writes it, wrapped by the passphrase; a secret. Belongs in a recovery kit. Whatever a
   * machine prints, it is taken only where the operator's side has opened it by the passphrase.
   */
  declare readonly exportedKey: pulumi.Output<string>;
  /**
   * Former exports, by the ids of their repositories (those before the last of one as `ID 2`, `ID 3`, …); a secret. What
   * was stored under a key opens with that alone, so whatever took its place, none is ever lost.
   */
  declare readonly formerKeys: pulumi.Output<Record<string, string>>;
  constructor(name: string, args: BorgRepositoryArgs, opts?: pulumi.CustomResourceOptions) {
    super(
      "host:index:BorgRepository",
      name,
      { ...args, repositoryId: undefined, exportedKey: undefined, formerKeys: undefined },
      {
        ...opts,
        additionalSecretOutputs: ["passphrase", "exportedKey", "formerKeys"],
        retainOnDelete: true,
      },
    );
  }
}

export interface BackupsSoFarArgs extends OnMachine {
  /** Name of the deployment. */
  deployment: pulumi.Input<string>;
  /** Absolute path of its repository on the machine. */
  path: pulumi.Input<string>;
  /** The account there that receives backups. Its home, which outlives a stack, says where the repository was last. */
  account: pulumi.Input<string>;
  /** Absolute path of the file in which it is noted for the audit that the repository was made by others, and up to where. */
  note: pulumi.Input<string>;
  /** Name of the machine that writes to it. */
  client: pulumi.Input<string>;
  /** Absolute path of the deployment's settings on the client, beside which those of others are. */
  clientSettings: pulumi.Input<string>;
  /** Borg's own files on the client (`BORG_BASE_DIR`). */
  baseDirectory: pulumi.Input<string>;
  /** What is backed up: the directory that `settings.json` calls `chtHome`. */
  home: pulumi.Input<string>;
  /** As borg's `--chunker-params` takes it. */
  chunker: pulumi.Input<string>;
  /** Where copies go, in one line; empty: nowhere. */
  bucket: pulumi.Input<string>;
  /** Absolute path of the file on the machine that says where they have gone so far. */
  bucketFile: pulumi.Input<string>;
  /** The passphrase, where one is given; a secret. */
  passphrase?: pulumi.Input<string>;
}

/**
 * What a deployment has so far. Before anything is touched, in a preview too, a setting by which its backups would begin anew
 * is refused or announced, and a repository in its place that others made is refused or taken over. Deleting the resource
 * deletes nothing.
 */
export class BackupsSoFar extends pulumi.CustomResource {
  constructor(name: string, args: BackupsSoFarArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:BackupsSoFar", name, { ...args }, inPlace({ ...opts, additionalSecretOutputs: ["passphrase"] }));
  }
}

export interface RepositorySealArgs extends OnMachine {
  /** Absolute path of the repository on the machine. */
  path: pulumi.Input<string>;
  /** Absolute path of the package of programs on the machine (`hosts/chtbackup`). */
  program: pulumi.Input<string>;
  /** Absolute path of `repository.json` on the machine. */
  settings: pulumi.Input<string>;
  /**
   * SHA-256 of the package as one file (`components/recover-program.ts`), which is kept beside the repository. Default: it
   * isn't looked at.
   */
  recover?: pulumi.Input<string>;
}

/**
 * That what is finished in a repository is root's (`hosts/chtbackup/repository/seal.py`), and that the program
 * for a recovery is beside it. A missing seal is drift; the repair seals, and takes over what belongs to an account of another
 * machine. Deleting the resource leaves the seals, and the program.
 */
export class RepositorySeal extends pulumi.CustomResource {
  constructor(name: string, args: RepositorySealArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:RepositorySeal", name, { ...args }, inPlace(opts));
  }
}

export interface BucketProtectionArgs extends OnMachine {
  /** The bucket's name. */
  bucket: pulumi.Input<string>;
  /** Directory on the machine with the Python environment `venv`. */
  programs: pulumi.Input<string>;
  /** Absolute path of the package of programs on the machine (`hosts/chtbackup`). */
  program: pulumi.Input<string>;
  /** Absolute path of `bucket.json` on the machine. */
  settings: pulumi.Input<string>;
  /** The least mode of its default retention: `COMPLIANCE` or `GOVERNANCE`. */
  mode: pulumi.Input<string>;
  /** The least days of its default retention. */
  days: pulumi.Input<number>;
}

/**
 * How a bucket protects what is in it: versioning, object lock with a default retention, no public access. It is read
 * through the machine that copies to it and never changed: where it isn't as asked, that is drift, and an error in `up`.
 */
export class BucketProtection extends pulumi.CustomResource {
  constructor(name: string, args: BucketProtectionArgs, opts?: pulumi.CustomResourceOptions) {
    super("host:index:BucketProtection", name, { ...args }, inPlace(opts));
  }
}
