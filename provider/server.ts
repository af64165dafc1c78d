/** What the plugin `host` does with its resources when the engine asks: see `plugin.ts` for the rest of the protocol. */

import * as messages from "@pulumi/pulumi/proto/provider_pb";
import * as empty from "google-protobuf/google/protobuf/empty_pb";
import { warn } from "./engine";
import { kinds } from "./kinds";
import { GONE, type MachinesAt, machinesFromSettings, type Place, placeSchema } from "./machines";
import { diffResponse, properties, servePlugin, toStruct } from "./plugin";
import { type Properties, plainDrift, plainOutputs, scrub } from "./properties";
import { Refused, Unreachable } from "./refused";
import { changedProperties, checkInputs, type Inputs, type Kind, type Observed } from "./resource";
import { look, type Question } from "./survey";

const NAMESPACE = "host:index:";
const surveyToken = `${NAMESPACE}survey`;

/** The kind of the resource that a URN names. */
function kindOf(urn: string): Kind {
  const type = urn.split("::")[2]?.split("$").at(-1) ?? "";
  const kind = type.startsWith(NAMESPACE) ? kinds[type.slice(NAMESPACE.length)] : undefined;
  if (kind === undefined) throw new Refused(`the plugin has no resource of type ${type}`);
  return kind;
}

/** Which of the properties are secret: those that arrived so, and those that always are. */
function secrets(kind: Kind, ...from: Properties[]): Set<string> {
  return new Set([...(kind.secret ?? []), ...from.flatMap((properties) => [...properties.secret])]);
}

/** Splits a resource's state into the inputs it was made with and what the machine decided. */
function split(kind: Kind, state: Record<string, unknown>): { inputs: Inputs; outputs: Record<string, unknown> } {
  const entries = Object.entries(state);
  const isInput = ([key]: [string, unknown]) => key in kind.inputs.shape;
  return {
    inputs: Object.fromEntries(entries.filter(isInput)) as Inputs,
    outputs: Object.fromEntries(entries.filter((entry) => !isInput(entry))),
  };
}

/** What the state holds of a resource beside its inputs: see `Kind.long`. */
function stateOf(kind: Kind, inputs: Record<string, unknown>, outputs: Record<string, unknown>) {
  const short = Object.entries(inputs).filter(([key]) => !kind.long?.includes(key));
  return { ...Object.fromEntries(short), ...outputs };
}

/** What a survey found; nothing where the machine can't be asked. */
async function surveyed<T>(survey: () => Promise<T[]> | undefined): Promise<T[]> {
  try {
    return (await survey()) ?? [];
  } catch (error) {
    if (error instanceof Refused || error instanceof Unreachable) return [];
    throw error;
  }
}

/** Takes a resource's place from its properties, which are its kind's business. */
function withoutPlace<V extends Record<string, unknown>>({ at, ...values }: V): { at: Place | undefined; values: V } {
  return { at: at as Place | undefined, values: values as unknown as V };
}

