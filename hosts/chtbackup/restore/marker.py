"""A note beside what is extracted: which archive it is of. By it the next run goes on where one was interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.restore.choose import Archive


class Marker:
    def __init__(self, path: str, archive: Archive, more: dict[str, Any] | None = None) -> None:
        self.path = path
        self.archive = archive
        self.more = more or {}
        """What else must be the same for a next run to go on."""

    def _content(self) -> dict[str, Any]:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        archive = self.archive
        known = {"archive": archive.name, "id": archive.id, "time": archive.before["time"]}
        return {**known, "boot": boot, **self.more}

    def holds(self, despite_problems: bool) -> bool:
        """Whether what is beside it is of an interrupted extraction of this very archive. After a crash of the machine
        it isn't trusted: not everything may have reached the disk. Nor is it when it has failed the checks, unless it
        is wanted `despite_problems`."""
        try:
            with open(self.path, encoding="utf-8") as file:
                known = json.load(file)
        except (OSError, ValueError):
            return False
        failed = known.pop("failed", False)
        return known == self._content() and (not failed or despite_problems)

    def write(self) -> None:
        write_atomically(self.path, json.dumps(self._content()))

    def failed(self) -> None:
        """Note that what was extracted has failed the checks."""
        write_atomically(self.path, json.dumps({**self._content(), "failed": True}))

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path)
