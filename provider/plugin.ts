/**
 * The gRPC service of a plugin, on the protocol that the SDK publishes: what is the same for any resources. The SDK's own
 * server for providers in Node is not used: it keeps the old inputs from `diff`, and prints a stack trace beside every
 * refusal (`provider/server.js` of SDK 3.248).
 */
import * as grpc from "@grpc/grpc-js";
import * as pluginMessages from "@pulumi/pulumi/proto/plugin_pb";
import * as services from "@pulumi/pulumi/proto/provider_grpc_pb";
import * as messages from "@pulumi/pulumi/proto/provider_pb";
import * as empty from "google-protobuf/google/protobuf/empty_pb";
import { Struct } from "google-protobuf/google/protobuf/struct_pb";
import { plainLines } from "../toolchain/plain";
import { type Properties, unwrap, wrap } from "./properties";

/** Properties as the engine sent them. */
export function properties(struct: Struct | undefined): Properties {
  return unwrap(struct?.toJavaScript() as Record<string, unknown> | undefined);
}

/** Values for the engine, those of the names in `secret` as secrets. */
export function toStruct(values: Record<string, unknown>, secret: Iterable<string>): Struct {
  return Struct.fromJavaScript(wrap(values, secret) as Record<string, never>);
}

/** What a look at two sets of inputs came to. */
export function diffResponse(changed: string[], replaces: string[]): messages.DiffResponse {
  const response = new messages.DiffResponse();
  const { DIFF_NONE, DIFF_SOME } = messages.DiffResponse.DiffChanges;
  response.setChanges(changed.length === 0 ? DIFF_NONE : DIFF_SOME);
  response.setDiffsList(changed);
  response.setReplacesList(replaces);
  return response;
}

/** What a plugin answers whatever its resources are. */
function aboutItself(version: string) {
  return {
    async configure() {
      const response = new messages.ConfigureResponse();
      response.setAcceptsecrets(true);
      response.setAcceptresources(false);
      response.setAcceptoutputs(false);
      response.setSupportspreview(false);
      return response;
    },

    async checkConfig(request: messages.CheckRequest) {
      const response = new messages.CheckResponse();
      response.setInputs(request.getNews());
      return response;
    },

    async diffConfig() {
      // The settings of a plugin are connections: a new address is no reason to replace anything.
      return diffResponse([], []);
    },

    async getPluginInfo() {
      const response = new pluginMessages.PluginInfo();
      response.setVersion(version);
      return response;
    },

    async getSchema() {
      const response = new messages.GetSchemaResponse();
      response.setSchema("{}");
      return response;
    },

    async attach() {
      return new empty.Empty();
    },

    async cancel() {
      return new empty.Empty();
    },
  };
}

/**
 * A gRPC handler from a function that returns the response; what it throws becomes the error's text, which the engine
 * prints as it is: what machines said in it is made plain.
 */
export function answering<Q, R>(handler: (request: Q) => Promise<R>): grpc.handleUnaryCall<Q, R> {
  return (call, callback) => {
    handler(call.request).then(
      (response) => callback(null, response),
      (error: Error) => callback({ code: grpc.status.UNKNOWN, details: plainLines(error.message) }),
    );
  };
}

/**
 * Starts a plugin and prints the port, which the engine waits for as the first line.
 *
 * @param version the plugin's
 * @param handlers what it does with resources, by the protocol's names
 * @param close lets go of what it holds when the engine ends it, or is gone
 */
export function servePlugin(version: string, handlers: object, close: () => void): void {
  const stop = () => {
    close();
    process.exit(0);
  };
  // The engine keeps a terminal's Ctrl-C from its plugins, and ends them with this signal when it is done.
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  process.on("exit", close);
  // An engine that was killed can't end its plugins; without it, this process has nobody to serve.
  const engine = process.ppid;
  setInterval(() => {
    if (process.ppid !== engine) stop();
  }, 1000).unref();

  const implementation: grpc.UntypedServiceImplementation = {};
  for (const [name, handler] of Object.entries({ ...aboutItself(version), ...handlers })) {
    // One type for all: each handler gets the request of its own method, by the service's definition.
    implementation[name] = answering(handler as (request: unknown) => Promise<unknown>);
  }
  const server = new grpc.Server({ "grpc.max_receive_message_length": 400 * 1024 * 1024 });
  server.addService(services.ResourceProviderService, implementation);
  server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
    if (error !== null) {
      console.error(error.message);
      process.exit(1);
    }
    console.log(port);
  });
}
