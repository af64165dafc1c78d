import * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { borgPackage } from "./borg";
import { renderHostFile } from "./host-files";
import { serveCommand, serverNames } from "./names";
import { type ClientLimits, RepositoryGuard } from "./repository-guard";

export interface OffsiteServerArgs {
  /** Name of the machine in `host:machines`. It exists already. */
  machine: string;
  deployment: string;
  /** Directory that holds the repositories of all deployments. */
  dataDirectory: string;
  /** Disk space held back, in MiB. */
  reserveMebibytes: number;
  /** What a client may do at most. */
  limits: ClientLimits;
  /** What has to be looked at before anything is touched. */
  after: pulumi.Resource;
  /** Addresses of apprise, a secret: whom the server tells what it finds in its repository. */
  alerts: pulumi.Output<string[]>;
}

/**
 * A command that succeeds when sshd would really let that account in, and give it nothing but the forced command. The file
 * alone proves nothing: an earlier `Match` wins over a later one, a sshd_config without `Include` reads neither, and whom
 * `DenyUsers` or `DenyGroups` name nothing lets in.
 */
export function loginLimitsHold(user: string, deployment: string, sshd = "/usr/sbin/sshd"): string {
  const holds = (line: string, what: string) =>
    `{ echo "$all" | grep -qixF '${line}' || { echo 'another setting of sshd ${what} ${user}'; false; }; }`;
  return [
    `${sshd} -t`,
    `all=$(${sshd} -T -C user=${user},host=x,addr=192.0.2.1)`,
    holds(`forcecommand ${serveCommand(deployment)}`, "takes the forced command from"),
    holds(`allowusers ${user}`, "(AllowUsers in a Match before this one) shuts out"),
    holds(`allowgroups ${user}`, "(AllowGroups in a Match before this one) shuts out"),
    holds("pubkeyauthentication yes", "(PubkeyAuthentication in a Match before this one) shuts out"),
    `{ set -f; for one in $(echo "$all" | sed -n 's/^deny\\(users\\|groups\\) //p'); do case ${user} in $one) ` +
      `echo "DenyUsers or DenyGroups of sshd ($one) shuts out ${user}"; exit 1 ;; esac; done; }`,
  ].join(" && ");
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
    const { user, home, repository, reserve, programs } = serverNames(deployment, args.dataDirectory);
    const child = { parent: this, dependsOn: args.after };

    const borg = new host.Packages("server-borg", { machine, ...borgPackage(programs) }, child);
    const account = new host.User("server-user", { machine, user, home }, { ...child, retainOnDelete: true });
    const directory = new host.Directory(
      "server-repository-directory",
      // Sticky: the account adds files, and can remove only its own (hosts/server/seal.py).
      { machine, path: repository, mode: "1770", group: user },
      { ...child, dependsOn: account, retainOnDelete: true },
    );
    const guard = new RepositoryGuard(
      "repository-guard",
      {
        machine,
        deployment,
        dataDirectory: args.dataDirectory,
        limits: args.limits,
        alerts: args.alerts,
        before: [borg, directory],
      },
      child,
    );
    new host.File(
      "server-login-limits",
      {
        machine,
        path: `/etc/ssh/sshd_config.d/50-cht-backup-${deployment}.conf`,
        content: renderHostFile("server/sshd.conf", {
          DEPLOYMENT: deployment,
          SERVER_USER: user,
          SERVE_COMMAND: serveCommand(deployment),
        }),
        validate: loginLimitsHold(user, deployment),
        reload: "ssh.service",
      },
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
      { machine, path: reserve, mebibytes: args.reserveMebibytes },
      { ...child, dependsOn: account },
    );
    const hostKey = new host.SshHostKey("server-host-key", { machine }, { parent: this });

    this.machine = machine;
    this.hostKey = hostKey.publicKey;
    this.registerOutputs({ hostKey: this.hostKey });
  }
}
