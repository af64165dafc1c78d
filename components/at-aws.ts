/** What a stack makes at AWS before anything is put on machines: the server, the bucket, both or nothing. */
import * as pulumi from "@pulumi/pulumi";
import { drillsRead, type Made, type StackBucket, type StackSettings } from "../config";
import { type MonthlyCost, monthlyCost } from "./aws-costs";
import { missingAwsCredential } from "./aws-credentials";
import type { AwsServer } from "./aws-server";

export interface AtAws {
  /** Where the CHT machine reaches the server. */
  serverAddress: pulumi.Input<string>;
  /** What operations and the recovery kit have to know. */
  made: { [K in keyof Made]: pulumi.Output<NonNullable<Made[K]>> };
  /** The bucket with its writer; undefined where there is none. */
  bucket: StackBucket | undefined;
  /** What has to be there before anything is copied to the bucket. */
  before: pulumi.Resource[];
  /** The data volume; undefined where the server exists already. */
  volumeId: pulumi.Output<string> | undefined;
  /** What AWS will bill for a month; undefined where nothing is made there. */
  cost: MonthlyCost | undefined;
}

/**
 * Makes what the settings say.
 *
 * @param machine name of the server for all that is put on it
 * @throws pulumi.RunError when no credential can be found, before anything is made
 */
export function makeAtAws(machine: "server", settings: StackSettings): AtAws {
  const { deployment, server, bucket, machines } = settings;
  const missing = missingAwsCredential(settings);
  if (missing !== undefined) throw new pulumi.RunError(missing);

  // Loaded here and not above: the SDK takes time, which a stack that doesn't use it would pay at every preview.
  const { AwsBucket }: Partial<typeof import("./aws-bucket")> =
    bucket?.aws === undefined ? {} : require("./aws-bucket");
  let serverAddress: pulumi.Input<string>;
  let madeServer: AwsServer | undefined;
  if (server.aws === undefined) {
    serverAddress = server.address;
  } else {
    const { AwsServer }: typeof import("./aws-server") = require("./aws-server");
    madeServer = new AwsServer("aws-server", {
      machine,
      deployment,
      dataDirectory: server.dataDirectory,
      settings: server.aws,
      login: machines.server,
      writes: bucket?.aws,
    });
    serverAddress = server.address ?? madeServer.address;
  }
  const madeBucket =
    AwsBucket &&
    bucket?.aws &&
    new AwsBucket("aws-bucket", { deployment, bucket, settings: bucket.aws, role: madeServer?.role });
  const cost =
    server.aws === undefined && bucket?.aws === undefined
      ? undefined
      : monthlyCost({
          instanceType: server.aws?.instanceType,
          dataGibibytes: server.aws?.dataGibibytes ?? 100,
          bucket: bucket?.aws && { storageClass: bucket.storageClass },
        });
  return {
    serverAddress,
    made: {
      ...(madeServer && { serverAddress: madeServer.address }),
      ...(madeBucket && { bucketReader: madeBucket.reader }),
    },
    bucket: bucket && {
      ...bucket,
      writer: bucket.writer ?? madeBucket?.writer,
      readerKey: bucket.readerKey ?? (drillsRead(settings) ? madeBucket?.reader : undefined),
    },
    before: madeBucket?.parts ?? [],
    volumeId: madeServer?.volumeId,
    cost,
  };
}
