"""What the audit remembers of a repository: its objects, segments and archives, and what was found."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from chtbackup.base.text import moment
from chtbackup.repository.transactions import Transaction

PATIENCE = 600  # seconds; a run that reads the log of years holds the database that long

Finding = tuple[int, str, int, "int | None"]
"""When (seconds since 1970), what, how often, and in which transaction, where that is known."""

TABLES = """
CREATE TABLE IF NOT EXISTS objects (id BLOB PRIMARY KEY, written INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS archives (
    id BLOB PRIMARY KEY, written INTEGER NOT NULL, at INTEGER NOT NULL, gone INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS findings (
    at INTEGER NOT NULL, what TEXT NOT NULL, count INTEGER NOT NULL, transaction_ INTEGER
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Ledger:
    """A SQLite database of root's. Every method raises sqlite3.Error."""

    def __init__(self, path: str) -> None:
        self.database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        self.database.executescript(TABLES)

    @contextlib.contextmanager
    def changes(self, keep: bool = True) -> Iterator[None]:
        """What is changed meanwhile is stored as a whole; not at all after an error, or where it isn't to `keep`."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            keep = False
            raise
        finally:
            self.database.execute("COMMIT" if keep else "ROLLBACK")

    def fact(self, name: str) -> str | None:
        row = self.database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row and row[0]

    def set_fact(self, name: str, value: Any) -> None:
        self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, str(value)))

    def known(self, id: bytes) -> int | None:
        """In which transaction an object was written that is there; None where there is none."""
        row = self.database.execute("SELECT written FROM objects WHERE id = ?", (id,)).fetchone()
        return row and row[0]

    def find(self, at: int, what: str, count: int = 1, transaction: int | None = None) -> None:
        self.database.execute("INSERT INTO findings VALUES (?, ?, ?, ?)", (at, what, count, transaction))

    def findings(self) -> list[Finding]:
        return self.database.execute("SELECT at, what, count, transaction_ FROM findings ORDER BY at").fetchall()

    def store(self, of: Transaction, at: int, takes_archive: bool) -> None:
        """Take in what a transaction did, which was finished `at`."""
        execute, many = self.database.execute, self.database.executemany
        many("DELETE FROM objects WHERE id = ?", [(id,) for id in of.taken])
        many("INSERT OR REPLACE INTO objects VALUES (?, ?)", [(id, of.number) for id in of.added])
        many("UPDATE archives SET gone = ? WHERE id = ? AND gone IS NULL", [(of.number, id) for id in of.taken])
        if takes_archive and of.archive is not None and of.archive in of.added:
            execute("INSERT OR REPLACE INTO archives VALUES (?, ?, ?, NULL)", (of.archive, of.number, at))

    def take_segments(self, sizes: dict[int, int]) -> int:
        """Take in which segments there are, with their sizes. Returns how many have gone, or have another size."""
        known = self.database.execute("SELECT number, size FROM segments").fetchall()
        lost = [(number,) for number, size in known if sizes.get(number) != size]
        self.database.executemany("DELETE FROM segments WHERE number = ?", lost)
        self.database.executemany("INSERT OR REPLACE INTO segments VALUES (?, ?)", sizes.items())
        return len(lost)

    def forget(self) -> None:
        """Forget all but the archives. Which of those are gone is to be seen when the log has been read anew: not yet
        where borg has no index, after somebody went back to an older state."""
        for table in ("objects", "segments", "findings", "facts"):
            self.database.execute(f"DELETE FROM {table}")
        self.set_fact("unmarked", "yes")

    def mark_gone(self) -> None:
        """Once after `forget`, note which archives are no longer among the objects: a compaction leaves no note of what
        it took away."""
        if self.fact("unmarked") != "yes":
            return
        self.set_fact("unmarked", "no")
        gone = "UPDATE archives SET gone = ? WHERE gone IS NULL AND id NOT IN (SELECT id FROM objects)"
        self.database.execute(gone, (self.fact("transaction"),))

    def archives(self) -> list[tuple[str, int, int, int | None]]:
        """Id, transaction, time and the transaction that took it away of each archive, in the order of writing."""
        rows = self.database.execute("SELECT id, written, at, gone FROM archives ORDER BY written")
        return [(id.hex(), number, at, gone) for id, number, at, gone in rows]

    def listed(self) -> list[dict[str, Any]]:
        """The archives as `ledger.json` has them."""
        return [
            {"id": id, "transaction": number, "at": moment(at), "gone": gone}
            for id, number, at, gone in self.archives()
        ]
