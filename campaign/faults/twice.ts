/** Two programs at once: two operators, or an operator and what runs at night. */
import { Problem } from "../../toolchain/progress";
import type { Fault, VictimName } from "../fault";
import { type Run, victims } from "../victims";

/** The second comes while the first one works. It comes out right, or says why not. */
function besides(second: VictimName, first: VictimName[], kind: string): Fault {
  let other: Run | undefined;
  return {
    kind,
    name: `${kind === "two operators" ? "another" : "a"} ${second} begins meanwhile`,
    victims: first,
    expect: "told",
    inject: async ({ running }) => {
      const during = running();
      other = await victims[second].start();
      return during;
    },
    after: async () => {
      const ended = await other?.ended();
      other = undefined;
      if (ended === undefined || ended.right) return;
      const unattended = victims[second].alarm !== undefined;
      if (unattended || !ended.toldOperator) throw new Problem(`the ${second} beside it: ${ended.words}`);
    },
  };
}

export const twice: Fault[] = [
  ...(["restore", "retention", "up"] as const).map((name) => besides(name, [name], "two operators")),
  besides("backup", ["drill", "retention", "restore", "up"], "two programs at once"),
  besides("drill", ["backup", "up"], "two programs at once"),
  besides("copy", ["backup", "drill", "retention"], "two programs at once"),
  besides("retention", ["backup", "copy"], "two programs at once"),
];
