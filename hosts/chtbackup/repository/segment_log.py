"""Read the log in which borg 1.x stores a repository, without its key and without borg.

A repository is `data/<folder>/<number>`: segments, in the order of their numbers. Each begins with `BORG_SEG`; then
come entries: crc32 and size (4 bytes each, little endian), tag (1 byte), and for PUT and DELETE an id of 32 bytes. What
a PUT stores follows its id (borg's docs/internals/data-structures.rst, "Segments"). Only headers are read here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"BORG_SEG"
PUT, DELETE, COMMIT = 0, 1, 2
MANIFEST = bytes(32)
_HEADER = struct.Struct("<IIB")
_LEAST = {PUT: 41, DELETE: 41, COMMIT: 9}
_LARGEST = 64 << 20  # borg's own limit for an object is 20 MiB


class Damaged(Exception):
    """A segment isn't a log. The text says where."""


@dataclass(frozen=True)
class Entry:
    tag: int
    """PUT, DELETE or COMMIT."""
    id: bytes
    """32 bytes; empty for COMMIT."""
    at: int = 0
    """Where it begins in its segment."""
    size: int = 0


def segments(repository: str) -> dict[int, str]:
    """The paths of all segments by their numbers, the oldest first. Raises OSError."""
    data = os.path.join(repository, "data")
    found = {}
    for folder in os.listdir(data):
        if folder.isdigit():
            for name in os.listdir(os.path.join(data, folder)):
                if name.isdigit():
                    found[int(name)] = os.path.join(data, folder, name)
    return dict(sorted(found.items()))


def entries(path: str) -> Iterator[Entry]:
    """The entries of a segment. Raises Damaged or OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        if os.pread(descriptor, 8, 0) != MAGIC:
            raise Damaged(f"{path} doesn't begin as a segment")
        at = 8
        while at < size:
            head = os.pread(descriptor, 41, at)
            if len(head) < 9:
                raise Damaged(f"{path} is cut off at {at}")
            _crc, length, tag = _HEADER.unpack(head[:9])
            if not _LEAST.get(tag, _LARGEST + 1) <= length <= min(_LARGEST, size - at):
                raise Damaged(f"{path} has no entry at {at}")
            yield Entry(tag, b"" if tag == COMMIT else head[9:41], at, length)
            at += length
    finally:
        os.close(descriptor)


def digest(path: str, entry: Entry) -> str:
    """sha256 of what a PUT has stored, which is encrypted. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(entry.at + 41)
        return hashlib.sha256(file.read(entry.size - 41)).hexdigest()


def is_committed(path: str) -> bool:
    """Whether a segment's last entry is a COMMIT: then it and all before it are for good."""
    last = None
    try:
        for last in entries(path):  # noqa: B007
            pass
    except (Damaged, OSError):
        return False
    return last is not None and last.tag == COMMIT


def newest_index(repository: str) -> int | None:
    """The transaction for which borg has written its newest index. None before the first one."""
    numbers = []
    for name in os.listdir(repository):
        if name.startswith("index.") and name[6:].isdigit():
            # borg removes the one before, and passes over an empty one, which a crash has left.
            with contextlib.suppress(FileNotFoundError):
                if os.path.getsize(os.path.join(repository, name)):
                    numbers.append(int(name[6:]))
    return max(numbers, default=None)
