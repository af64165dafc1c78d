import * as pulumi from "@pulumi/pulumi";
import type { Machine } from "../provider/connection";
import { runRemotely } from "./remote-script";

/**
 * Waits until a new server has set itself up, and fails with the reason where it couldn't. What is done on the machine
 * afterwards depends on this.
 *
 * @param machine as the server's user data lets in
 * @param instanceId an instance that takes another's place is waited for again
 * @param account where it is, for the commands that messages show
 */
export function waitForFirstBoot(
  machine: pulumi.Output<Machine>,
  instanceId: pulumi.Output<string>,
  account: { region: string; profile?: string | undefined },
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  const order = pulumi.all([machine, instanceId]).apply(([known, id]) => ({
    name: "server",
    machine: known,
    words: [],
    starting: { patience: 600, refused: anotherInstance(id, account) },
  }));
  return runRemotely("first-boot", { order, script: "aws/wait_for_boot.sh", once: instanceId }, opts);
}

/**
 * What to do where nobody can log in to a new instance: its first boot is its only one that reads keys, and an instance
 * that is replaced by Pulumi gets the keys of the one before.
 */
export function anotherInstance(
  instanceId: string,
  { region, profile }: { region: string; profile?: string | undefined },
): string {
  const options = profile === undefined ? `--region ${region}` : `--profile ${profile} --region ${region}`;
  return (
    "The first boot let in the cht-backup:server.aws.operatorKeys of its day, and no later `up` can change that before " +
    "somebody gets in. Where yours isn't among them, put it there, and have another instance made; the data volume stays: " +
    `aws ec2 terminate-instances ${options} --instance-ids ${instanceId}; once it has ended, run \`up\` again`
  );
}
