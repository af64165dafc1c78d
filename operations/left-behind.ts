/** What an operator should know after a restore: what the machine that had the CHT before still holds, and what to set. Pure. */
import { chtNames, drillNames } from "../components/names";
import type { Settings } from "../config";
import type { Machine } from "../provider/connection";

/**
 * The command that clears a machine of what `up` has put there for the CHT's backups, as root.
 * @param drills whether the machine makes the drills, too: `systemctl disable` does nothing where it doesn't know one of the
 * units
 */
export function clearing(deployment: string, drills: boolean): string {
  const backup = chtNames(deployment);
  const units = [backup, ...(drills ? [drillNames(deployment)] : [])]
    .flatMap((names) => Object.values(names))
    .filter((name) => /\.(service|timer|path)$/.test(name));
  const files = units.map((unit) => `/etc/systemd/system/${unit}`);
  files.push(`/etc/tmpfiles.d/cht-backup-${deployment}.conf`, backup.settings, backup.programs, backup.state);
  return (
    `systemctl disable --now ${units.filter((unit) => !unit.endsWith("-failed.service")).join(" ")}; ` +
    `rm -rf ${files.join(" ")}; systemctl daemon-reload`
  );
}

/**
 * Lines for whoever has restored a whole CHT.
 * @param destination the machine that has it now
 */
export function afterRestore(
  stack: string,
  { deployment, machines, drill }: Pick<Settings, "deployment" | "machines" | "drill">,
  destination: Machine,
): string[] {
  const { cht } = machines;
  const same = destination.address === cht.address && (destination.port ?? 22) === (cht.port ?? 22);
  const lines: string[] = [];
  if (!same || destination.user !== cht.user) {
    const port = destination.port === undefined ? "" : `, port: ${destination.port}`;
    const forgotten = cht.hostKey === undefined ? "" : "; and hostKey: that of the new machine";
    lines.push(
      `next: host:machines.cht must be { address: ${destination.address}, user: ${destination.user}${port} }${forgotten}; ` +
        `then \`npm run pulumi -- up --stack ${stack}\`: without it this machine has no backups`,
    );
  }
  const { settings } = chtNames(deployment);
  const drills = drill?.machine === "cht";
  const timers = drills ? "three timers (backup, drill, overdue drill)" : "the backup's timer";
  const before = same
    ? "a machine that had this CHT before, if it is another one,"
    : `${cht.address}, which had this CHT before,`;
  lines.push(
    `${before} still has the passphrase of all backups (${settings}/passphrase), an SSH key for the server until that \`up\`, ` +
      `${timers}, and the CHT's data. Keep it until this CHT is proven. Then, there, as root: ${clearing(deployment, drills)}`,
  );
  return lines;
}
