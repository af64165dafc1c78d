/** What `pulumi destroy` says of what stays: the CLI shows the outputs that go with the stack, and what stays is one of them. */
import { commandAt } from "./missing-plugin";

/** Whether the arguments are those of a `destroy`. */
export const destroys = (args: readonly string[]) => /^(destroy|down|dn)$/.test(args[commandAt(args)] ?? "");

/** The arguments without the CLI's own list of outputs, in which what stays has the minus sign of what goes. */
export function withoutOutputs(args: readonly string[]): string[] {
  return destroys(args) && !args.some((arg) => arg.startsWith("--suppress-outputs"))
    ? [...args, "--suppress-outputs"]
    : [...args];
}

/**
 * What stays after a `destroy`, in words for the operator; undefined: nothing was destroyed. Pure.
 * @param events the CLI's: a JSON text a line
 */
export function keptText(events: string): string | undefined {
  let kept: Record<string, unknown> | undefined;
  for (const line of events.split("\n")) {
    try {
      const { metadata, planning } = JSON.parse(line).resOutputsEvent ?? {};
      const gone = metadata?.op === "delete" && metadata.type === "pulumi:pulumi:Stack" && !planning;
      if (gone && typeof metadata.old?.outputs?.kept === "object") kept = metadata.old.outputs.kept;
    } catch {
      // The last line of a CLI that was killed.
    }
  }
  const lines = Object.values(kept ?? {}).filter((text) => typeof text === "string");
  if (lines.length === 0) return undefined;
  return `
Kept, on purpose; a stack that is made again for the same deployment goes on with it:
${lines.map((text) => `  ${text}`).join("\n")}
What of this can go, when no archive is needed any more, is yours to delete: docs/how-it-works.md, "What stays".
`;
}
