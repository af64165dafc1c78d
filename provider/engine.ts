import * as grpc from "@grpc/grpc-js";
import { EngineClient } from "@pulumi/pulumi/proto/engine_grpc_pb";
import { LogRequest, LogSeverity } from "@pulumi/pulumi/proto/engine_pb";
import { plainLines } from "../toolchain/plain";

/**
 * Tells the operator something that is no error, among what the engine prints.
 * The engine gives a plugin its address as the first argument.
 */
export function warn(text: string): Promise<void> {
  const address = process.argv[2];
  if (address === undefined) return Promise.resolve();
  const client = new EngineClient(address, grpc.credentials.createInsecure());
  const request = new LogRequest();
  request.setSeverity(LogSeverity.WARNING);
  request.setMessage(plainLines(text));
  return new Promise((resolve) => {
    // What was to be done is done: that the engine didn't hear of it must not fail it.
    client.log(request, () => {
      client.close();
      resolve();
    });
  });
}
