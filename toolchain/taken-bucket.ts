/** What to say where AWS doesn't make the bucket, because there is one of that name. Pure. */
import { errorsIn } from "./missing-plugin";

/** What S3 calls it. In us-east-1 an account's own bucket may be told as anybody's. */
const codes = /\bBucketAlready(OwnedByYou|Exists)\b/;

/**
 * The advice for an error among the CLI's events; undefined where there is none of these.
 * @param events a JSON text a line
 */
export function bucketAdvice(events: string): string | undefined {
  const message = errorsIn(events).find((text) => codes.test(text));
  if (message === undefined) return undefined;
  const [, name] = /\bBucket \(([a-z0-9.-]+)\)/.exec(message) ?? [];
  const bucket = name === undefined ? "The bucket" : `The bucket ${name}`;
  const mine = codes.exec(message)?.[1] === "OwnedByYou";
  return `
${bucket} ${mine ? "is in your account already" : "exists already, in your account or in another one"}. What to do:
  - where it is this deployment's, for instance of a stack that was destroyed or is lost, take it:
    \`cht-backup:bucket.aws.adopt: true\`. It must have been made with object lock, as this program does.
  - else choose another \`cht-backup:bucket.name\`.
`;
}
