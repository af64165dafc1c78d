/** Whether the recovery kit on paper still opens the archives, and the reminder to make a new one. */
import { createHash } from "node:crypto";
import * as pulumi from "@pulumi/pulumi";
import type { StackBucket, StackSettings } from "../config";
import { serverNames } from "./names";

type Place = Pick<StackSettings, "deployment" | "server"> & {
  bucket: Pick<StackBucket, "name" | "region" | "endpoint" | "prefix" | "reader"> | undefined;
};

/**
 * Digest (sha256, hexadecimal) of what a kit must agree with: the repository's exported key, which is another one after
 * a change of the passphrase too, where the server is, where the bucket is and which key may read it.
 */
export function kitDigest({ deployment, server, bucket }: Place, key: string, hostKey: string): string {
  const { repository } = serverNames(deployment, server.dataDirectory);
  const place = [key, hostKey, server.address, server.port, repository];
  // A kit of before there was a bucket stays right where there is none.
  if (bucket) place.push(bucket.name, bucket.region, bucket.endpoint ?? "", bucket.prefix, bucket.reader.accessKeyId);
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
    : `the recovery kit of ${date} is out of date: the repository's key, the server's place or the bucket has changed. Make a new one, and destroy the old: ${command}`;
}

/** Reminds in `up`, once what a kit must agree with is known. */
export function remindOfRecoveryKit(
  settings: Place & Pick<StackSettings, "recoveryKit">,
  key: pulumi.Output<string>,
  hostKey: pulumi.Output<string>,
): void {
  // A preview would say the same a second time.
  if (pulumi.runtime.isDryRun()) return;
  pulumi.all([key, hostKey]).apply(async ([knownKey, knownHostKey]) => {
    const digest = kitDigest(settings, knownKey, knownHostKey);
    const reminder = kitReminder(settings.recoveryKit, digest, pulumi.getStack());
    if (reminder !== undefined) await pulumi.log.warn(reminder);
  });
}
