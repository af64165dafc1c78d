import type * as pulumi from "@pulumi/pulumi";
import type { Machine } from "../provider/connection";
import { connectionOptions } from "../provider/ssh";

/**
 * Where the Docker plugin finds a machine's engine. It starts the system's ssh with these options, then `-l`, `-p` and
 * the address from the URL, and runs `docker system dial-stdio` there.
 */
export function engineOver(machine: Machine): { host: string; sshOpts: string[] } {
  const address = machine.address.includes(":") ? `[${machine.address}]` : machine.address;
  const port = machine.port === undefined ? "" : `:${machine.port}`;
  // The plugin keeps its options in the state, where the path of a file that is gone tomorrow is of no use: the pinned
  // key comes out of a command.
  const pin =
    machine.hostKey === undefined
      ? undefined
      : ["UserKnownHostsFile=/dev/null", `KnownHostsCommand=/bin/echo pinned ${machine.hostKey}`];
  return { host: `ssh://${machine.user}@${address}${port}`, sshOpts: connectionOptions(machine, pin) };
}

/**
 * Keeps what a drill's database needs in the machine's Docker engine: a network that leads no further, and the image where
 * one is named. The resources carry the machine's name, so that each goes by the plugin that made it.
 *
 * The plugin can't be had where this is tested: its inputs are asserted, and the way over SSH is tried without it.
 *
 * @param image NAME@sha256:…; undefined: the machine has the one that the archive names
 * @param engine what installs the engine; before that the plugin can't look, so its address is unknown until then
 */
export function keepDocker(
  name: string,
  machine: Machine,
  network: string,
  image: string | undefined,
  engine: pulumi.CustomResource | undefined,
  child: pulumi.CustomResourceOptions,
): pulumi.Resource[] {
  // Loaded here and not above, for whoever needs `engineOver` alone: the SDK takes time.
  const docker: typeof import("@pulumi/docker") = require("@pulumi/docker");
  const { host, sshOpts } = engineOver(machine);
  const provider = new docker.Provider(
    `drill-${name}-docker`,
    { host: engine === undefined ? host : engine.id.apply(() => host), sshOpts },
    child,
  );
  const opts = { ...child, provider };
  const made: pulumi.Resource[] = [
    new docker.Network(`drill-${name}-network`, { name: network, internal: true }, opts),
  ];
  if (image !== undefined) {
    // The CHT may run from the same image, so it stays.
    made.push(new docker.RemoteImage(`drill-${name}-image`, { name: image, keepLocally: true }, opts));
  }
  return made;
}
