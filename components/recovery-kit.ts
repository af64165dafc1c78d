/** Whether the recovery kit on paper still opens the archives. Pure; it loads nothing of Pulumi's. */
import { createHash } from "node:crypto";
import type { StackBucket, StackSettings } from "../config";
import { serverNames } from "./names";

export type Place = Pick<StackSettings, "deployment" | "server" | "cht" | "machines"> & {
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
 * Why a kit is due; undefined while the last one holds.
 * @param made `cht-backup:recoveryKit`
 */
export function kitTrouble(made: string | undefined, digest: string): string | undefined {
  const [date, known] = made?.split(" ") ?? [];
  if (known === digest) return undefined;
  return date === undefined
    ? "no recovery kit has been made: when this stack is lost, no archive can be read"
    : `the recovery kit of ${date} is out of date: the repository's key, the place of the server, the bucket or the CHT has changed, or the page itself`;
}

/** The reminder of it, in one line. */
export function kitReminder(made: string | undefined, digest: string, stack: string): string | undefined {
  const trouble = kitTrouble(made, digest);
  const what = made === undefined ? "Make one" : "Make a new one, and destroy the old";
  return trouble && `${trouble}. ${what}: npm run recovery-kit -- --stack ${stack}`;
}
