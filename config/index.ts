/**
 * The settings of a stack, from Pulumi's configuration, which nothing else reads. A file for each topic has what there is,
 * its default, what is allowed and what docs/settings.md says of it (`npm run docs`).
 */
import * as pulumi from "@pulumi/pulumi";
import type { AccessKey, Bucket } from "./bucket";
import { drillsRead } from "./drill";
import { readSettings } from "./read";
import type { Settings } from "./settings";

export type { BucketAws } from "./aws-bucket";
export { SERVER_ADMIN } from "./aws-server";
export type { AccessKey, Bucket } from "./bucket";
export { type Drill, drillsRead } from "./drill";
export { isLocated, type Located, type Made, withMade } from "./made";
export { readSettings } from "./read";
export { type BackupSettings, type Settings, settingsSchema } from "./settings";

/** The settings as resources take them: what is secret is Pulumi's secret. */
export interface StackSettings extends Omit<Settings, "alerts" | "passphrase" | "bucket" | "watch"> {
  /** What each machine looks at; without the addresses, which are secret. */
  watch: Omit<Settings["watch"], "pings">;
  pings: pulumi.Output<Settings["watch"]["pings"]>;
  alerts: pulumi.Output<string[]>;
  passphrase: pulumi.Output<string> | undefined;
  bucket: StackBucket | undefined;
}

export interface StackBucket extends Omit<Bucket, "writer" | "reader"> {
  /** Undefined where the stack makes the bucket, or the machine's role writes. */
  writer: pulumi.Output<AccessKey> | undefined;
  reader: Pick<AccessKey, "accessKeyId"> | undefined;
  /** The whole key for reading, where drills are made from the bucket; undefined elsewhere, too. */
  readerKey: pulumi.Output<AccessKey> | undefined;
}

/** Reads this stack's settings. Throws all mistakes at once, as a `RunError`: Pulumi prints it without a stack trace. */
export function loadSettings(): StackSettings {
  // The names of secret keys have no public function in the SDK; the engine hands them to the program in this variable.
  const secretKeys: string[] = JSON.parse(process.env.PULUMI_CONFIG_SECRET_KEYS || "[]");
  const all = readSettings(pulumi.runtime.allConfig(), pulumi.getStack(), secretKeys);
  const { alerts, passphrase, bucket, watch, ...settings } = all;
  const { pings, ...watched } = watch;
  return {
    ...settings,
    watch: watched,
    pings: pulumi.secret(pings),
    alerts: pulumi.secret(alerts),
    passphrase: passphrase === undefined ? undefined : pulumi.secret(passphrase),
    bucket: bucket === undefined ? undefined : withoutSecrets(bucket, drillsRead(settings)),
  };
}

/** The reader's secret is no business of a stack, unless drills read: else only restores and the recovery kit use it. */
function withoutSecrets({ writer, reader, ...bucket }: Bucket, drillReads: boolean): StackBucket {
  return {
    ...bucket,
    reader: reader && { accessKeyId: reader.accessKeyId },
    readerKey: drillReads && reader ? pulumi.secret(reader) : undefined,
    writer: writer && pulumi.secret(writer),
  };
}
