"""The files of a snapshot: which belong to the repository, their sizes and checksums."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from chtbackup.bucket.index import PATH
from chtbackup.bucket.memory import Memory
from chtbackup.bucket.plan import Known, NoCopy, checksums
from chtbackup.bucket.report import Progress


def files_of(snapshot: str) -> list[str]:
    """Path of every file of the snapshot that belongs to a repository."""
    found = (
        os.path.relpath(os.path.join(folder, name), snapshot)
        for folder, _folders, names in os.walk(snapshot)
        for name in names
    )
    return [path for path in found if PATH.fullmatch(path)]


def read_all(snapshot: str, paths: list[str], memory: Memory) -> dict[str, Known]:
    """Size and checksums of the snapshot's files; only what the memory doesn't have is read, and it remembers that.
    Raises NoCopy."""
    files: dict[str, Known] = {}
    todo: list[tuple[str, os.stat_result]] = []
    for path in paths:
        with still_here(path):
            of = os.stat(os.path.join(snapshot, path))
        known = memory.files.get(path)
        if known is not None and known.is_of(of):
            files[path] = known
        else:
            todo.append((path, of))
    progress = Progress("read", sum(of.st_size for _path, of in todo))
    for path, of in sorted(todo):
        with still_here(path):
            sha256, etag = checksums(os.path.join(snapshot, path), progress.step)
        files[path] = memory.files[path] = Known(of.st_size, of.st_mtime_ns, of.st_ino, sha256, etag)
        if progress.said_something:
            # So that hours of reading survive a kill.
            memory.save()
            progress.said_something = False
    # What the repository no longer has isn't asked for again.
    memory.files = dict(files)
    memory.save()
    return files


@contextlib.contextmanager
def still_here(path: str) -> Iterator[None]:
    """Say it plainly when a file of the snapshot is a link to what is there no longer. Raises NoCopy."""
    try:
        yield
    except FileNotFoundError:
        raise NoCopy(
            f"{path} left the repository while it was copied, as when somebody compacts it meanwhile; the next run"
            " copies what is there then"
        ) from None
