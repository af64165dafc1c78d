/** Where everything of a deployment is on the machines, and what it is called there. */

export interface ChtNames {
  /** Settings, keys and the passphrase; nobody but root reads it. */
  settings: string;
  /** Programs: `bin/` for the scripts, `venv/` for the Python environment. */
  programs: string;
  /** What the last backup said of itself, and borg's own files in `borg/`. */
  state: string;
  service: string;
  timer: string;
  failedService: string;
  /** Delivers the alerts in `alerts/` of the state, which couldn't be delivered at once. */
  alertLaterService: string;
  alertLaterPath: string;
}

/** Names on the machine that runs the CHT, and on another one that works with its archives. */
export function chtNames(deployment: string): ChtNames {
  return {
    settings: `/etc/cht-backup/${deployment}`,
    programs: `/opt/cht-backup/${deployment}`,
    state: `/var/lib/cht-backup/${deployment}`,
    service: `cht-backup-${deployment}.service`,
    timer: `cht-backup-${deployment}.timer`,
    failedService: `cht-backup-${deployment}-failed.service`,
    alertLaterService: `cht-alert-later-${deployment}.service`,
    alertLaterPath: `cht-alert-later-${deployment}.path`,
  };
}

export interface DrillNames {
  /** Where a drill's reports are. */
  reports: string;
  service: string;
  timer: string;
  failedService: string;
  /** Looks for what a drill left that was cut off, at boot. */
  cleanupService: string;
  /** Fails when no drill has succeeded for too long. */
  overdueService: string;
  overdueTimer: string;
  /** Docker's network for the drill's database. */
  network: string;
}

/** Names on the machine that drills, which has those of `chtNames` too. */
export function drillNames(deployment: string): DrillNames {
  const drill = `cht-drill-${deployment}`;
  return {
    reports: `${chtNames(deployment).state}/drills`,
    service: `${drill}.service`,
    timer: `${drill}.timer`,
    failedService: `${drill}-failed.service`,
    cleanupService: `${drill}-cleanup.service`,
    overdueService: `${drill}-overdue.service`,
    overdueTimer: `${drill}-overdue.timer`,
    network: drill,
  };
}

export interface ServerNames {
  /** The account that receives the backups. */
  user: string;
  /** Its home, which belongs to root. */
  home: string;
  /** The borg repository. */
  repository: string;
  /** Disk space held back. */
  reserve: string;
  /** Where the copy to the bucket links the repository's files. */
  snapshot: string;
  /** What root does: `guard.py`, `seal.py`, `audit.py`, and for all alarms of the server `alert.py` and `venv/`. */
  programs: string;
  /** `repository.json`, and whom alarms go to. */
  settings: string;
  /** Root's own: the ledger of archives, what the audit found, a copy of the repository's `config`, undelivered alerts. */
  state: string;
  sealService: string;
  sealPath: string;
  auditService: string;
  auditPath: string;
  auditTimer: string;
  failedService: string;
  /** Delivers the alerts in `alerts/` of the state, which couldn't be delivered at once. */
  alertLaterService: string;
  alertLaterPath: string;
}

/**
 * Names on the offsite server.
 *
 * @param dataDirectory the directory that holds the repositories of all deployments
 */
export function serverNames(deployment: string, dataDirectory: string): ServerNames {
  const home = `${dataDirectory}/${deployment}`;
  return {
    user: `cht-backup-${deployment}`,
    home,
    repository: `${home}/repository`,
    reserve: `${home}/reserve`,
    snapshot: `${home}/snapshot`,
    programs: `/opt/cht-backup-server/${deployment}`,
    settings: `/etc/cht-backup-server/${deployment}`,
    state: `/var/lib/cht-backup-server/${deployment}`,
    sealService: `cht-repository-seal-${deployment}.service`,
    sealPath: `cht-repository-seal-${deployment}.path`,
    auditService: `cht-repository-audit-${deployment}.service`,
    auditPath: `cht-repository-audit-${deployment}.path`,
    auditTimer: `cht-repository-audit-${deployment}.timer`,
    failedService: `cht-repository-failed-${deployment}.service`,
    alertLaterService: `cht-repository-alert-later-${deployment}.service`,
    alertLaterPath: `cht-repository-alert-later-${deployment}.path`,
  };
}

export interface BucketNames {
  /** Settings (`bucket.json`) and the bucket's credentials. */
  settings: string;
  /** Programs: `bin/` for the scripts, `venv/` for the Python environment. */
  programs: string;
  /** What the last copy and the last check said, and what is known of the bucket. */
  state: string;
  copyService: string;
  copyTimer: string;
  /** Starts a copy after each backup. */
  copyPath: string;
  checkService: string;
  checkTimer: string;
  failedService: string;
}

/** Names on the offsite server for the copy to the bucket; those of `chtNames` belong to a drill there. */
export function bucketNames(deployment: string): BucketNames {
  const [copy, check] = [`cht-bucket-copy-${deployment}`, `cht-bucket-check-${deployment}`];
  return {
    settings: `/etc/cht-backup-bucket/${deployment}`,
    programs: `/opt/cht-backup-bucket/${deployment}`,
    state: `/var/lib/cht-backup-bucket/${deployment}`,
    copyService: `${copy}.service`,
    copyTimer: `${copy}.timer`,
    copyPath: `${copy}.path`,
    checkService: `${check}.service`,
    checkTimer: `${check}.timer`,
    failedService: `cht-bucket-failed-${deployment}.service`,
  };
}

/** The only command that the key of the CHT machine may run on the server: the guard before borg's own server. */
export function serveCommand(deployment: string): string {
  // Neither depends on where the data is.
  const { programs, settings } = serverNames(deployment, "");
  return `/usr/bin/python3 -I ${programs}/guard.py ${settings}/repository.json`;
}
