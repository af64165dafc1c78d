/** Whether the recovery kit on paper still opens the archives, and the reminder to make a new one. */
import { createHash } from "node:crypto";
import * as pulumi from "@pulumi/pulumi";
import { type Made, type StackBucket, type StackSettings, withMade } from "../config";
import { serverNames } from "./names";

type Place = Pick<StackSettings, "deployment" | "server" | "cht" | "machines"> & {
  bucket: Pick<StackBucket, "name" | "region" | "endpoint" | "pathStyle" | "prefix" | "reader"> | undefined;
};

/**
 * Digest (sha256, hexadecimal) of what a kit must agree with: the repository's exported key, which is another one after
 * a change of the passphrase too, where the server is, where the bucket is and which key may read it, and the CHT's own
 * places, which the commands put its files back to.
 */
export function kitDigest({ deployment, server, bucket, cht, machines }: Place, key: string, hostKey: string): string {
  const { repository } = serverNames(deployment, server.dataDirectory);
  const { home, composeProject, couchdbData } = cht;
  const place: unknown[] = [key, hostKey, server.address, server.port, machines.server.address, repository];
  place.push(home, composeProject, couchdbData);
  if (bucket) {
    const { name, region, endpoint, pathStyle, prefix, reader } = bucket;
    place.push(name, region, endpoint, pathStyle, prefix, reader?.accessKeyId);
  }
  return createHash("sha256").update(JSON.stringify(place)).digest("hex");
}

/**
 * The reminder that a kit is due, in one line; undefined while the last one holds.
 * @param made `cht-backup:recoveryKit`
 */
export function kitReminder(made: string | undefined, digest: string, stack: string): string | undefined {
  const command = `npm run recovery-kit -- --stack ${stack}`;
  const [date, known] = made?.split(" ") ?? [];
  if (known === digest) return undefined;
  return date === undefined
    ? `no recovery kit has been made: when this stack is lost, no archive can be read. Make one: ${command}`
    : `the recovery kit of ${date} is out of date: the repository's key, the place of the server, the bucket or the CHT has changed, or the page itself. Make a new one, and destroy the old: ${command}`;
}

/** Reminds in `up`, once what a kit must agree with is known. */
export function remindOfRecoveryKit(
  settings: Place & Pick<StackSettings, "recoveryKit">,
  key: pulumi.Output<string>,
  hostKey: pulumi.Output<string>,
  made: { [K in keyof Made]: pulumi.Input<Made[K]> },
): void {
  // A preview would say the same a second time.
  if (pulumi.runtime.isDryRun()) return;
  pulumi.all([key, hostKey, pulumi.output(made)]).apply(async ([knownKey, knownHostKey, knownMade]) => {
    const digest = kitDigest(withMade(settings, knownMade), knownKey, knownHostKey);
    const reminder = kitReminder(settings.recoveryKit, digest, pulumi.getStack());
    if (reminder !== undefined) await pulumi.log.warn(reminder);
  });
}
