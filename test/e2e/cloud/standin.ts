/**
 * Stands in for a plugin that can't be had where this is tested, so that the real engine can run a stack whose server is
 * made by it. Of the real plugin's behaviour it knows what has once surprised: what is found otherwise than it was asked for,
 * and what is refused. Of what is asked for, only what a lab machine can do is done.
 */
import { appendFileSync } from "node:fs";
import * as messages from "@pulumi/pulumi/proto/provider_pb";
import * as empty from "google-protobuf/google/protobuf/empty_pb";
import { diffResponse, properties, servePlugin, toStruct } from "../../../provider/plugin";
import { changedProperties } from "../../../provider/resource";

type Values = Record<string, unknown>;

export interface StandIn {
  /** Inputs whose change means another one. Default: none. */
  replaces?: string[];
  /** Outputs that are secret besides what was given as one. */
  secret?: string[];
  create?(inputs: Values, name: string): Promise<{ id?: string; outputs?: Values }>;
  /** What an update does. Default: nothing. @returns outputs that change */
  update?(inputs: Values, outputs: Values): Promise<Values>;
  /** Whether it is still there. Default: true. */
  exists?(id: string): Promise<boolean>;
  /** Inputs as a look finds them; those of the state are empty for what is taken over. Default: as the state has them. */
  read?(id: string, inputs: Values): Values;
  remove?(id: string, outputs: Values): Promise<void>;
}

/** The plugin's own inputs, as the engine has configured it. */
export const configuration: Values = {};

/** The file to which each call is written, a line each. */
const calls = process.env.STANDIN_CALLS ?? "";
const note = (verb: string, what: string) => appendFileSync(calls, `${verb} ${what}\n`);

const typeOf = (urn: string) => urn.split("::")[2]?.split("$").at(-1) ?? "";
const nameOf = (urn: string) => urn.split("::")[3] ?? "";
/**
 * Serves resources and functions until the engine ends it.
 * @param version the plugin's that it stands in for
 */
export function serve(
  version: string,
  kinds: Record<string, StandIn>,
  functions: Record<string, (inputs: Values) => Values> = {},
): void {
  const kindOf = (urn: string): StandIn => kinds[typeOf(urn)] ?? {};
  const handlers = {
    async configure(request: messages.ConfigureRequest) {
      for (const [name, value] of Object.entries(properties(request.getArgs()).values)) {
        // Structured ones come as JSON.
        configuration[name] = typeof value === "string" && /^[[{]/.test(value) ? JSON.parse(value) : value;
      }
      const response = new messages.ConfigureResponse();
      response.setAcceptsecrets(true);
      return response;
    },
    async diffConfig(request: messages.DiffRequest) {
      const [olds, news] = [properties(request.getOldInputs()), properties(request.getNews())];
      return diffResponse(changedProperties(olds.values, news.values, news.unknown), []);
    },
    async check(request: messages.CheckRequest) {
      const response = new messages.CheckResponse();
      response.setInputs(request.getNews());
      return response;
    },
    async diff(request: messages.DiffRequest) {
      const [olds, news] = [properties(request.getOldInputs()), properties(request.getNews())];
      const ignored = request.getIgnorechangesList();
      const changed = changedProperties(olds.values, news.values, news.unknown).filter((key) => !ignored.includes(key));
      return diffResponse(
        changed,
        changed.filter((key) => kindOf(request.getUrn()).replaces?.includes(key)),
      );
    },
    async create(request: messages.CreateRequest) {
      const urn = request.getUrn();
      const kind = kindOf(urn);
      const news = properties(request.getProperties());
      note("create", nameOf(urn));
      const { id = `${nameOf(urn)}-id`, outputs = {} } = (await kind.create?.(news.values, nameOf(urn))) ?? {};
      const response = new messages.CreateResponse();
      response.setId(id);
      response.setProperties(toStruct({ ...news.values, ...outputs }, [...news.secret, ...(kind.secret ?? [])]));
      return response;
    },
    async read(request: messages.ReadRequest) {
      const response = new messages.ReadResponse();
      if ((await kindOf(request.getUrn()).exists?.(request.getId())) === false) return response;
      const [state, inputs] = [properties(request.getProperties()), properties(request.getInputs())];
      const { read } = kindOf(request.getUrn());
      const found = read === undefined ? inputs.values : read(request.getId(), inputs.values);
      response.setId(request.getId());
      response.setProperties(toStruct({ ...state.values, ...found }, [...state.secret, ...inputs.secret]));
      response.setInputs(toStruct(found, inputs.secret));
      return response;
    },
    async update(request: messages.UpdateRequest) {
      note("update", nameOf(request.getUrn()));
      const [olds, news] = [properties(request.getOlds()), properties(request.getNews())];
      const changed = await kindOf(request.getUrn()).update?.(news.values, olds.values);
      const response = new messages.UpdateResponse();
      response.setProperties(
        toStruct({ ...olds.values, ...news.values, ...changed }, [...olds.secret, ...news.secret]),
      );
      return response;
    },
    async delete(request: messages.DeleteRequest) {
      note("delete", nameOf(request.getUrn()));
      await kindOf(request.getUrn()).remove?.(request.getId(), properties(request.getProperties()).values);
      return new empty.Empty();
    },
    async invoke(request: messages.InvokeRequest) {
      const inputs = properties(request.getArgs()).values;
      const response = new messages.InvokeResponse();
      response.setReturn(toStruct({ ...inputs, ...functions[request.getTok()]?.(inputs) }, []));
      return response;
    },
  };
  servePlugin(version, handlers, () => undefined);
}
