/** SSH access to the server: a key pair made on the machine, whom to trust (known_hosts), and where (ssh_config). */
import * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { renderHostFile } from "./host-files";
import { chtNames, serverNames } from "./names";
import type { OffsiteServer } from "./offsite-server";
import type { ArchiveClient } from "./programs";

export interface SshAccessArgs extends ArchiveClient {
  /** Where the repository is kept. */
  server: OffsiteServer;
  /** Directory on the server that holds the repositories of all deployments. */
  dataDirectory: string;
  /** Where `machine` reaches the server's SSH. */
  address: pulumi.Input<string>;
  port: number;
  /** The account on the server. Default: the one that receives the backups. */
  account?: string;
  /** What the names of the files begin with, for a second way in. Default: nothing. */
  prefix?: string;
}

/** SSH access to the server: key pair, known_hosts, ssh_config. The server has to let the key in. */
export function sshAccess(args: SshAccessArgs, directory: pulumi.Resource, child: pulumi.CustomResourceOptions) {
  const { machine, deployment, server, prefix = "", rename = (name) => name } = args;
  const { account = serverNames(deployment, args.dataDirectory).user } = args;
  const [KEY, KNOWN_HOSTS, path] = ["ssh_key", "known_hosts", "ssh_config"].map(
    (file) => `${chtNames(deployment).settings}/${prefix}${file}`,
  ) as [string, string, string];
  const inside = { ...child, dependsOn: directory };
  const key = new host.SshKey(rename("cht-ssh-key"), { machine, path: KEY, comment: account }, inside);
  const knownHosts = new host.File(
    rename("cht-known-hosts"),
    { machine, path: KNOWN_HOSTS, content: pulumi.interpolate`offsite ${server.hostKey}\n` },
    inside,
  );
  const sshConfig = new host.File(
    rename("cht-ssh-config"),
    {
      machine,
      path,
      content: pulumi.output(args.address).apply((address) =>
        renderHostFile("cht/ssh_config", {
          DEPLOYMENT: deployment,
          SERVER_ADDRESS: address,
          SERVER_PORT: args.port,
          SERVER_USER: account,
          KEY,
          KNOWN_HOSTS,
        }),
      ),
    },
    inside,
  );
  return { key, knownHosts, sshConfig };
}
