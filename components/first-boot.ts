import type * as pulumi from "@pulumi/pulumi";
import { type Login, runRemotely } from "./remote-script";

/**
 * Waits until a new server has set itself up, and fails with the reason where it couldn't. What is done on the machine
 * afterwards depends on this.
 *
 * @param login as the server's user data allows it
 * @param instanceId an instance that takes another's place is waited for again
 */
export function waitForFirstBoot(
  login: Omit<Login, "sudo">,
  instanceId: pulumi.Input<string>,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  return runRemotely(
    "first-boot",
    {
      login: { ...login, sudo: true },
      machine: "host:machines.server",
      script: "aws/wait_for_boot.sh",
      words: [],
      once: instanceId,
      // A machine that was started a moment ago doesn't answer yet.
      attempts: 60,
    },
    opts,
  );
}
