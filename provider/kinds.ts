/** The kinds of resource by the name they have in `index.ts`. */
import { authorizedKey } from "./authorized-key";
import { backupsSoFar } from "./backups-so-far";
import { borgRepository } from "./borg-repository";
import { bucketProtection } from "./bucket-protection";
import { directory } from "./directory";
import { file } from "./file";
import { groupMember } from "./group-member";
import { hostKeyPair } from "./host-key-pair";
import { packages } from "./packages";
import { passphrase } from "./passphrase";
import { pythonEnvironment } from "./python-environment";
import { repositorySeal } from "./repository-seal";
import type { Kind } from "./resource";
import { spaceReserve } from "./space-reserve";
import { sshHostKey } from "./ssh-host-key";
import { sshKey } from "./ssh-key";
import { tree } from "./tree";
import { unit } from "./unit";
import { user } from "./user";

export const kinds: Record<string, Kind> = {
  AuthorizedKey: authorizedKey,
  BackupsSoFar: backupsSoFar,
  BorgRepository: borgRepository,
  BucketProtection: bucketProtection,
  Directory: directory,
  File: file,
  GroupMember: groupMember,
  HostKeyPair: hostKeyPair,
  Packages: packages,
  Passphrase: passphrase,
  PythonEnvironment: pythonEnvironment,
  RepositorySeal: repositorySeal,
  SpaceReserve: spaceReserve,
  SshHostKey: sshHostKey,
  SshKey: sshKey,
  Tree: tree,
  Unit: unit,
  User: user,
};
