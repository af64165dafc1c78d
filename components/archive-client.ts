/** What a machine gets that works with a deployment's archives: the CHT machine, and another one that drills. */
import * as pulumi from "@pulumi/pulumi";
import type { AccessKey } from "../config";
import * as host from "../provider";
import { borgPackage } from "./borg";
import { readHostFile, renderHostFile } from "./host-files";
import { chtNames, serverNames } from "./names";
import type { OffsiteServer } from "./offsite-server";

export interface ArchiveClient {
  /** Name of the machine in `host:machines`. */
  machine: string;
  deployment: string;
  /** Makes the name of a resource from the one it has for the CHT machine. Default: that one. */
  rename?: (name: string) => string;
}

export interface WayArgs extends ArchiveClient {
  /** Where the repository is kept. */
  server: OffsiteServer;
  /** Directory on the server that holds the repositories of all deployments. */
  dataDirectory: string;
  /** Where `machine` reaches the server's SSH. */
  address: pulumi.Input<string>;
  port: number;
}

/** What opens a repository wherever it is: borg, and directories for settings and for what borg remembers. */
export function foundations(
  { machine, deployment, rename = (name) => name }: ArchiveClient,
  child: pulumi.CustomResourceOptions,
) {
  const { settings, state, programs } = chtNames(deployment);
  const borg = new host.Packages(rename("cht-borg"), { machine, ...borgPackage(programs) }, child);
  const directory = new host.Directory(
    rename("cht-settings-directory"),
    { machine, path: settings, mode: "0700" },
    child,
  );
  const stateDirectory = new host.Directory(
    rename("cht-state-directory"),
    { machine, path: state, mode: "0700" },
    child,
  );
  return { borg, directory, stateDirectory };
}

/** The way to the repository on the server: an SSH key made there, whom to trust and where. The server has to let the key in. */
export function wayToRepository(args: WayArgs, directory: pulumi.Resource, child: pulumi.CustomResourceOptions) {
  const { machine, deployment, server, rename = (name) => name } = args;
  const { settings } = chtNames(deployment);
  const inside = { ...child, dependsOn: directory };
  const key = new host.SshKey(
    rename("cht-ssh-key"),
    { machine, path: `${settings}/ssh_key`, comment: `cht-backup-${deployment}` },
    inside,
  );
  const knownHosts = new host.File(
    rename("cht-known-hosts"),
    { machine, path: `${settings}/known_hosts`, content: pulumi.interpolate`offsite ${server.hostKey}\n` },
    inside,
  );
  const sshConfig = new host.File(
    rename("cht-ssh-config"),
    {
      machine,
      path: `${settings}/ssh_config`,
      content: pulumi.output(args.address).apply((address) =>
        renderHostFile("cht/ssh_config", {
          DEPLOYMENT: deployment,
          SERVER_ADDRESS: address,
          SERVER_PORT: args.port,
          SERVER_USER: serverNames(deployment, args.dataDirectory).user,
        }),
      ),
    },
    inside,
  );
  return { key, knownHosts, sshConfig };
}

/** The files of `hosts/cht/` that every client of the archives runs. */
const scripts = [
  "backup",
  "plan",
  "manifest",
  "compose",
  "compose_env",
  "couch_files",
  "alert",
  "plain",
  "alert_queue",
];

export interface ProgramsArgs extends ArchiveClient {
  /** Addresses of apprise, a secret. */
  alerts: pulumi.Output<string[]>;
}

/** Programs in place: what a unit that runs them waits for. */
export interface Programs {
  /** Where scripts are. */
  directory: pulumi.Resource;
  environment: pulumi.Resource;
  scripts: pulumi.Resource[];
  /** Whom alarms go to. */
  alerts: pulumi.Resource;
}

/**
 * The programs: a Python environment of their own, scripts, the addresses for alarms.
 *
 * @param child options that wait for `borg` and `directory` of `wayToRepository`
 */
