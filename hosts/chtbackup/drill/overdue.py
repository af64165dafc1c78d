"""Whether drills succeed often enough, and whether the newest copy in the bucket is young."""

from __future__ import annotations

import os
import time
from typing import Any

from chtbackup.base.errors import RIGHT, WRONG, Refused
from chtbackup.base.text import complain, moment
from chtbackup.drill import bucket_source
from chtbackup.drill.reports import Reports
from chtbackup.restore.archives import DAY


def overdue(latest: dict[str, Any] | None, since: float, now: float, days: float, deployment: str) -> str | None:
    """A sentence when no drill has succeeded for too long, or ever. `since` is when drills were set up."""
    last = (latest or {}).get("lastSuccessAt")
    if last and last > now + DAY:  # of a wrong clock: it would be young for ever
        last = None
    if now - (last or since) <= days * 86400:
        return None
    past = f"since {moment(last)}" if last else f"ever, and they were set up at {moment(since)}"
    text = f"no restore drill of {deployment} has succeeded {past}; {days:g} days are allowed"
    if latest and latest["problems"]:
        text += f". The last one ({latest['finished']}): {latest['problems'][0]}"
    return text


def look_back(settings: dict[str, Any], reports: Reports) -> int:
    """See whether a drill has succeeded lately and, where drills are made from the bucket, whether its newest copy is
    young and in order: the server, which may be silenced, isn't asked. What is wrong is kept for the alarm. Returns
    the exit code."""
    now = time.time()
    late = overdue(reports.latest(), reports.since(), now, settings["overdueAfterDays"], settings["deployment"])
    doubts: list[str] = []
    if settings["from"] != "server":
        place = settings["bucket"]
        try:
            doubts = bucket_source.doubts(bucket_source.newest(place), now, place["maxAgeHours"])
        except Refused as error:
            doubts = [f"the newest copy in the bucket can't be found out: {error}"]
    reports.keep_doubts(late, doubts)
    for text in [*filter(None, [late]), *doubts]:
        complain(f"<3>{text}" if os.environ.get("JOURNAL_STREAM") else text)
    return WRONG if late or doubts else RIGHT
