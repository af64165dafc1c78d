import * as pulumi from "@pulumi/pulumi";
import type { Settings } from "../config";
import { fileOf } from "../contract";
import * as host from "../provider";
import { alertAddresses, deliverAlertsLater } from "./alerts";
import { readHostFile, renderHostFile } from "./host-files";
import { serverNames } from "./names";
import { programTree } from "./programs";
import { recoverProgram } from "./recover-program";

export interface RepositoryGuardArgs {
  /** Name of the server in `host:machines`. */
  machine: string;
  deployment: string;
  /** Directory that holds the repositories of all deployments. */
  dataDirectory: string;
  /** What a client may do at most: `cht-backup:server.limits`. */
  limits: Settings["server"]["limits"];
  /** Addresses of apprise, a secret. */
  alerts: pulumi.Output<string[]>;
  /** What has to be there before: borg, the account, the repository's directory. */
  before: pulumi.Resource[];
}

/** The only command that the key of the CHT machine may run on the server: the guard before borg's own server. */
export function serveCommand(deployment: string): string {
  // Neither depends on where the data is.
  const names = serverNames(deployment, "");
  return `/usr/bin/python3 -I ${names.package} guard ${names.settings}/repository.json`;
}

/** How long a client that wants to write waits until the last backup is sealed, in seconds. It takes a moment. */
const SEAL_WAIT = 60;

/**
 * What keeps archives from a client that speaks borg's protocol by hand: the guard, which stands before borg; seals, which
 * make root's what is finished; and the audit, which reads the log and raises the alarm. Everything here is root's.
 */
export class RepositoryGuard extends pulumi.ComponentResource {
  constructor(name: string, args: RepositoryGuardArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cht-backup:index:RepositoryGuard", name, {}, opts);
    const { machine, deployment } = args;
    const { user, repository, programs, settings, state, ...units } = serverNames(deployment, args.dataDirectory);
    const [DEPLOYMENT, REPOSITORY_PATH] = [deployment, repository];
    const child = { parent: this, dependsOn: args.before };

    const python = new host.Packages("server-python", { machine, packages: ["python3-venv"] }, child);
    const directory = new host.Directory("server-settings-directory", { machine, path: settings }, child);
    const programDirectory = new host.Directory("server-program-directory", { machine, path: programs }, child);
    const inside = { ...child, dependsOn: directory };
    const packageTree = programTree("server-programs", machine, units.package, {
      ...child,
      dependsOn: [...args.before, programDirectory],
      // A borg that the guard doesn't know would be told first by a backup that fails.
      validate: `/usr/bin/python3 -I -B ${units.package} guard --check`,
    });
    const environment = new host.PythonEnvironment(
      "server-alert-environment",
      { machine, path: `${programs}/venv`, requirements: readHostFile("server/alert-requirements.txt") },
      { parent: this, dependsOn: [python, programDirectory] },
    );
    const repositorySettings = new host.File(
      "server-repository-settings",
      {
        machine,
        path: `${settings}/repository.json`,
        content: fileOf("repository", {
          deployment,
          user,
          repository,
          state,
          spool: `${state}/spool`,
          nonce: `${state}/nonce`,
          sealer: 0,
          sealWait: SEAL_WAIT,
          ...args.limits,
        }),
      },
      inside,
    );
    const alerts = alertAddresses("server-alert-addresses", machine, settings, args.alerts, inside);

    const failure = new host.Unit(
      "repository-alert-service",
      {
        machine,
        unit: units.failedService,
        content: renderHostFile("server/cht-repository-failed.service", { DEPLOYMENT }),
      },
      { ...child, dependsOn: [environment, alerts, packageTree] },
    );
    deliverAlertsLater(
      (part) => `repository-alert-later-${part}`,
      machine,
      {
        [units.alertLaterService]: "server/cht-repository-alert-later.service",
        [units.alertLaterPath]: "server/cht-repository-alert-later.path",
      },
      deployment,
      { ...child, dependsOn: [environment, alerts, packageTree] },
    );
    const seal = new host.Unit(
      "repository-seal-service",
      {
        machine,
        unit: units.sealService,
        content: renderHostFile("server/cht-repository-seal.service", { DEPLOYMENT, REPOSITORY_PATH }),
      },
      { ...child, dependsOn: [failure, repositorySettings] },
    );
    const audit = new host.Unit(
      "repository-audit-service",
      {
        machine,
        unit: units.auditService,
        content: renderHostFile("server/cht-repository-audit.service", { DEPLOYMENT }),
      },
      { ...child, dependsOn: seal },
    );
    const running = { machine, enabled: true, active: true };
    new host.Unit(
      "repository-audit-timer",
      {
        ...running,
        unit: units.auditTimer,
        content: renderHostFile("server/cht-repository-audit.timer", { DEPLOYMENT }),
      },
      { ...child, dependsOn: audit },
    );
    new host.Unit(
      "repository-audit-path",
      {
        ...running,
        unit: units.auditPath,
        content: renderHostFile("server/cht-repository-audit.path", { DEPLOYMENT }),
      },
      { ...child, dependsOn: audit },
    );
    const sealPath = new host.Unit(
      "repository-seal-path",
      {
        ...running,
        unit: units.sealPath,
        content: renderHostFile("server/cht-repository-seal.path", { DEPLOYMENT, REPOSITORY_PATH }),
      },
      { ...child, dependsOn: seal },
    );
    // It also tells, before anything is stored, where a file system can't keep what is root's from others, and keeps the
    // program for a recovery beside the repository.
    new host.RepositorySeal(
      "repository-seal",
      {
        machine,
        program: units.package,
        settings: `${settings}/repository.json`,
        path: repository,
        recover: recoverProgram().sha256,
      },
      { ...child, dependsOn: sealPath, retainOnDelete: true },
    );
    this.registerOutputs({ command: serveCommand(deployment) });
  }
}
