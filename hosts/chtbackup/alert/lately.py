"""Whether somebody was told of the same trouble a short while ago: a backup that fails every few hours is one trouble.

The watch (`chtbackup watch run`) keeps what holds and when it was told, and reminds once a day. Of its programs nothing
is used here, only that file: an alarm needs less than what it watches. Without it each failure is told.
"""

from __future__ import annotations

import json
import os
import re

LATELY = 20 * 3600  # seconds
FAILURES = {
    "backup": ("backup-failed", "backup-incomplete"),
    "drill": ("drill-failed",),
    "bucket": ("copy-failed", "check-failed"),
}
"""Conditions by what an alarm is about. Others have reminders of their own."""


def alike(text: str) -> str:
    """A text without its numbers, such as times."""
    return re.sub(r"\d+", "0", text)


def was_told(path: str, about: str, text: str, now: float, began: float) -> bool:
    """Whether an alarm's text says what the watch knows already, and somebody was told within a day.

    The run that failed now began at `began`, in seconds since 1970; 0 where that isn't known. The watch takes for told
    what a unit tells. Where it looks between a first failure and its alarm, it knows only that very failure: so the
    trouble must be older than the run.
    """
    try:
        with open(path, encoding="utf-8") as file:
            entries = json.load(file)["entries"]
        known = [entries[id] for id in FAILURES.get(about, ()) if id in entries]
        return any(
            of["gone"] is None
            and of["since"] < began - 1  # a report's time is rounded
            and of["told"] is not None
            and 0 <= now - of["told"] < LATELY
            and of["reason"] != ""
            and alike(of["reason"]) in alike(text)
            for of in known
        )
    except (OSError, ValueError, TypeError, KeyError):
        return False


def once_a_day(path: str, now: float) -> bool:
    """Whether something that goes on every hour is to be told now; the file notes when it was. Raises OSError."""
    try:
        if 0 <= now - os.stat(path).st_mtime < LATELY:
            return False
    except FileNotFoundError:
        pass
    with open(path, "w", encoding="utf-8"):
        os.utime(path, (now, now))
    return True
