"""Whether the archive that a drill has chosen is one that a working backup leaves."""

from __future__ import annotations

import datetime
import os
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.text import duration
from chtbackup.borg.client import Borg
from chtbackup.drill import bucket_source
from chtbackup.drill.findings import Findings
from chtbackup.manifest.places import roots_of
from chtbackup.restore.archives import DAY
from chtbackup.restore.choose import Archive


def check_archive(archive: Archive, borg: Borg, settings: dict[str, Any], findings: Findings) -> None:
    """Put the archive into the report, with what is wrong: it is old or of the future, or others are gone. Raises
    Refused where the scratch directory is inside of what is backed up."""
    report, days = findings.report, settings["overdueAfterDays"]
    time = archive.before["time"]
    began = datetime.datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()
    age = max(report["beganAt"] - began, 0)
    if began > report["beganAt"] + DAY:
        findings.wrong(f"{archive.name} says that it was begun at {time}, which is in the future")
    report.update(archive=archive.name, archiveTime=time, archiveAgeSeconds=round(age))
    if age > days * DAY:
        findings.wrong(
            f"the newest finished archive is {duration(age)} old, and {days:g} days are allowed: backups have"
            " stopped, or don't come to their end"
        )
    if missing := findings.reports.ledger().compare(borg.repository_id, borg.ids):
        findings.wrong(missing)
    if report["from"] == "bucket":
        if why := bucket_source.archive_too_old(age, settings["bucket"]["maxAgeHours"]):
            findings.wrong(why)
    for root in roots_of(archive.places):
        if f"{settings['scratch']}/".startswith(f"{root}/") and os.path.isdir(root):
            raise Refused(f"the scratch directory is inside {root}, which is backed up: choose another")
