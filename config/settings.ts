/** Every setting by its full name, and what the program gets of them. */
import { z } from "zod";
import { alertsSchema } from "./alerts";
import { backupSettings, firstBackupSchema } from "./backup";
import { type Bucket, bucketSchema } from "./bucket";
import { chtSchema } from "./cht";
import { deploymentSchema } from "./deployment";
import { type Drill, drillSchema } from "./drill";
import { type Machines, machinesSetting } from "./machines";
import { passphraseSchema, recoveryKitSchema } from "./recovery";
import { retentionSchema } from "./retention";
import { type Server, serverSchema } from "./server";
import { watchSchema } from "./watch";

/** Every setting by its full name. What isn't in here is a mistake. */
export const settingsSchema = z.strictObject({
  "host:machines": machinesSetting,
  "cht-backup:deployment": deploymentSchema,
  "cht-backup:cht": chtSchema,
  "cht-backup:server": serverSchema,
  ...backupSettings,
  "cht-backup:alerts": alertsSchema,
  "cht-backup:drill": drillSchema,
  "cht-backup:bucket": bucketSchema,
  "cht-backup:retention": retentionSchema,
  "cht-backup:watch": watchSchema,
  "cht-backup:passphrase": passphraseSchema,
  "cht-backup:firstBackup": firstBackupSchema,
  "cht-backup:recoveryKit": recoveryKitSchema,
});

/** The same by names without their namespace. */
type Named<T> = { [Name in keyof T as Name extends `${string}:${infer Short}` ? Short : never]: T[Name] };
export type Values = Named<z.output<typeof settingsSchema>>;

/** How backups run. */
export type BackupSettings = Pick<Values, keyof Named<typeof backupSettings>>;

/** The settings of one stack, every default filled in. What isn't said here is as its schema says. */
export interface Settings extends Omit<Values, "server" | "drill" | "bucket"> {
  machines: Machines;
  deployment: string;
  server: Server;
  /** Addresses of apprise, in clear: for nothing but `pulumi.secret`. */
  alerts: string[];
  /** What the machines look at. `pings` in clear: for nothing but `pulumi.secret`. */
  watch: Values["watch"];
  /** The passphrase in clear, for nothing but `pulumi.secret`; undefined: one is made. */
  passphrase: string | undefined;
  /** When the last recovery kit was made and what it agrees with; undefined: none has been made. */
  recoveryKit: string | undefined;
  /** The drill; undefined where it is switched off. */
  drill: Drill | undefined;
  /** The third copy; undefined where there is none. */
  bucket: Bucket | undefined;
}
