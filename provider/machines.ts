import { z } from "zod";
import {
  hasAddress,
  hostPattern,
  isPublicKey,
  type MachineSettings,
  machineSchema,
  machinesSchema,
  type Machine as Reached,
} from "./connection";
import { mistakesIn } from "./mistakes";
import { Refused } from "./refused";
import type { Machines } from "./resource";
import { Machine } from "./ssh";

/**
 * The machines as the engine hands them over: the stack's settings in the plugin's namespace, structured ones as JSON.
 * The plugin looks before the program runs (`refresh: always`), so it has to name a mistake as well as the program.
 * @throws Refused with one line for every mistake
 */
export function readMachines(config: string | undefined): Record<string, MachineSettings> {
  const text = (JSON.parse(config || "{}") as Record<string, string>).machines;
  let given: unknown;
  try {
    given = text === undefined ? undefined : JSON.parse(text);
  } catch {
    given = text;
  }
  const mistakes = mistakesIn(z.object({ "host:machines": machinesSchema }), { "host:machines": given });
  if (mistakes.length > 0) throw new Refused(mistakes.join("\n"));
  return machinesSchema.parse(given);
}

/** What follows the identity of an instance that a look couldn't reach. */
export const GONE = ", which can't be reached";

/** Where a machine is that the stack makes itself: the input `at` of the resources on it (`Place` in `index.ts`). */
export const placeSchema = z.strictObject({
  machine: z.string().min(1),
  address: z.string().regex(hostPattern),
  user: z.string().min(1),
  hostKey: z.string().refine(isPublicKey),
  instance: z.string(),
});

export type Place = z.output<typeof placeSchema>;

/**
 * How a machine is reached. Pure.
 * @param settings its entry in `host:machines`
 * @param place where the resource says it is
 */
export function connectionTo(name: string, settings: MachineSettings | undefined, place: Place | undefined): Reached {
  if (place?.machine === name) {
    const { address, user, hostKey } = place;
    return { ...(settings ?? machineSchema.parse({})), address, user, hostKey, sudo: user !== "root" };
  }
  if (settings === undefined) {
    throw new Refused(`host:machines.${name} is not set, but a resource lives on that machine`);
  }
  if (!hasAddress(settings)) {
    throw new Refused(`host:machines.${name}.address is not set, and the stack doesn't make it`);
  }
  return settings;
}

/** Works something out at the first use. What is wrong with it stays the same error, which is told once. */
function once<T>(work: () => T): () => T {
  let done: { value: T } | { error: unknown } | undefined;
  return () => {
    if (done === undefined) {
      try {
        done = { value: work() };
      } catch (error) {
        done = { error };
      }
    }
    if ("error" in done) throw done.error;
    return done.value;
  };
}

/**
 * The machines of today's stack settings. The engine hands the plugin the settings of its own namespace
 * in `PULUMI_CONFIG`; a stack's state is asked for no address (pulumi#9085), but for that of a machine which it made.
 */
export function machinesFromSettings(environment: NodeJS.ProcessEnv): { get: MachinesAt; close: () => void } {
  const open = new Map<string, Machine>();
  const settings = once(() => readMachines(environment.PULUMI_CONFIG));
  const settingsOf = new Map<string, () => Reached>();
  const get: MachinesAt = (place) => (name) => {
    const known = settingsOf.get(name) ?? once(() => connectionTo(name, settings()[name], undefined));
    settingsOf.set(name, known);
    const connection = place?.machine === name ? connectionTo(name, settings()[name], place) : known();
    // Another instance behind the same address is another machine.
    const key = `${name} ${connection.address} ${place?.machine === name ? place.instance : ""}`;
    const machine = open.get(key) ?? new Machine(name, connection);
    open.set(key, machine);
    return machine;
  };
  return {
    get,
    close: () => {
      for (const machine of open.values()) machine.close();
    },
  };
}

/** Gives the connections to machines where they are, for a resource that says so. */
export type MachinesAt = (place: Place | undefined) => Machines;
