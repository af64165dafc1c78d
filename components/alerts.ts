/** Whom alarms go to, and the units that deliver what couldn't be delivered at once. */

import * as pulumi from "@pulumi/pulumi";
import * as host from "../provider";
import { renderHostFile } from "./host-files";

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
