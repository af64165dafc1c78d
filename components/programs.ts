/** What a machine gets that works with a deployment's archives: the CHT machine, and another one that drills. */

import type * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { alertAddresses, deliverAlertsLater } from "./alerts";
import { borgPackage } from "./borg";
import { readHostFile, renderHostFile } from "./host-files";
import { chtNames } from "./names";

export interface ArchiveClient {
  /** Name of the machine in `host:machines`. */
  machine: string;
  deployment: string;
  /** Makes the name of a resource from the one it has for the CHT machine. Default: that one. */
  rename?: (name: string) => string;
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

export interface ProgramsArgs extends ArchiveClient {
  /** Addresses of apprise, a secret. */
  alerts: pulumi.Output<string[]>;
}

/** Programs in place: what a unit that runs them waits for. */
export interface Programs {
  environment: pulumi.Resource;
  /** The package of programs. */
  package: pulumi.Resource;
  /** Whom alarms go to. */
  alerts: pulumi.Resource;
}

/**
 * The programs: their package, a Python environment for them, the addresses for alarms.
 *
 * @param child options that wait for `borg` and `directory` of `sshAccess`
 */
export function programs(args: ProgramsArgs, child: pulumi.CustomResourceOptions): Programs {
  const { machine, deployment, rename = (name) => name } = args;
  const names = chtNames(deployment);
  const { settings, programs, alertLaterService, alertLaterPath } = names;

  const python = new host.Packages(rename("cht-python"), { machine, packages: ["python3-venv"] }, child);
  const programDirectory = new host.Directory(rename("cht-program-directory"), { machine, path: programs }, child);
  const environment = new host.PythonEnvironment(
    // The name is of a tool that isn't in it any more. It stays: another one would make the environment anew everywhere.
    rename("borgmatic-environment"),
    { machine, path: `${programs}/venv`, requirements: readHostFile("cht/requirements.txt") },
    { ...child, dependsOn: [python, programDirectory] },
  );
  const packageTree = programTree(rename("cht-programs"), machine, names.package, {
    ...child,
    dependsOn: programDirectory,
  });
  const alerts = alertAddresses(rename("alert-addresses"), machine, settings, args.alerts, child);
  deliverAlertsLater(
    (part) => rename(`alert-later-${part}`),
    machine,
    { [alertLaterService]: "cht/cht-alert-later.service", [alertLaterPath]: "cht/cht-alert-later.path" },
    deployment,
    { ...child, dependsOn: [environment, alerts, packageTree] },
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
  return { environment, package: packageTree, alerts };
}

/**
 * The package of programs, `hosts/chtbackup`, all of it on every machine.
 *
 * @param path where it is on the machine
 * @param options `validate` as that of a `host.Tree`
 */
export function programTree(
  name: string,
  machine: string,
  path: string,
  { validate, ...opts }: pulumi.CustomResourceOptions & { validate?: string },
): pulumi.Resource {
  return new host.Tree(name, { machine, path, source: "hosts/chtbackup", ...(validate && { validate }) }, opts);
}
