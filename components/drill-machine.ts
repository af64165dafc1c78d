import * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { type Programs, type ProgramsArgs, programs, type WayArgs, wayToRepository } from "./archive-client";

export type DrillMachineArgs = Omit<WayArgs & ProgramsArgs, "rename">;

/**
 * What a machine other than the CHT machine needs to drill: a way to the repository with a key of its own, a Docker
 * engine, the programs. Its resources carry the machine's name, so that another machine gets new ones and this one is
 * cleared after that.
 */
export class DrillMachine extends pulumi.ComponentResource {
  /** For the server, to let in. */
  readonly publicKey: pulumi.Output<string>;
  readonly programs: Programs;
  /** Where settings are. */
  readonly directory: pulumi.Resource;
  /** Docker's Compose, after the engine. */
  readonly compose: pulumi.CustomResource;

  constructor(name: string, args: DrillMachineArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:DrillMachine", name, {}, opts);
    const { machine } = args;
    const rename = (part: string) => `drill-${machine}-${part.replace(/^cht-/, "")}`;
    const child = { parent: this };

    const { borg, directory, key } = wayToRepository({ ...args, rename }, child);
    // The distribution's, where there is none: Debian has the client in a package of its own, Ubuntu hasn't, and each has
    // Compose under another name than docker.com.
    const engine = new host.Packages(
      rename("docker-engine"),
      { machine, packages: ["docker.io", "docker-cli|docker.io"], unless: "command -v docker" },
      { ...child, dependsOn: borg },
    );
    this.compose = new host.Packages(
      rename("docker-compose"),
      {
        machine,
        packages: ["docker-compose-plugin|docker-compose-v2|docker-compose"],
        unless: "docker compose version",
      },
      { ...child, dependsOn: engine },
    );
    this.programs = programs({ ...args, rename }, { ...child, dependsOn: [borg, directory] });
    this.publicKey = key.publicKey;
    this.directory = directory;
    this.registerOutputs({ publicKey: this.publicKey });
  }
}
