/** What sshd lets an account of a deployment do: log in with its key, and run one command. */
import type * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { renderHostFile } from "./host-files";

/**
 * A command that succeeds when sshd would really let that account in, and give it nothing but the forced command. The file
 * alone proves nothing: an earlier `Match` wins over a later one, a sshd_config without `Include` reads neither, and whom
 * `DenyUsers` or `DenyGroups` name nothing lets in.
 */
export function loginLimitsHold(user: string, command: string, sshd = "/usr/sbin/sshd"): string {
  const holds = (line: string, what: string) =>
    `{ echo "$all" | grep -qixF '${line}' || { echo 'another setting of sshd ${what} ${user}'; false; }; }`;
  return [
    `${sshd} -t`,
    `all=$(${sshd} -T -C user=${user},host=x,addr=192.0.2.1)`,
    holds(`forcecommand ${command}`, "takes the forced command from"),
    holds(`allowusers ${user}`, "(AllowUsers in a Match before this one) shuts out"),
    holds(`allowgroups ${user}`, "(AllowGroups in a Match before this one) shuts out"),
    holds("pubkeyauthentication yes", "(PubkeyAuthentication in a Match before this one) shuts out"),
    `{ set -f; for one in $(echo "$all" | sed -n 's/^deny\\(users\\|groups\\) //p'); do case ${user} in $one) ` +
      `echo "DenyUsers or DenyGroups of sshd ($one) shuts out ${user}"; exit 1 ;; esac; done; }`,
  ].join(" && ");
}

export interface LoginLimitsArgs {
  machine: string;
  deployment: string;
  /** The account. */
  user: string;
  /** The only command that it may run. */
  command: string;
}

/** The limits of an account of a deployment, in a file of sshd's. */
export function loginLimits(
  name: string,
  { machine, deployment, user, command }: LoginLimitsArgs,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  const content = renderHostFile("server/sshd.conf", {
    DEPLOYMENT: deployment,
    SERVER_USER: user,
    SERVE_COMMAND: command,
  });
  const path = `/etc/ssh/sshd_config.d/50-${user}.conf`;
  return new host.File(
    name,
    { machine, path, content, validate: loginLimitsHold(user, command), reload: "ssh.service" },
    opts,
  );
}
