import * as pulumi from "@pulumi/pulumi";
import { type Machine, sshCommandLine } from "../provider/connection";
import { connectionOptions } from "../provider/ssh-options";

/**
 * Where the Docker plugin finds a machine's engine. It starts the system's ssh with these options, then `-l`, `-p` and
 * the address from the URL, and runs `docker system dial-stdio` there.
 */
export function engineOver(machine: Machine): { host: string; sshOpts: string[] } {
  const address = machine.address.includes(":") ? `[${machine.address}]` : machine.address;
  const port = machine.port === undefined ? "" : `:${machine.port}`;
  // The plugin keeps its options in the state, where nothing of this computer's is of use: the pinned key comes out of a
  // command instead of a file. A connection that somebody else has kept open may be older than the login's groups.
  const pin =
    machine.hostKey === undefined
      ? undefined
      : ["UserKnownHostsFile=/dev/null", `KnownHostsCommand=/bin/echo pinned ${machine.hostKey}`];
  const sshOpts = [...connectionOptions(machine, pin, "~"), "-o", "ControlPath=none"];
  return { host: `ssh://${machine.user}@${address}${port}`, sshOpts };
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
): pulumi.Input<pulumi.Resource>[] {
  // Loaded here and not above, for whoever needs `engineOver` alone: the SDK takes time.
  const docker: typeof import("@pulumi/docker") = require("@pulumi/docker");
  const { host, sshOpts } = engineOver(machine);
  const provider = new docker.Provider(
    `drill-${name}-docker`,
    { host: engine === undefined ? host : engine.id.apply(() => host), sshOpts },
    child,
  );
  const opts = { ...child, provider };
  const known = docker
    .getNetwork({ name: network }, { provider })
    .then(
      (found) => adopted(name, found),
      (error: Error) => withoutAnswer(name, machine, error.message),
    )
    // Thrown further it would be shown with a stack.
    .catch((error: Error) => pulumi.log.error(error.message).then(() => undefined));
  const made: pulumi.Input<pulumi.Resource>[] = [
    known.then(
      (id) =>
        new docker.Network(
          `drill-${name}-network`,
          { name: network, internal: true },
          { ...opts, ...(id && { import: id }) },
        ),
    ),
  ];
  if (image !== undefined) {
    // The CHT may run from the same image, so it stays.
    made.push(new docker.RemoteImage(`drill-${name}-image`, { name: image, keepLocally: true }, opts));
  }
  return made;
}

/**
 * The id of a network that is there, by hand or by a stack that is lost, for the stack to take over. Of its own it is the
 * same one as in the state, and says nothing. Undefined where the engine can't be asked yet.
 */
export function adopted(machine: string, found: { id?: string; name: string; internal?: boolean }): string | undefined {
  if (found.id === undefined || found.internal === true) return found.id;
  throw new pulumi.RunError(
    `${machine}: the Docker network ${found.name} is there already, and leads out of the machine; must be made with ` +
      `\`--internal\`: remove it there (\`docker network rm ${found.name}\`), and the stack makes its own`,
  );
}

/**
 * What it means that a look for the network failed: mostly that there is none. Of an engine that it can't use the plugin says
 * only that nothing answers.
 */
export function withoutAnswer(name: string, machine: Machine, message: string): undefined {
  if (!/pinging Docker server|create Docker client/.test(message)) return undefined;
  const { user } = machine;
  throw new pulumi.RunError(
    `${name}: Docker can't be used there by ${user}, as the stack keeps the drill's network and image ` +
      `(cht-backup:drill.manageDocker). Why: \`${sshCommandLine({ ...machine, sudo: false }, "docker version")}\`. Who isn't ` +
      `in the group docker may not: \`sudo usermod --append --groups docker ${user}\` on that machine (then ${user} can do ` +
      "there what root can), or set manageDocker to false",
  );
}
