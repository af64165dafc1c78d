"""One backup of one deployment: what it is called, where it works, and what it found out."""

from __future__ import annotations

import time
from typing import Any

from chtbackup.base.text import moment


class Run:
    """What all parts of a backup share."""

    def __init__(self, settings: dict[str, Any], dry_run: bool) -> None:
        self.settings = settings
        self.deployment: str = settings["deployment"]
        self.home: str = settings["chtHome"].rstrip("/")
        self.dry_run = dry_run
        """Whether nothing may be written."""
        self.started = time.time()
        self.archive = f"{self.deployment}-{moment(self.started)}"
        self.state = f"/var/lib/cht-backup/{self.deployment}"
        self.scratch = f"/run/cht-backup/{self.deployment}/collect"
        self.problems: list[str] = []
        """What is missing in the archive, or wrong with it."""
        self.notes: list[str] = []
        self.documents: dict[str, int] = {}
        """How many documents each database had at the end; for all users' own databases together, one number."""

    def problem(self, text: str) -> None:
        # CouchDB's directories are looked at more than once.
        if text not in self.problems:
            self.problems.append(text)
