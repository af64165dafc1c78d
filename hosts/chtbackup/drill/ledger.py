"""Which archives drills have seen on this machine: a witness, beside the server's own ledger, that none of them goes.
Only ids count: a name can be given to another archive."""

from __future__ import annotations

import json
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.restore.archives import time_of

NAMED = 3  # archives that a message names


def vanished(known: dict[str, str], now: dict[str, str]) -> list[str]:
    """Names of archives that were seen and are no longer there, the newest first. `known` has names by ids, `now` ids
    by names. What is newer than all that is there now doesn't count: an earlier copy from a bucket lacks it."""
    newest = max((time_of(name) or "" for name in now), default="")
    gone = [name for id, name in known.items() if id not in now.values() and (time_of(name) or "") <= newest]
    return sorted(gone, reverse=True)


class Ledger:
    """The file in which they are kept."""

    def __init__(self, path: str) -> None:
        self.path = path

    def compare(self, repository: str, now: dict[str, str]) -> str | None:
        """What is missing, in words for the operator, of what was seen before; None where nothing is. What is there now
        is added. Another repository begins anew."""
        known = self.seen(repository)
        content = {"repository": repository, "archives": {**known, **{id: name for name, id in now.items()}}}
        write_atomically(self.path, json.dumps(content, indent=0) + "\n", 0o600)
        gone = vanished(known, now)
        if not gone:
            return None
        more = f" and {len(gone) - NAMED} more" if len(gone) > NAMED else ""
        return (
            f"{len(gone)} archives that an earlier drill saw are no longer there: {', '.join(gone[:NAMED])}{more}."
            f" If you removed them on purpose: rm {self.path}. If not, don't compact (docs/restore.md, 9)"
        )

    def seen(self, repository: str) -> dict[str, str]:
        """Names by ids of the archives that drills have seen in this repository."""
        before = self._read()
        return before["archives"] if before.get("repository") == repository else {}

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.path, encoding="utf-8") as file:
                read = json.load(file)
            return read if isinstance(read, dict) and isinstance(read.get("archives"), dict) else {}
        except (OSError, ValueError):
            return {}
