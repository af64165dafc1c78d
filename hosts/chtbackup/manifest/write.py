"""The manifest of an archive: what was backed up, and how to tell whether a copy of it is complete.

An archive holds it in two parts, `manifest-before.json`, written before the first byte was read, and
`manifest-after.json`, written when everything else had been read. CouchDB keeps running meanwhile, so the
archive's numbers lie between the two.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from typing import Any

from chtbackup.couchdb.scan import database_of, grouped

FORMAT = "cht-backup manifest 1"

Counts = dict[str, dict[str, int]]
"""By database: `documents`, `deleted`, `updateSequence`."""


def owned(of: os.stat_result) -> dict[str, Any]:
    """Mode and owners of a file or directory as the manifest has them."""
    return {"mode": f"{stat.S_IMODE(of.st_mode):04o}", "uid": of.st_uid, "gid": of.st_gid}


def checksum(path: str) -> str:
    """SHA-256 of a regular file. Raises OSError for all else, and never waits for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    digest = hashlib.sha256()
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is no file any more", path)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def compare_counts(before: Counts, after: Counts, found: Counts, unsteady: Collection[str] = ()) -> list[str]:
    """Tell what is wrong with the databases `found` in a copy; one line each, empty when they are right.

    An update sequence only grows, so it must lie between the one before and the one after. Every step of it
    changes at most one document, so the number of documents may differ from either side's by no more than
    the number of steps between them. A database that was made or deleted meanwhile (`unsteady`, where the
    backup saw it) may be there, in part, or not.
    """
    problems = []
    for name in sorted({*before, *after, *found} - {*unsteady}):
        low, high, copy = before.get(name), after.get(name), found.get(name)
        if copy is None:
            if low is not None and high is not None:
                problems.append(f"{name}: missing ({low['documents']} documents when it was backed up)")
            continue
        if low is None and high is None:
            problems.append(f"{name}: was not backed up, so it comes from elsewhere")
            continue
        # Deleted and made again meanwhile: the sequence begins anew, and nothing can be said.
        if low is not None and high is not None and high["updateSequence"] < low["updateSequence"]:
            continue
        steps = copy["updateSequence"]
        for side, bound in ((1, low), (-1, high)):
            if bound is None:
                continue
            apart = (steps - bound["updateSequence"]) * side
            when = "before" if side == 1 else "after"
            if apart < 0:
                word = "older than before" if side == 1 else "newer than after"
                problems.append(
                    f"{name}: {word} the backup (update sequence {steps}, manifest {bound['updateSequence']};"
                    f" {copy['documents']} documents, manifest {bound['documents']})"
                )
            elif abs(copy["documents"] - bound["documents"]) > apart:
                problems.append(
                    f"{name}: {copy['documents']} documents, but {bound['documents']} {when} the backup"
                    f" and only {apart} changes between"
                )
    return problems


def compare_shards(before: Counts, after: Counts, found: Counts, passed_over: Collection[str] = ()) -> list[str]:
    """Tell which shard files of a copy are missing, have lost their end, or are of a later one; a line each.

    `before` and `found` are by path in the data directory, with the numbers of each file's header; `after`
    is by database. A busy database's sum has room for many documents between before and after, in which
    the loss of a shard's end could hide: so each shard must stand at least where it stood before, and it
    can't have gone further than its whole database has gone until after. `passed_over` are paths of which
    nothing is said, because enough is said elsewhere.
    """
    problems = []
    missing = []
    stood: dict[str, int] = {}
    for path, of in before.items():
        stood[database_of(path)] = stood.get(database_of(path), 0) + of["updateSequence"]
    for path in sorted({*before} - {*passed_over}):
        low, copy = before[path], found.get(path)
        database = database_of(path)
        # Less than nothing when it was deleted and made again meanwhile: then nothing can be said.
        steps = after.get(database, {}).get("updateSequence", 0) - stood[database]
        if copy is None:
            if database in after:
                missing.append(("missing", f"{path}: missing; CouchDB would silently recreate it empty"))
        elif copy["updateSequence"] < low["updateSequence"]:
            problems.append(
                f"{path}: cut off or damaged (update sequence {copy['updateSequence']}, but"
                f" {low['updateSequence']} before the backup; {low['documents']} documents then)"
            )
        elif 0 <= steps < copy["updateSequence"] - low["updateSequence"]:
            problems.append(
                f"{path}: newer than the backup (update sequence {copy['updateSequence']}, but at most"
                f" {low['updateSequence'] + steps} when it ended), so it comes from elsewhere"
            )
        elif abs(copy["documents"] - low["documents"]) > copy["updateSequence"] - low["updateSequence"]:
            problems.append(
                f"{path}: {copy['documents']} documents, but {low['documents']} before the backup and only"
                f" {copy['updateSequence'] - low['updateSequence']} changes since"
            )
    return grouped(missing) + problems


def counts_of(databases: dict[str, Any]) -> Counts:
    """Reduce entries of `couch_files.scan` to the numbers that are compared."""
    return {
        name: {key: of[key] for key in ("documents", "deleted", "updateSequence")} for name, of in databases.items()
    }
