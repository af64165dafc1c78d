/** A key of a bucket on a machine. */

import type * as pulumi from "@pulumi/pulumi";
import type { AccessKey } from "../config";
import * as host from "../provider";

/** A key of a bucket, in a file as the AWS command line tool has it, that root alone reads. */
export function bucketCredentials(
  name: string,
  machine: string,
  path: string,
  key: pulumi.Output<AccessKey>,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  const content = key.apply(
    ({ accessKeyId, secretAccessKey }) =>
      `[default]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`,
  );
  return new host.File(name, { machine, path, mode: "0600", content }, opts);
}
