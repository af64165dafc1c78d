import { z } from "zod";
import { Refused } from "./refused";
import { type Inputs, type Kind, machineName } from "./resource";
import { type Answer, decode, encode } from "./shell";

interface UnitInputs extends Inputs {
  unit: string;
  content: string;
  enabled?: boolean | string;
  active?: boolean | string;
  restartOn: string[];
  overrides: string[];
  reloaded: boolean;
}

/**
 * What systemd says of a unit, as the inputs that would have made it. Properties that nobody asked for are left out.
 * @returns undefined where the unit has no file
 */
export function observeUnit(answer: Answer, wanted: UnitInputs): UnitInputs | undefined {
  const [line = "", content] = answer.output.split("\n");
  const facts = new Map(line.split(";").map((fact) => fact.split(/=(.*)/s) as [string, string]));
  if (!content) return undefined;
  const state = facts.get("UnitFileState") ?? "";
  const running = facts.get("ActiveState") ?? "";
  const observed: UnitInputs = {
    ...wanted,
    content: decode(content),
    // Drop-ins for this unit that an administrator made; those for every unit, or of a package, aren't about it.
    overrides: (facts.get("DropInPaths") ?? "")
      .split(" ")
      .filter(
        (path) => /^\/(etc|run)\/systemd\/system(\.control)?\//.test(path) && path.includes(`/${wanted.unit}.d/`),
      ),
    reloaded: facts.get("NeedDaemonReload") !== "yes",
  };
  if (wanted.enabled !== undefined) {
    observed.enabled = state === "enabled" ? true : state === "disabled" ? false : state;
  }
  if (wanted.active !== undefined) {
    observed.active = running === "active" ? true : running === "inactive" ? false : running;
  }
  return observed;
}

/** A systemd unit: see `Unit` in `index.ts`. */
export const unit: Kind = {
  inputs: z.strictObject({
    machine: machineName,
    unit: z
      .string()
      .regex(
        /^[A-Za-z0-9:_.@-]+\.(service|timer|path|socket|target|mount)$/,
        "must be a unit's name with its type, such as example.timer",
      ),
    content: z.string().min(1),
    enabled: z.boolean().optional(),
    active: z.boolean().optional(),
    restartOn: z.array(z.string()).default([]),
    // Observed, not chosen: nobody has put a drop-in over the unit, and systemd has read its newest text.
    overrides: z.array(z.string()).max(0).default([]),
    reloaded: z.literal(true).default(true),
  }),
  identity: ["machine", "unit"],
  async read(machines, inputs) {
    const wanted = inputs as UnitInputs;
    const answer = await machines(wanted.machine).read({
      library: "unit",
      name: "unit_read",
      arguments: [wanted.unit],
    });
    if (answer.exitCode !== 0) throw new Refused(`${wanted.machine}: ${wanted.unit}: ${answer.output.trim()}`);
    const observed = observeUnit(answer, wanted);
    return observed && { inputs: observed, outputs: {} };
  },
  async apply(machines, inputs, before) {
    const { machine, unit, content, enabled, active, restartOn } = inputs as UnitInputs;
    const old = before?.inputs as UnitInputs | undefined;
    // As they are named on the machine: the state has their names as they may be shown.
    const overridden = old !== undefined && old.overrides.length > 0;
    const found = overridden ? await this.read(machines, inputs, {}) : undefined;
    const { overrides = [] } = (found?.inputs ?? {}) as Partial<UnitInputs>;
    const restart = old !== undefined && (old.content !== content || old.restartOn.join("\n") !== restartOn.join("\n"));
    await machines(machine).act({
      library: "unit",
      name: "unit_apply",
      arguments: [unit, encode(content), `${enabled ?? ""}`, `${active ?? ""}`, `${restart}`, ...overrides],
    });
    return {};
  },
  async remove(machines, inputs) {
    const { machine, unit } = inputs as UnitInputs;
    await machines(machine).act({ library: "unit", name: "unit_remove", arguments: [unit] });
  },
  id: ({ machine, unit }) => `${machine}:${unit}`,
};