export function programs(args: ProgramsArgs, child: pulumi.CustomResourceOptions): Programs {
  const { machine, deployment, rename = (name) => name } = args;
  const { settings, programs, alertLaterService, alertLaterPath } = chtNames(deployment);

  const python = new host.Packages(rename("cht-python"), { machine, packages: ["python3-venv"] }, child);
  const programDirectory = new host.Directory(rename("cht-program-directory"), { machine, path: programs }, child);
  const directory = new host.Directory(
    rename("cht-script-directory"),
    { machine, path: `${programs}/bin` },
    { ...child, dependsOn: programDirectory },
  );
  const environment = new host.PythonEnvironment(
    rename("borgmatic-environment"),
    { machine, path: `${programs}/venv`, requirements: readHostFile("cht/requirements.txt") },
    { ...child, dependsOn: [python, programDirectory] },
  );
  const scriptFiles = scripts.map((script) =>
    scriptFile(rename(`script-${script.replaceAll("_", "-")}`), `cht/${script}.py`, args, {
      ...child,
      dependsOn: directory,
    }),
  );
  const alerts = alertAddresses(rename("alert-addresses"), machine, settings, args.alerts, child);
  deliverAlertsLater(
    (part) => rename(`alert-later-${part}`),
    machine,
    { [alertLaterService]: "cht/cht-alert-later.service", [alertLaterPath]: "cht/cht-alert-later.path" },
    deployment,
    { ...child, dependsOn: [environment, alerts, ...scriptFiles] },
  );
  new host.File(
    rename("cht-lock-cleanup"),
    {
      machine,
      path: `/etc/tmpfiles.d/cht-backup-${deployment}.conf`,
      content: renderHostFile("cht/tmpfiles.conf", { DEPLOYMENT: deployment }),
    },
    child,
  );
  return { directory, environment, scripts: scriptFiles, alerts };
}

/**
 * Whom alarms go to, in a file that root alone reads: the addresses hold passwords.
 *
 * @param settings directory on the machine
 * @param alerts addresses of apprise, a secret
 */
export function alertAddresses(
  name: string,
  machine: string,
  settings: string,
  alerts: pulumi.Output<string[]>,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  const content = alerts.apply((addresses) => addresses.map((address) => `${address}\n`).join(""));
  return new host.File(name, { machine, path: `${settings}/alerts`, mode: "0600", content }, opts);
}

/** Says in each `preview` and `up` that nobody hears of failures, where the settings name nobody. */
export function warnWithoutAlerts(alerts: pulumi.Output<string[]>): void {
  alerts.apply(async (addresses) => {
    if (addresses.length > 0) return;
    await pulumi.log.warn(
      "cht-backup:alerts names nobody: when a backup, a drill or a copy fails, only the journals of the machines say so. " +
        `This asks for an address: npm run pulumi -- config set --stack ${pulumi.getStack()} --secret --path 'cht-backup:alerts[0]'`,
    );
  });
}

/**
 * The units that deliver alerts which couldn't be delivered at once.
 *
 * @param rename makes the name of a resource from `service` or `path`
 * @param units by name, the files of `hosts/`: the service, then what starts it
 */
export function deliverAlertsLater(
  rename: (part: string) => string,
  machine: string,
  units: Record<string, string>,
  deployment: string,
  opts: pulumi.CustomResourceOptions,
): void {
  const [service, path] = Object.entries(units).map(([unit, file]) => ({
    machine,
    unit,
    content: renderHostFile(file, { DEPLOYMENT: deployment }),
  })) as [host.UnitArgs, host.UnitArgs];
  const sender = new host.Unit(rename("service"), service, opts);
  new host.Unit(rename("path"), { ...path, enabled: true, active: true }, { ...opts, dependsOn: sender });
}

/** A key of a bucket, in a file as the AWS command line tool has it, that root alone reads. */
export function bucketCredentials(
  name: string,
  machine: string,
  path: string,
  key: pulumi.Output<AccessKey>,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  const content = key.apply(
    ({ accessKeyId, secretAccessKey }) =>
      `[default]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`,
  );
  return new host.File(name, { machine, path, mode: "0600", content }, opts);
}

/**
 * One script beside the others.
 *
 * @param file path inside `hosts/`
 */
export function scriptFile(
  name: string,
  file: string,
  { machine, deployment }: ArchiveClient,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  const path = `${chtNames(deployment).programs}/bin/${file.slice(file.lastIndexOf("/") + 1)}`;
  return new host.File(name, { machine, path, content: readHostFile(file) }, opts);
}
