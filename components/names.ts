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
  };
}

export interface BucketNames {
  /** Settings (`bucket.json`), the bucket's credentials and whom alarms go to. */
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

/** The only command that the key of the CHT machine may run on the server. */
export function serveCommand(repository: string): string {
  return `/usr/bin/borg serve --append-only --restrict-to-repository ${repository}`;
}
