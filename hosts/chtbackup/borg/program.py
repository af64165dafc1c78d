"""Run borg by hand with a deployment's settings: `python3 /opt/cht-backup/DEPLOYMENT/chtbackup borg list`.

The words after `borg` are borg's own, and so are its output and exit code. The deployment's repository is the default
one, so an archive is `::NAME`.
"""

from __future__ import annotations

import os
import sys

from chtbackup.base import programs
from chtbackup.base.errors import REFUSED, NoBackup, reason_of
from chtbackup.base.settings import read_settings
from chtbackup.base.text import complain
from chtbackup.borg.deployment import repository_of
from chtbackup.borg.start import passphrase_pipe


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    place = os.path.dirname(programs.PACKAGE)
    try:
        repository = repository_of(read_settings(f"/etc/cht-backup/{os.path.basename(place)}/settings.json"))
        passphrase = passphrase_pipe(repository.passphrase())
    except NoBackup as error:
        complain(error)
        return REFUSED
    os.set_inheritable(passphrase, True)
    own = {**repository.environment(), "BORG_PASSPHRASE_FD": str(passphrase)}
    # Where units look for it: one that was built for the deployment comes first.
    own["PATH"] = f"{place}/borg/bin:{own['PATH']}"
    os.umask(0o077)
    try:
        os.execvpe("borg", ["borg", "--lock-wait", str(repository.lock_wait), *words], own)
    except OSError as error:
        complain(reason_of(error))
        return REFUSED
