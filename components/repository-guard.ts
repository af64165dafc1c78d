import * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { alertAddresses, deliverAlertsLater } from "./archive-client";
import { readHostFile, renderHostFile } from "./host-files";
import { serverNames } from "./names";

export interface RepositoryGuardArgs {
  /** Name of the server in `host:machines`. */
  machine: string;
  deployment: string;
  /** Directory that holds the repositories of all deployments. */
  dataDirectory: string;
  /** What a client may do at most: `cht-backup:server.limits`. */
  limits: ClientLimits;
  /** Addresses of apprise, a secret. */
  alerts: pulumi.Output<string[]>;
  /** What has to be there before: borg, the account, the repository's directory. */
  before: pulumi.Resource[];
}

export interface ClientLimits {
  /** Transactions within a day. */
  commitsPerDay: number;
  /** How long a session may last. */
  sessionDays: number;
  /** How long a session may say nothing. */
  idleHours: number;
}

/** How long a client that wants to write waits until the last backup is sealed, in seconds. It takes a moment. */
const SEAL_WAIT = 60;

/** The programs, files of `hosts/`. */
const programFiles = [
  "server/guard.py",
  "server/seal.py",
  "server/audit.py",
  "server/segment_log.py",
  "server/retention.py",
  "server/keeping.py",
  "cht/alert.py",
  "cht/alert_queue.py",
  "cht/plain.py",
];

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
    const files = programFiles.map((file) => {
      const script = file.slice(file.indexOf("/") + 1);
      const path = `${programs}/${script}`;
      return new host.File(
        `server-${script.replace(".py", "").replaceAll("_", "-")}`,
        {
          machine,
          path,
          content: readHostFile(file),
          // A borg that the guard doesn't know would be told first by a backup that fails.
          ...(script === "guard.py" && { validate: `/usr/bin/python3 -I ${path} --check` }),
        },
        { ...child, dependsOn: [...args.before, programDirectory] },
      );
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
        content: `${JSON.stringify(
          {
            deployment,
            user,
            repository,
            state,
            spool: `${state}/spool`,
            nonce: `${state}/nonce`,
            sealer: 0,
            sealWait: SEAL_WAIT,
            ...args.limits,
          },
          null,
          2,
        )}\n`,
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
      { ...child, dependsOn: [environment, alerts, ...files] },
    );
    deliverAlertsLater(
      (part) => `repository-alert-later-${part}`,
      machine,
      {
        [units.alertLaterService]: "server/cht-repository-alert-later.service",
        [units.alertLaterPath]: "server/cht-repository-alert-later.path",
      },
      deployment,
      { ...child, dependsOn: [environment, alerts, ...files] },
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
    // It also tells, before anything is stored, where a file system can't keep what is root's from others.
    new host.RepositorySeal(
      "repository-seal",
      { machine, program: `${programs}/seal.py`, settings: `${settings}/repository.json`, path: repository },
      { ...child, dependsOn: sealPath, retainOnDelete: true },
    );
    this.registerOutputs({});
  }
}
