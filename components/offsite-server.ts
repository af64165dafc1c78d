import * as pulumi from "@pulumi/pulumi";
import type { Settings } from "../config";
import * as host from "../provider";
import { borgPackage } from "./borg";
import { renderHostFile } from "./host-files";
import { loginLimits } from "./login-limits";
import { serverNames } from "./names";
import { RepositoryGuard, serveCommand } from "./repository-guard";

export interface OffsiteServerArgs {
  /** Name of the machine in `host:machines`. It exists already. */
  machine: string;
  deployment: string;
  /** Where the repositories of all deployments are, disk space held back, what a client may do at most. */
  settings: Pick<Settings["server"], "dataDirectory" | "reserveMebibytes" | "limits">;
  /** What has to be looked at before anything is touched. */
  after: pulumi.Resource;
  /** Addresses of apprise, a secret: whom the server tells what it finds in its repository. */
  alerts: pulumi.Output<string[]>;
}

/**
 * The place on an existing machine where one deployment's backups go: an account that can do nothing but receive
 * them. Several deployments share a machine, so everything carries the deployment's name. The account and the
 * directories stay when the stack is destroyed: the repository belongs to that account.
 */
export class OffsiteServer extends pulumi.ComponentResource {
  readonly machine: string;
  /** The server's host key in OpenSSH's form, without a comment. */
  readonly hostKey: pulumi.Output<string>;

  constructor(name: string, args: OffsiteServerArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:OffsiteServer", name, {}, opts);
    const { machine, deployment } = args;
    const { dataDirectory, reserveMebibytes, limits } = args.settings;
    const { user, home, repository, reserve, programs } = serverNames(deployment, dataDirectory);
    const child = { parent: this, dependsOn: args.after };

    const borg = new host.Packages("server-borg", { machine, ...borgPackage(programs) }, child);
    const account = new host.User("server-user", { machine, user, home }, { ...child, retainOnDelete: true });
    const directory = new host.Directory(
      "server-repository-directory",
      // Sticky: the account adds files, and can remove only its own (hosts/chtbackup/repository/seal.py).
      { machine, path: repository, mode: "1770", group: user },
      { ...child, dependsOn: account, retainOnDelete: true },
    );
    const guard = new RepositoryGuard(
      "repository-guard",
      {
        machine,
        deployment,
        dataDirectory,
        limits,
        alerts: args.alerts,
        before: [borg, directory],
      },
      child,
    );
    loginLimits(
      "server-login-limits",
      { machine, deployment, user, command: serveCommand(deployment) },
      { ...child, dependsOn: [account, guard] },
    );
    new host.File(
      "server-lock-cleanup",
      {
        machine,
        path: `/etc/tmpfiles.d/cht-backup-${deployment}.conf`,
        content: renderHostFile("server/tmpfiles.conf", { DEPLOYMENT: deployment, REPOSITORY_PATH: repository }),
      },
      child,
    );
    new host.SpaceReserve(
      "server-space-reserve",
      { machine, path: reserve, mebibytes: reserveMebibytes },
      { ...child, dependsOn: account },
    );
    const hostKey = new host.SshHostKey("server-host-key", { machine }, { parent: this });

    this.machine = machine;
    this.hostKey = hostKey.publicKey;
    this.registerOutputs({ hostKey: this.hostKey });
  }
}
