import * as pulumi from "@pulumi/pulumi";
import type { ScriptOrder } from "../operations/script";
import { readHostFile } from "./host-files";

export interface RemoteScriptArgs {
  /** Where, and with which arguments. */
  order: pulumi.Input<ScriptOrder>;
  /** The bash script: a path inside `hosts/`. It may not read its standard input. */
  script: string;
  /** The script runs once for each value of this. */
  once: pulumi.Input<string>;
}

/**
 * Runs a script on a machine once, as root, and shows what it prints. A script that fails fails the `up`, and the next one
 * runs it again. Another login or another text of the script is no reason to run it again: then an `up` runs nothing.
 *
 * It goes the way that everything goes: by the system's ssh, started on this computer. Nothing of this computer and no
 * key is among the inputs, so they are the same for every operator, and none is in the state.
 */
export function runRemotely(name: string, args: RemoteScriptArgs, opts: pulumi.CustomResourceOptions): pulumi.Resource {
  // Loaded here and not above: the SDK takes time, which a stack that doesn't use it would pay at every preview.
  const command: typeof import("@pulumi/command") = require("@pulumi/command");
  const { order, script, once } = args;
  return new command.local.Command(
    name,
    {
      // The plugin's directory is the project's.
      create: "node --require ./toolchain/typescript.cjs operations/script.ts",
      environment: { CHT_BACKUP_SCRIPT: pulumi.jsonStringify(order) },
      stdin: readHostFile(script),
      // Without this command an update would run the script.
      update: "cat > /dev/null",
      // What the script printed isn't needed by anything that runs later, and may be long.
      addPreviousOutputInEnv: false,
      // The plugin's own: the engine's `replacementTrigger` is lost where the program runs before the refresh.
      triggers: [once],
    },
    opts,
  );
}
