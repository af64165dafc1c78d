"""How many documents CouchDB has now: by its own word, else by its files."""

from __future__ import annotations

import contextlib
import time
import urllib.error
from typing import Any

from chtbackup.backup.data import Data
from chtbackup.backup.run import Run
from chtbackup.base.errors import reason_of
from chtbackup.couchdb import files as couch_files
from chtbackup.couchdb.http import ask_couchdb
from chtbackup.couchdb.scan import located
from chtbackup.manifest import write as manifest


class Counter:
    """Asks CouchDB, or its files."""

    def __init__(self, run: Run, data: Data) -> None:
        self.run = run
        self.data = data
        self.addresses: list[str] = []
        """Of the CouchDBs that run."""
        self.logins: list[tuple[str, str]] = []
        """Users and passwords, the likeliest first."""
        self.why_not_asked = "CouchDB is stopped"

    def count(self) -> dict[str, Any]:
        """Counts of every database now, by CouchDB itself. Where it doesn't answer, `source` is "files",
        `reason` says why, and the caller takes the counts from the files' headers."""
        reason = self.why_not_asked
        if self.addresses:
            for address in self.addresses:
                for user, password in self.logins:
                    try:
                        return {"source": "server", "databases": ask_couchdb(address, user, password)}
                    except urllib.error.HTTPError as error:
                        reason = f"CouchDB answers {error.code} {error.reason} to the user {user} of .env"
                        if error.code == 401:
                            continue
                    except (OSError, ValueError, KeyError, TypeError) as error:
                        reason = f"CouchDB can't be asked: {reason_of(error)}"
                    break
            self.run.problem(f"{reason}; counts are from the files")
        return {"source": "files", "reason": reason, "databases": {}}

    def compare_listed(self, counts: dict[str, Any], scanned: dict[str, Any]) -> None:
        """See whether every database that CouchDB lists has files in what is backed up. Databases come and
        go, so both are asked again where they don't agree: a file that is lost lacks each time."""
        lacking = self._listed(counts) - scanned["databases"].keys()
        for _attempt in range(3):
            if not lacking:
                break
            time.sleep(2)
            lacking &= self._listed(self.count()) - self.data.scan()["databases"].keys()
        for name in sorted(lacking):
            directories = ", ".join(self.data.directories)
            self.run.problem(f"CouchDB lists the database {name}, but no file of it is in {directories}")

    def _listed(self, counts: dict[str, Any]) -> set[str]:
        """The databases that CouchDB lists: by its own answer, else by its files."""
        if counts["source"] == "server":
            return set(counts["databases"])
        found: set[str] = set()
        for directory in self.data.directories:
            # What is wrong with the file itself is told by the scan.
            with contextlib.suppress(OSError, couch_files.Unreadable):
                path = located(f"{directory}/_dbs.couch", self.data.elsewhere)
                found.update(couch_files.listed_databases(path))
        return found


def complete(counts: dict[str, Any], scanned: dict[str, Any]) -> dict[str, Any]:
    """Counts with those of the files where CouchDB didn't give them."""
    if counts["source"] == "files":
        return {**counts, "databases": manifest.counts_of(scanned["databases"])}
    return counts
