"""The two parts of an archive's manifest: one before the first byte is read, one when all is stored."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import stat
import time
from typing import Any

from chtbackup.backup.collect import Collection
from chtbackup.backup.counts import complete
from chtbackup.base.text import moment
from chtbackup.borg.meaning import damaged
from chtbackup.couchdb.scan import database_of
from chtbackup.manifest import write as manifest


def _state(of: os.stat_result) -> tuple[int, int, int]:
    return of.st_size, of.st_mtime_ns, of.st_ino


def documents_in(databases: dict[str, Any]) -> dict[str, int]:
    """How many documents each database has. Names of users aren't told: their own databases are one here."""
    found: dict[str, int] = {}
    for name, of in databases.items():
        shown = re.sub(r"^medic-user-.*-meta$", "medic-user-*-meta", name)
        found[shown] = found.get(shown, 0) + of["documents"]
    return found


class Description:
    """What was collected, as the manifest has it."""

    def __init__(self, collection: Collection) -> None:
        self.run = collection.run
        self.contents = collection.contents
        self.data = collection.data
        self.counter = collection.counter
        self.collection = collection
        self.seen: dict[str, tuple[int, int, int]] = {}
        """What was read for a checksum, by path."""

    def before(self) -> dict[str, Any]:
        # The server is asked before the files are read: what it has acknowledged by then is in them.
        counts = self.counter.count()
        scanned = self.data.scan()
        counts = complete(counts, scanned)
        for text in scanned["problems"]:
            self.run.problem(f"CouchDB's files: {text}")
        self.counter.compare_listed(counts, scanned)
        # What has been counted must be in the list, so the list is made after it. Of a database that was
        # made, or deleted, between the two looks, nothing was counted that the archive could be held to.
        self.data.list_files(self.data.walk())
        moved = self.data.unsteady()
        counts["databases"] = {name: of for name, of in counts["databases"].items() if name not in moved}
        files = {path: self._describe(path) for path in self.contents.paths}
        prefix = self._prefix()
        return {
            "format": manifest.FORMAT,
            "part": "before",
            "deployment": self.run.deployment,
            "host": platform.node(),
            "archive": self.run.archive,
            "time": moment(time.time()),
            "versions": self.collection.versions,
            "containers": self.collection.containers,
            "places": self.collection.places,
            "counts": counts,
            "shards": self._shards(scanned, moved),
            "views": {prefix + path: of["updateSequence"] for path, of in scanned["views"].items()},
            "files": files,
            "parents": self._parents(),
            "notes": self.run.notes + scanned["notes"],
            "problems": self.run.problems,
        }

    def after(self) -> dict[str, Any]:
        # The files first, so that the server's numbers are the later ones.
        scanned = self.data.scan()
        counts = self.counter.count()
        self.counter.compare_listed(counts, scanned)
        counts = complete(counts, scanned)
        self.data.walk()
        unsteady = self.data.unsteady()
        # A shard that was lost while borg worked, for one.
        for text in scanned["problems"]:
            self.run.problem(f"CouchDB's files: {text}")
        # Of a database that was just being made or deleted, nothing was wrong.
        self.run.problems = [text for text in self.run.problems if damaged(text) not in unsteady]
        counts["databases"] = {name: of for name, of in counts["databases"].items() if name not in unsteady}
        self.run.documents = documents_in(counts["databases"])
        return {
            "format": manifest.FORMAT,
            "part": "after",
            "archive": self.run.archive,
            "time": moment(time.time()),
            "counts": counts,
            "shards": self._shards(scanned, unsteady),
            # The archive holds these as they were at some moment, in part, or not at all.
            "unsteady": sorted(unsteady),
            "changed": self._changed(),
            # Those of the first part, without what turned out to be none.
            "problems": self.run.problems,
        }

    def _describe(self, path: str) -> dict[str, Any]:
        """Kind, owner, mode and size; and a checksum of what doesn't change while CouchDB runs."""
        try:
            of = os.lstat(path)
            if stat.S_ISDIR(of.st_mode):
                return {"kind": "directory", **manifest.owned(of)}
            if stat.S_ISLNK(of.st_mode):
                return {"kind": "link", "target": os.readlink(path)}
            described = {"kind": "file", **manifest.owned(of), "size": of.st_size}
            if not any(path.startswith(f"{directory}/") for directory in self.data.places()):
                self.seen[path] = _state(of)
                described["sha256"] = manifest.checksum(path)
            return described
        except FileNotFoundError:  # swapped by a compaction or deleted since it was listed
            return {"kind": "vanished"}
        except OSError as error:
            self.run.problem(f"{path} can't be read: {error.strerror}")
            return {"kind": "vanished"}

    def _changed(self) -> list[str]:
        """Files that aren't what they were when their checksums were made: the archive may have either."""
        changed = []
        for path, before in self.seen.items():
            try:
                now = _state(os.lstat(path))
            except OSError:
                now = None
            if now != before:
                changed.append(path)
                self.run.notes.append(f"{path} changed during the backup, so a copy of it can't be compared")
        return changed

    def _parents(self) -> dict[str, Any]:
        """Owners and modes of the directories above what is put back, as far as they aren't in the
        archive."""
        found: dict[str, Any] = {}
        roots = [*self.data.places(), *self.collection.places.get("outside", [])]
        for path in [*roots, *(path for path in self.contents.paths if path.startswith(f"{self.run.home}/"))]:
            while (path := os.path.dirname(path)) != "/" and path not in found:
                if path not in self.contents.added:
                    with contextlib.suppress(OSError):
                        found[path] = manifest.owned(os.stat(path))
        return dict(sorted(found.items()))

    def _prefix(self) -> str:
        # `scan` gives paths in the data directory when there is one; the manifest has absolute ones always.
        directories = self.data.directories
        return f"{directories[0]}/" if len(directories) == 1 else ""

    def _shards(self, scanned: dict[str, Any], unsteady: set[str]) -> dict[str, Any]:
        return {
            self._prefix() + path: of for path, of in scanned["shardFiles"].items() if database_of(path) not in unsteady
        }
