/** Where everything of a deployment is on the machines, and what it is called there. */

export interface ChtNames {
  /** Settings, keys and the passphrase; nobody but root reads it. */
  settings: string;
  /** `chtbackup/`, and `venv/` for the Python environment. */
  programs: string;
  /** The package of programs: `python3 /opt/cht-backup/moh/chtbackup PROGRAM`. */
  package: string;
  /** What the last backup said of itself, and borg's own files in `borg/`. */
  state: string;
  service: string;
  timer: string;
  failedService: string;
  /** Delivers the alerts in `alerts/` of the state, which couldn't be delivered at once. */
  alertLaterService: string;
  alertLaterPath: string;
  /** Looks every hour whether all is well. */
  watchService: string;
  watchTimer: string;
}

/** Names on the machine that runs the CHT, and on another one that works with its archives. */
export function chtNames(deployment: string): ChtNames {
  return {
    settings: `/etc/cht-backup/${deployment}`,
    programs: `/opt/cht-backup/${deployment}`,
    package: `/opt/cht-backup/${deployment}/chtbackup`,
    state: `/var/lib/cht-backup/${deployment}`,
    service: `cht-backup-${deployment}.service`,
    timer: `cht-backup-${deployment}.timer`,
    failedService: `cht-backup-${deployment}-failed.service`,
    alertLaterService: `cht-alert-later-${deployment}.service`,
    alertLaterPath: `cht-alert-later-${deployment}.path`,
    watchService: `cht-watch-${deployment}.service`,
    watchTimer: `cht-watch-${deployment}.timer`,
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

export interface RetentionNames {
  service: string;
  timer: string;
  failedService: string;
  /** What it is to do, and its way in, on the machine that drills. */
  settings: string;
  /** The account on the server that may start it, and nothing else. */
  user: string;
  /** That account's home. */
  home: string;
}

/** Names for retention on a schedule. */
export function retentionNames(deployment: string): RetentionNames {
  const retention = `cht-retention-${deployment}`;
  return {
    service: `${retention}.service`,
    timer: `${retention}.timer`,
    failedService: `${retention}-failed.service`,
    settings: `${chtNames(deployment).settings}/retention.json`,
    // A name of an account has 32 characters at most (useradd(8)).
    user: `cht-prune-${deployment}`,
    home: `/var/lib/cht-prune/${deployment}`,
  };
}

export interface ServerNames {
  /** The account that receives the backups. */
  user: string;
  /** Its home, which belongs to root. */
  home: string;
  /** The borg repository. */
  repository: string;
  /** Programs for a recovery by the kit on paper, each named by its SHA-256; root's, for everybody to read. */
  recovery: string;
  /** Disk space held back. */
  reserve: string;
  /** Where the copy to the bucket links the repository's files. */
  snapshot: string;
  /** `chtbackup/`; for alarms `venv/`; where one was built, borg. */
  programs: string;
  /** The package of programs: `python3 /opt/cht-backup-server/moh/chtbackup PROGRAM`. */
  package: string;
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
  /** Looks every hour whether all is well. The others of this name belong to a drill here. */
  watchService: string;
  watchTimer: string;
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
    recovery: `${home}/recovery`,
    reserve: `${home}/reserve`,
    snapshot: `${home}/snapshot`,
    programs: `/opt/cht-backup-server/${deployment}`,
    package: `/opt/cht-backup-server/${deployment}/chtbackup`,
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
    watchService: `cht-repository-watch-${deployment}.service`,
    watchTimer: `cht-repository-watch-${deployment}.timer`,
  };
}

export interface BucketNames {
  /** Settings (`bucket.json`) and the bucket's credentials. */
  settings: string;
  /** `venv/`, the Python environment. */
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
