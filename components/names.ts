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

/** Names on the machine that runs the CHT. */
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

export interface ServerNames {
  /** The account that receives the backups. */
  user: string;
  /** Its home, which belongs to root. */
  home: string;
  /** The borg repository. */
  repository: string;
  /** Disk space held back. */
  reserve: string;
}

/**
 * Names on the offsite server.
 *
 * @param dataDirectory the directory that holds the repositories of all deployments
 */
export function serverNames(deployment: string, dataDirectory: string): ServerNames {
  const home = `${dataDirectory}/${deployment}`;
  return { user: `cht-backup-${deployment}`, home, repository: `${home}/repository`, reserve: `${home}/reserve` };
}

/** The only command that the key of the CHT machine may run on the server. */
export function serveCommand(repository: string): string {
  return `/usr/bin/borg serve --append-only --restrict-to-repository ${repository}`;
}
