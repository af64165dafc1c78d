"""What a copy or a check says at its end, and its progress."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.base.text import complain, megabytes, moment, plain_values, say

RIGHT, WRONG, FAILED = 0, 1, 2
MAX_LINES = 20

PROGRESS_INTERVAL = 60


def heading(settings: dict[str, Any], started: float) -> dict[str, Any]:
    """What every report begins with; the run ends now."""
    finished = time.time()
    return {
        "deployment": settings["deployment"],
        "started": moment(started),
        "finished": moment(finished),
        "startedAt": round(started),
        "finishedAt": round(finished),
    }


class Progress:
    """Says now and then how far it is."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.done, self.said_something = 0, False
        self.said = time.monotonic()

    def step(self, size: int) -> None:
        self.done += size
        if time.monotonic() - self.said >= PROGRESS_INTERVAL and self.total:
            self.said, self.said_something = time.monotonic(), True
            say(f"{min(self.done / self.total, 1):.0%} {self.what}: {megabytes(self.done)} of {megabytes(self.total)}")


def remember(settings: dict[str, Any], name: str, result: dict[str, Any]) -> None:
    """Write the result into the state directory, with the time of the last success, this one or an earlier."""
    path = os.path.join(settings["state"], name)
    # A repository in use for hours is no failure, and no success either, nor is a run that only waited.
    copied = result.get("outcome") not in ("busy", "waiting")
    last_success = result["finishedAt"] if result["ok"] and copied else None
    if last_success is None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            with open(path, encoding="utf-8") as file:
                last_success = json.load(file).get("lastSuccessAt")
    result["lastSuccessAt"] = last_success
    write_atomically(path, json.dumps(plain_values(result), indent=2) + "\n")


def report(result: dict[str, Any]) -> None:
    for text in result["notes"][:MAX_LINES]:
        say(f"note: {text}")
    prefix = "<3>" if os.environ.get("JOURNAL_STREAM") else ""
    for text in result["problems"][:MAX_LINES]:
        complain(f"{prefix}problem: {text}")
