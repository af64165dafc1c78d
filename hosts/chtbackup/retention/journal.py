"""The note of what retention is about to change: a run that was killed is finished by it. And what it has removed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from chtbackup.repository.files import read, write
from chtbackup.retention.borg import Refused


@dataclass(frozen=True)
class Note:
    """What a run is doing."""

    stage: str
    """`begun`, nothing has been changed; `deleting`, it may have been; `deleted`, and found right, so that only space
    is to be freed; `lost`, it wasn't."""
    stay: list[str]
    """Ids of archives that are there afterwards."""
    names: dict[str, str]
    """Names by ids of those that go."""
    since: int
    """The last transaction before the deletion."""


class Journal:
    def __init__(self, state: str) -> None:
        self.path = f"{state}/retention.json"
        self.removed_path = f"{state}/removed.json"

    def exists(self) -> bool:
        return os.path.exists(self.path)

    def began(self) -> float:
        """When the last stage began."""
        return os.stat(self.path).st_mtime

    def read(self) -> Note:
        """Raises Refused where it isn't what `note` writes."""
        try:
            of = json.loads(read(self.path))
            return Note(str(of["stage"]), list(of["stay"]), dict(of["names"]), int(of["since"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Refused(f"{self.path} isn't in order: docs/retention.md says what to do") from None

    def note(self, stage: str, stay: list[str], names: dict[str, str], since: int = -1) -> None:
        text = json.dumps({"stage": stage, "stay": stay, "names": names, "since": since})
        write(self.path, text + "\n", 0o600, 0)

    def end(self) -> None:
        os.remove(self.path)

    def removed(self) -> dict[str, str]:
        """Names by ids of all that retention has removed."""
        try:
            return dict(json.loads(read(self.removed_path) or "{}"))
        except (ValueError, TypeError):
            return {}

    def add_removed(self, names: dict[str, str]) -> None:
        write(self.removed_path, json.dumps({**self.removed(), **names}, indent=0) + "\n", 0o600, 0)
