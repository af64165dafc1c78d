import * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { renderHostFile } from "./host-files";
import { serveCommand, serverNames } from "./names";

export interface OffsiteServerArgs {
  /** Name of the machine in `host:machines`. It exists already. */
  machine: string;
  deployment: string;
  /** Directory that holds the repositories of all deployments. */
  dataDirectory: string;
  /** Disk space held back, in MiB. */
  reserveMebibytes: number;
}

/**
 * A command that succeeds when sshd would really give that account nothing but the forced command. The file alone proves
 * nothing: an earlier `Match` wins over a later one, and a sshd_config without `Include` reads neither.
 */
function loginLimitsHold(user: string, repository: string): string {
  const sshd = "/usr/sbin/sshd";
  const effective = `${sshd} -T -C user=${user},host=x,addr=192.0.2.1`;
  const forced = `forcecommand ${serveCommand(repository)}`;
  return `${sshd} -t && { ${effective} | grep -qixF '${forced}' || { echo 'another setting of sshd takes the forced command from ${user}'; false; }; }`;
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
    const { user, home, repository, reserve } = serverNames(deployment, args.dataDirectory);
    const child = { parent: this };

    const borg = new host.Packages(
      "server-borg",
      { machine, packages: ["borgbackup"], minimum: { borgbackup: "1.2.8" } },
      child,
    );
    const account = new host.User("server-user", { machine, user, home }, { ...child, retainOnDelete: true });
    new host.Directory(
      "server-repository-directory",
      // Its disk may come from another machine, where the account had another number.
      { machine, path: repository, mode: "0700", owner: user, group: user, ownsContents: true },
      { ...child, dependsOn: account, retainOnDelete: true },
    );
    new host.File(
      "server-login-limits",
      {
        machine,
        path: `/etc/ssh/sshd_config.d/50-cht-backup-${deployment}.conf`,
        content: renderHostFile("server/sshd.conf", {
          DEPLOYMENT: deployment,
          SERVER_USER: user,
          REPOSITORY_PATH: repository,
        }),
        validate: loginLimitsHold(user, repository),
        reload: "ssh.service",
      },
      { ...child, dependsOn: [account, borg] },
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
      { machine, path: reserve, mebibytes: args.reserveMebibytes },
      { ...child, dependsOn: account },
    );
    const hostKey = new host.SshHostKey("server-host-key", { machine }, child);

    this.machine = machine;
    this.hostKey = hostKey.publicKey;
    this.registerOutputs({ hostKey: this.hostKey });
  }
}
