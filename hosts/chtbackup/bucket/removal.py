"""Remove versions from a bucket, and prove that the copies which stay are complete.

An index goes before what only it names, so a copy that is listed is whole at every moment, also after a kill; what is
left over then nobody names any more, and the next run removes it. Versions are removed one by one: the right for that
(`s3:DeleteObjectVersion`) can hide nothing and get around no lock, which `DeleteObjects` may ask for in addition.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.text import megabytes
from chtbackup.bucket.check import differing
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.copies import read_index
from chtbackup.bucket.errors import ObjectRefused
from chtbackup.bucket.index import Version
from chtbackup.bucket.inventory import INDEXES, Inventory
from chtbackup.bucket.keeping import Copy, Going, Piece, unneeded
from chtbackup.bucket.parallel import in_parallel

INTERVAL = 10  # seconds between lines of progress
READ_BACK = 64_000_000  # bytes of the newest copy that are read at the end, over the operator's own line


class Removal:
    """Removes with the key of `deleter`. `done` says what has gone, and what a lock has kept: numbers and bytes."""

    def __init__(self, deleter: Bucket, progress: Callable[[str], None]) -> None:
        self.deleter, self.progress = deleter, progress
        self.done: dict[str, Any] = {"copies": 0, "versions": 0, "bytes": 0}
        self.locked: dict[str, Any] = {"copies": 0, "versions": 0, "bytes": 0, "until": 0.0}
        self._counting = threading.Lock()
        self._said = time.monotonic()

    def run(self, inventory: Inventory, going: Going, keep_days: float) -> None:
        """Raises Refused where the key may not delete, BucketError."""
        leaving = set(going.copies)
        kept = self._remove_all("copies", going.copies)
        # A copy whose index is locked is listed as before: what it names stays.
        staying = [of for of in inventory.copies if of not in leaving or of in kept]
        pieces = unneeded(inventory.copies, staying, going.pieces, keep_days, inventory.now)
        self._remove_all("versions", pieces)

    def _remove_all(self, what: str, items: Sequence[Copy] | Sequence[Piece]) -> set[Any]:
        """Returns those that a lock keeps."""

        def remove(of: Copy | Piece) -> Any:
            until = self._remove(of.key, of.version)
            with self._counting:
                into = self.done if until is None else self.locked
                into[what] += 1
                # The files of a copy are counted by themselves.
                into["bytes"] += of.size if isinstance(of, Piece) else 0
                self.locked["until"] = max(self.locked["until"], until or 0)
                if time.monotonic() - self._said >= INTERVAL:
                    self._said = time.monotonic()
                    count = self.done[what] + self.locked[what]
                    self.progress(f"{count} of {len(items)} {what} done, {megabytes(self.done['bytes'])} freed")
            return None if until is None else of

        return set(in_parallel(remove, items)) - {None}

    def _remove(self, key: str, version: str) -> float | None:
        """None: it is gone, or was before. Otherwise when the lock ends that keeps it."""
        where = {"Key": self.deleter.prefix + key, "VersionId": version}
        try:
            self.deleter.ask("delete_object", **where)
            return None
        except ObjectRefused as error:
            try:
                lock = self.deleter.ask("get_object_retention", **where)["Retention"]
                until = lock["RetainUntilDate"].timestamp()
            except (ObjectRefused, KeyError):
                until = 0
            if until <= time.time():
                raise Refused(
                    "the key may not delete, or not see locks (s3:DeleteObjectVersion, s3:GetObjectRetention;"
                    f" docs/retention.md): {error}"
                ) from None
            return until


def lost(inventory: Inventory, before: list[Copy]) -> list[str]:
    """What is wrong with copies that should have stayed, and with those that came since, a line each. Looks at the
    bucket again; raises BucketError, Refused."""
    inventory.look()
    there = {of.id for of in inventory.copies}
    lacked = {of.id: of.lacks for of in before}
    return [
        *(f"{of.key} should have stayed, and is gone" for of in before if of.id not in there),
        *(f"{of.key} lacks {of.lacks} files" for of in inventory.copies if of.lacks > lacked.get(of.id, 0)),
    ]


def read_back(there: Bucket, newest: Copy, progress: Callable[[str], None]) -> tuple[int, list[str]]:
    """Read some of a copy back: what a restore needs first, and some segments. Returns the bytes that were read, and
    the paths of files that aren't what its index says. Raises ValueError where the index can't be read, BucketError."""
    path = newest.key[len(INDEXES) :]
    index = read_index(there, Version(path, newest.version, 0, newest.content, newest.at, True))
    segments = [path for path in index.objects if path.startswith("data/")]
    random.shuffle(segments)
    rest = sorted((path for path in index.objects if path not in set(segments)), key=lambda of: index.objects[of].size)
    chosen, total = {}, 0
    for path in [*rest, *segments]:
        if total + index.objects[path].size <= READ_BACK:
            chosen[path] = index.objects[path]
            total += index.objects[path].size
    progress(f"reading {megabytes(total)} of {newest.key} back")
    return total, differing(there, chosen, lambda _size: None)
