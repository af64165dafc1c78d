"""What the transactions in a repository's log did, and what of it no honest client does."""

from __future__ import annotations

import calendar
import time
from dataclasses import dataclass, field
from typing import Any

from chtbackup.repository.segment_log import COMMIT, MANIFEST, PUT, Entry


@dataclass
class Transaction:
    """What one transaction of the log did."""

    number: int
    """The segment that holds its COMMIT."""
    added: dict[bytes, None] = field(default_factory=dict)
    """Ids written and still there at its end, in the order of writing; never the manifest's."""
    taken: list[bytes] = field(default_factory=list)
    """Ids deleted that were there before it."""
    twice: list[bytes] = field(default_factory=list)
    """Ids written though they were there."""
    archive: bytes | None = None
    """The object written just before the manifest: the archive's, where this is a backup."""
    manifest: bool | None = None
    """Whether the manifest is there at its end; None where it wasn't touched."""
    content: str | None = None
    """A digest of the manifest that it has written."""


class Log:
    """Takes the log's entries in their order and makes transactions of them. `known` says in which transaction an
    object was written that is there, None where there is none; `digest` gives that of what a segment's entry stores."""

    def __init__(self, known: Any, digest: Any) -> None:
        self.known, self.digest = known, digest
        self.now = Transaction(0)
        self.last: bytes | None = None

    def take(self, entry: Entry, segment: int) -> Transaction | None:
        """The transaction that ends with this entry, if one does."""
        now, id = self.now, entry.id
        if entry.tag == COMMIT:
            now.number = segment
            self.now, self.last = Transaction(0), None
            return now
        if id == MANIFEST:
            now.manifest = entry.tag == PUT
            if now.manifest:
                now.archive, now.content = self.last, self.digest(segment, entry)
        elif entry.tag == PUT:
            if id in now.added or (id not in now.taken and self.known(id) is not None):
                now.twice.append(id)
            now.added[id] = None
            self.last = id
        elif id in now.added:
            del now.added[id]
        else:
            now.taken.append(id)
        return None


def findings_of(
    transaction: Transaction, previous: int | None, known: Any, content: str | None
) -> list[tuple[str, int]]:
    """What an honest client doesn't do, with how often it was done. `previous` is the transaction before, `content` the
    digest of the manifest before; None where there is none."""
    odd = [id for id in transaction.taken if known(id) != previous]
    found = []
    if odd:
        found.append(("objects were marked as deleted", len(odd)))
    if transaction.twice:
        found.append(("objects were written over", len(transaction.twice)))
    # A backup writes it after the archive that it has made. Alone it is another list of what was there before, unless
    # it is the same one: borg's `with-lock` writes it again.
    alone = transaction.manifest and previous is not None and transaction.archive not in transaction.added
    if alone and transaction.content != content:
        found.append(("the list of archives (the manifest) was written without a new archive", 1))
    if transaction.manifest is False:
        found.append(("the list of archives (the manifest) was deleted", 1))
    return found


def seconds_of(text: str) -> int:
    """borg's time, UTC (`2026-11-28T02:00:07.123456`), as seconds since 1970. Raises ValueError where it is none."""
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
