/** The kinds of resource by the name they have in `index.ts`. */
import { authorizedKey } from "./authorized-key";
import { borgRepository } from "./borg-repository";
import { bucketProtection } from "./bucket-protection";
import { directory } from "./directory";
import { file } from "./file";
import { hostKeyPair } from "./host-key-pair";
import { packages } from "./packages";
import { passphrase } from "./passphrase";
import { pythonEnvironment } from "./python-environment";
import type { Kind } from "./resource";
import { spaceReserve } from "./space-reserve";
import { sshHostKey } from "./ssh-host-key";
import { sshKey } from "./ssh-key";
import { unit } from "./unit";
import { user } from "./user";

export const kinds: Record<string, Kind> = {
  AuthorizedKey: authorizedKey,
  BorgRepository: borgRepository,
  BucketProtection: bucketProtection,
  Directory: directory,
  File: file,
  HostKeyPair: hostKeyPair,
  Packages: packages,
  Passphrase: passphrase,
  PythonEnvironment: pythonEnvironment,
  SpaceReserve: spaceReserve,
  SshHostKey: sshHostKey,
  SshKey: sshKey,
  Unit: unit,
  User: user,
};
