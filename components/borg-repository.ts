import * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { borgPackage } from "./borg";
import { chtNames, serverNames } from "./names";
import { foundations } from "./programs";
import { serveCommand } from "./repository-guard";
import { type SshAccessArgs, sshAccess } from "./ssh-access";

export interface BorgRepositoryArgs extends Omit<SshAccessArgs, "rename"> {
  /** Public keys of other machines that may append and read. Default: none. */
  otherKeys?: pulumi.Input<string>[];
  /** The passphrase, a secret. Default: the one on the machine, else a new one. */
  passphrase?: pulumi.Output<string>;
  /** What has to be looked at before anything is touched. */
  after: pulumi.Resource;
}

/**
 * An encrypted borg repository on the offsite server, and the CHT machine's way to it: a key made there, which can
 * append to this repository and do nothing else. Repository and passphrase stay when the stack is destroyed.
 */
export class BorgRepository extends pulumi.ComponentResource {
  /** The repository's address as borg takes it on the CHT machine. */
  readonly location: string;
  /** The repository's id. */
  readonly repositoryId: pulumi.Output<string>;
  /** The repository's key, wrapped by the passphrase; a secret. */
  readonly exportedKey: pulumi.Output<string>;
  /** Former exports of its key, and keys of repositories that were in its place before, by their ids; a secret. */
  readonly formerKeys: pulumi.Output<Record<string, string>>;
  /** The passphrase; a secret. */
  readonly passphrase: pulumi.Output<string>;
  /** What else on the CHT machine builds on, so that it needn't wait for the repository: borg, the settings' directory. */
  readonly foundations: pulumi.Resource[];

  constructor(name: string, args: BorgRepositoryArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:BorgRepository", name, {}, opts);
    const { machine, deployment, server } = args;
    const { settings, state, programs } = chtNames(deployment);
    const { user, repository } = serverNames(deployment, args.dataDirectory);
    const child = { parent: this };

    const { borg, directory, stateDirectory } = foundations(args, { ...child, dependsOn: args.after });
    const { key, knownHosts, sshConfig } = sshAccess(args, directory, child);
    const passphrase = new host.Passphrase(
      "backup-passphrase",
      { machine, path: `${settings}/passphrase`, value: args.passphrase },
      { ...child, dependsOn: directory, retainOnDelete: true },
    );
    // The limits on the server come first: the key must not work for a moment without them.
    const authorizedKey = new host.AuthorizedKey(
      "server-authorized-key",
      {
        machine: server.machine,
        user,
        publicKey: key.publicKey,
        otherKeys: args.otherKeys,
        command: serveCommand(deployment),
      },
      { ...child, dependsOn: server },
    );

    this.location = `ssh://offsite${repository}`;
    const made = new host.BorgRepository(
      "borg-repository",
      {
        machine,
        location: this.location,
        server: server.machine,
        path: repository,
        rsh: `ssh -F ${settings}/ssh_config`,
        baseDirectory: `${state}/borg`,
        borg: `${borgPackage(programs).build.path}/bin/borg`,
        passphrase: passphrase.passphrase,
        encryption: "repokey-blake2",
      },
      {
        ...child,
        dependsOn: [server, borg, stateDirectory, knownHosts, sshConfig, authorizedKey],
        retainOnDelete: true,
      },
    );

    this.repositoryId = made.repositoryId;
    this.exportedKey = made.exportedKey;
    this.formerKeys = made.formerKeys;
    this.passphrase = passphrase.passphrase;
    this.foundations = [borg, directory];
    this.registerOutputs({ location: this.location, repositoryId: this.repositoryId });
  }
}