export function handlers(machinesAt: MachinesAt) {
  const told = new WeakSet<object>();
  const warnedOf = new WeakSet<object>();
  /**
   * Whether an error has been given to the engine before: what is wrong with a machine, or with the settings of it, comes
   * back for all that is on it, and one error says it. What a survey kept to itself wasn't given.
   */
  const again = (error: unknown): boolean => {
    if (!(error instanceof Refused)) return false;
    const before = told.has(error);
    told.add(error);
    return before;
  };
  /** Runs a change. */
  const change = <T>(shown: Properties[], machine: string, operation: () => Promise<T>) =>
    withSecretsHidden(shown, async () => {
      try {
        return await operation();
      } catch (error) {
        throw again(error) ? new Refused(`${machine}: not done, for the reason that another error gives`) : error;
      }
    });
  return {
    async check(request: messages.CheckRequest) {
      const kind = kindOf(request.getUrn());
      const news = properties(request.getNews());
      const { at, values } = withoutPlace(news.values);
      const checked = checkInputs(kind, values, new Set([...news.unknown].filter((key) => key !== "at")));
      const inputs = at === undefined ? checked.inputs : { ...checked.inputs, at };
      const failures = [...checked.failures];
      if (at !== undefined && !news.unknown.has("at") && !placeSchema.safeParse(at).success) {
        failures.push({ property: "at", reason: "must say machine, address, user, hostKey and instance" });
      }
      if (failures.length === 0 && news.unknown.size === 0 && kind.survey !== undefined) {
        const { values: olds } = withoutPlace(properties(request.getOlds()).values);
        const before = Object.keys(olds).length === 0 ? undefined : (olds as Inputs);
        failures.push(...(await surveyed(() => kind.survey?.(machinesAt(at), checked.inputs as Inputs, before))));
      }
      const response = new messages.CheckResponse();
      response.setInputs(toStruct(inputs, secrets(kind, news)));
      response.setFailuresList(
        failures.map(({ property, reason }) => {
          const failure = new messages.CheckFailure();
          // The engine prints the value of a property that is named here.
          if (news.secret.has(property) || kind.secret?.includes(property))
            failure.setReason(`${property} ${scrub(reason, news)}`);
          else {
            failure.setProperty(property);
            failure.setReason(scrub(reason, news));
          }
          return failure;
        }),
      );
      return response;
    },

    async diff(request: messages.DiffRequest) {
      const kind = kindOf(request.getUrn());
      const olds = properties(request.getOldInputs());
      const news = properties(request.getNews());
      const changed = changedProperties(olds.values, news.values, news.unknown);
      return diffResponse(
        changed,
        changed.filter((property) => kind.identity.includes(property)),
      );
    },

    async create(request: messages.CreateRequest) {
      const kind = kindOf(request.getUrn());
      const news = properties(request.getProperties());
      return change([news], String(news.values.machine), async () => {
        const { at, values } = withoutPlace(news.values as Inputs);
        const hidden = secrets(kind, news);
        const outputs = plainOutputs(await kind.apply(machinesAt(at), values, undefined), hidden);
        const response = new messages.CreateResponse();
        response.setId(kind.id(values));
        response.setProperties(toStruct(stateOf(kind, { ...values, at }, outputs), hidden));
        return response;
      });
    },

    async read(request: messages.ReadRequest) {
      const kind = kindOf(request.getUrn());
      const state = properties(request.getProperties());
      const recorded = properties(request.getInputs());
      return withSecretsHidden([state, recorded], async () => {
        const { at, values } = withoutPlace(state.values);
        const { inputs: recordedInputs, outputs: recordedOutputs } = split(kind, values);
        const inputs = { ...recordedInputs, ...withoutPlace(recorded.values).values } as Inputs;
        let observed: Observed | undefined;
        let seen = at;
        try {
          observed = await kind.read(machinesAt(at), inputs, recordedOutputs);
        } catch (error) {
          observed = { inputs, outputs: recordedOutputs };
          if (error instanceof Unreachable && error.machine === at?.machine) {
            // Whether a machine that the stack makes is still there is told by the resource that made it. Where it has to be made
            // anew, everything on it has to be, too: so this is drift, and no reason to end before that can be repaired.
            seen = { ...at, instance: at.instance.endsWith(GONE) ? at.instance : `${at.instance}${GONE}` };
            if (!warnedOf.has(error)) {
              warnedOf.add(error);
              await warn(
                `${error.message}. Nothing on it was looked at. The stack makes this machine: is it still there, and does its ` +
                  "firewall let you in?",
              );
            }
          } else if (!again(error)) {
            // It fails the whole look; what is on record stands in for the rest of the machine, which nobody goes on with.
            throw error;
          }
        }
        const response = new messages.ReadResponse();
        if (observed === undefined) return response;
        const hidden = secrets(kind, state, recorded);
        const inputsNow = plainDrift(observed.inputs, inputs, hidden);
        const outputsNow = plainOutputs(observed.outputs, hidden);
        response.setId(request.getId());
        response.setProperties(toStruct(stateOf(kind, { ...inputsNow, at: seen }, outputsNow), hidden));
        response.setInputs(toStruct({ ...inputsNow, at: seen }, hidden));
        return response;
      });
    },

    async update(request: messages.UpdateRequest) {
      const kind = kindOf(request.getUrn());
      const olds = properties(request.getOlds());
      const news = properties(request.getNews());
      return change([olds, news], String(news.values.machine), async () => {
        const { at, values } = withoutPlace(news.values as Inputs);
        const before = split(kind, withoutPlace(olds.values).values);
        const hidden = secrets(kind, news);
        const outputs = plainOutputs(await kind.apply(machinesAt(at), values, before), hidden);
        const response = new messages.UpdateResponse();
        response.setProperties(toStruct(stateOf(kind, { ...values, at }, outputs), hidden));
        return response;
      });
    },

    async invoke(request: messages.InvokeRequest) {
      if (request.getTok() !== surveyToken) throw new Refused(`the plugin has no function ${request.getTok()}`);
      const { questions } = properties(request.getArgs()).values as unknown as { questions: Question[] };
      const response = new messages.InvokeResponse();
      response.setReturn(toStruct({ answers: await look(machinesAt(undefined), questions) }, []));
      return response;
    },

    async delete(request: messages.DeleteRequest) {
      const kind = kindOf(request.getUrn());
      const state = properties(request.getProperties());
      return change([state], String(state.values.machine), async () => {
        const { at, values } = withoutPlace(state.values);
        const { inputs } = split(kind, values);
        try {
          await kind.remove(machinesAt(at), inputs);
        } catch (error) {
          // The look before this has told that the machine can't be reached. Where it is gone, `deletedWith` no longer holds.
          const gone = error instanceof Unreachable && error.machine === at?.machine && at.instance.endsWith(GONE);
          if (!gone) throw error;
          await warn(`${kind.id(inputs)} couldn't be removed: it went with its machine, or is still there`);
        }
        return new empty.Empty();
      });
    },
  };
}

/** Runs an operation; whatever it says when it fails is shown without the resource's secrets. */
async function withSecretsHidden<T>(properties: Properties[], operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    if (error instanceof Refused) throw new Refused(scrub(error.message, ...properties));
    throw new Error(scrub(error instanceof Error ? (error.stack ?? error.message) : String(error), ...properties));
  }
}

/** Starts the plugin. */
export function serve(): void {
  const machines = machinesFromSettings(process.env);
  servePlugin("0.1.0", handlers(machines.get), machines.close);
}
