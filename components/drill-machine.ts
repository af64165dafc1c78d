import * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { foundations, type Programs, type ProgramsArgs, programs } from "./programs";
import { type SshAccessArgs, sshAccess } from "./ssh-access";

export interface DrillMachineArgs extends Omit<SshAccessArgs & ProgramsArgs, "rename"> {
  /** Whether drills ask the server at all: without, the machine gets no key for it. */
  fromServer: boolean;
  /** Who logs in for the Docker plugin; undefined: it isn't used. */
  dockerUser: string | undefined;
}

/**
 * What a machine other than the CHT machine needs to drill: borg, a way to the repository with a key of its own where
 * drills take it from the server, a Docker engine, the programs. Its resources carry the machine's name, so that another machine gets new ones and this one is
 * cleared after that.
 */
export class DrillMachine extends pulumi.ComponentResource {
  /** For the server, to let in; none where drills don't ask it. */
  readonly publicKeys: pulumi.Output<string>[];
  readonly programs: Programs;
  /** Where settings are. */
  readonly directory: pulumi.Resource;
  /** Docker's Compose, after the engine. */
  readonly compose: pulumi.CustomResource;
  /** The last of what the Docker plugin needs there. */
  readonly engine: pulumi.CustomResource;

  constructor(name: string, args: DrillMachineArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:DrillMachine", name, {}, opts);
    const { machine } = args;
    const rename = (part: string) => `drill-${machine}-${part.replace(/^cht-/, "")}`;
    const child = { parent: this };

    const { borg, directory } = foundations({ ...args, rename }, child);
    this.publicKeys = args.fromServer ? [sshAccess({ ...args, rename }, directory, child).key.publicKey] : [];
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
    // Whoever may use sudo gains nothing by it.
    this.engine =
      args.dockerUser === undefined || args.dockerUser === "root"
        ? this.compose
        : new host.GroupMember(
            rename("docker-user"),
            { machine, user: args.dockerUser, group: "docker" },
            { ...child, dependsOn: this.compose, retainOnDelete: true },
          );
    this.programs = programs({ ...args, rename }, { ...child, dependsOn: [borg, directory] });
    this.directory = directory;
    this.registerOutputs({ publicKeys: this.publicKeys });
  }
}
