"""Decisions of copying a repository to a bucket, apart from acting: settings, what the bucket has already, in which
order the rest goes, which locks must be lengthened, what is wrong with a bucket.

Nothing here asks a bucket, runs a program or changes a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from chtbackup.base import contract
from chtbackup.bucket.index import LARGEST_INDEX, Listing, Version, index_size

DAY = 86400
# Files from WHOLE on are uploaded in parts, and the checksum that the bucket shows is then one of the parts' checksums.
# With other sizes, nothing large that is in a bucket already would be known any more.
PART = 16 * 1024 * 1024
WHOLE = 64 * 1024 * 1024
# How long a version's name is where no copy has shown it yet; AWS's have 32 letters.
VERSION_LENGTH = 32
# The part of the largest index from which a repository's files are a problem, which is years before they are too many.
MANY = 1 / 4
# Storage classes for rare access count an object as at least this many bytes.
SMALLEST_RARE = 128 * 1024


class NoCopy(Exception):
    """No copy can be made, or it can't be checked. The text is one line for the operator."""


# ---- settings -------------------------------------------------------------------------------------------


def read_settings(path: str) -> dict[str, Any]:
    """Read bucket.json. Raises NoCopy naming the file, what is wrong in it and what would be right."""
    try:
        settings = contract.read("bucket", path)
    except contract.Wrong as error:
        raise NoCopy(str(error)) from None
    if settings["lockDays"] <= settings["keepDays"]:
        raise NoCopy(f"{path}: lockDays must be more than keepDays: locks are lengthened in the days between")
    return settings


# ---- decisions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """What is known of a file that was read."""

    size: int
    mtime: int
    """In nanoseconds."""
    inode: int
    sha256: str
    etag: str
    """What the bucket shows for these bytes (md5, or md5 of the parts' md5)."""

    def is_of(self, of: os.stat_result) -> bool:
        # Not the time of the inode's change: each hard link changes it.
        return (self.size, self.mtime, self.inode) == (of.st_size, of.st_mtime_ns, of.st_ino)


@dataclass
class Held:
    """A file of a finished copy in the bucket."""

    version: str
    size: int
    sha256: str
    until: float | None
    """When its lock ends, in seconds since 1970; None: unknown, or no lock that counts."""
    mode: str | None = None
    """Its lock's; None: unknown, or no lock."""


def is_md5(etag: str) -> bool:
    """Whether what a bucket shows can be such a checksum."""
    return re.fullmatch(r"[0-9a-f]{32}(-\d+)?", etag) is not None


def find_version(
    known: Known, held: Held | None, candidates: list[Version], read_back: Callable[[Version], str] | None
) -> Version | None:
    """The version that holds a file's bytes, of those given with the newest first; None when there is none.

    The version of the newest copy (`held`) is right as long as the file is the same. Others are right when the bucket
    shows the checksum that these bytes have: the oldest of them is the original, and whoever has the writer's key can
    put the same bytes there again with a shorter lock. Where the bucket shows another kind of checksum (`read_back`
    given), the two oldest and the two newest of the same size are read: a segment's original is among the oldest, that
    of a file that changes among the newest.
    """
    same = [of for of in reversed(candidates) if of.size == known.size]
    version = held.version if held is not None and held.sha256 == known.sha256 else None
    for right in (lambda of: of.id == version, lambda of: of.etag == known.etag):
        if (found := next(filter(right, same), None)) is not None:
            return found
    if read_back is not None:
        for of in dict.fromkeys([*same[:2], *same[:-3:-1]]):
            if read_back(of) == known.sha256:
                return of
    return None


def match(
    files: dict[str, Known],
    held: dict[str, Held],
    listing: Listing,
    read_back: Callable[[Version], str] | None,
) -> tuple[dict[str, Version], list[str]]:
    """The bucket's version of each file, and the files that it doesn't have."""
    found = {
        path: version
        for path, known in files.items()
        if (version := find_version(known, held.get(path), listing.versions.get(path, []), read_back)) is not None
    }
    return found, [path for path in files if path not in found]


def wait_for(made: float | None, now: float, interval: int) -> float:
    """How many seconds the next copy has to wait, so that there are `interval` between it and the last one, which was
    `made` then (None: there is none). A last one of the future is a clock that was set, and keeps nothing waiting."""
    if made is None or made > now:
        return 0
    return max(0, made + interval - now)


def check_count(paths: Iterable[str], held: dict[str, Held]) -> str | None:
    """What is wrong with the number of a repository's files, in one line. Raises NoCopy where an index can't name them
    all, so that nothing is uploaded which no index would name."""
    paths = list(paths)
    size = index_size(paths, max((len(of.version) for of in held.values()), default=VERSION_LENGTH))
    most = len(paths) * LARGEST_INDEX // size
    flood = "A backup a day makes some ten: look in the server's journal for who stores something all the time"
    if size > LARGEST_INDEX:
        raise NoCopy(
            f"the repository has {len(paths)} files, more than the {most} or so that a copy's index can name; nothing"
            f" was uploaded. {flood}, and run borg compact"
        )
    if size > LARGEST_INDEX * MANY:
        return f"the repository has {len(paths)} files, and no copy can be made of more than {most} or so. {flood}"
    return None


def batches(known: dict[str, Known], missing: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """What to upload, in this order: segments, segments too small for a storage class of rare access, and the files
    that change. Within each by number, so that what is there early is what was there first."""
    segments, small, rest = [], [], []
    for path in missing:
        if not path.startswith("data/"):
            rest.append(path)
        elif known[path].size < SMALLEST_RARE:
            small.append(path)
        else:
            segments.append(path)

    def number(path: str) -> int:
        return int(path.rsplit("/", 1)[1])

    return sorted(segments, key=number), sorted(small, key=number), sorted(rest)


def due(until: float | None, now: float, keep_days: int) -> bool:
    """Whether a lock must be lengthened now. An index that is written names nothing whose lock ends within
    `keep_days`, so every finished copy stays whole for as long, even when no further run comes."""
    return until is None or until < now + keep_days * DAY


def lock_mode(wanted: str, has: str | None, default: str | None) -> str:
    """The mode in which a lock is lengthened. `has` is the version's own, None where it isn't known, and `default` the
    bucket's: a lock in compliance mode can't be given another, so it is lengthened in that."""
    return "COMPLIANCE" if "COMPLIANCE" in (wanted, has or default) else wanted


def bucket_problems(found: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """What is wrong with the bucket's own settings, one line each; none of it keeps a copy from being made."""
    lock, problems = found["lock"], []
    if lock is None:
        return [
            f"the bucket {settings['bucket']} has no object lock: whoever has a key that may delete can delete copies"
        ]
    if lock["days"] is None:
        problems.append(
            f"the bucket {settings['bucket']} has no default retention: it should be {settings['lockDays']} days"
        )
    elif lock["days"] < settings["lockDays"] or (lock["mode"], settings["mode"]) == ("GOVERNANCE", "COMPLIANCE"):
        problems.append(
            f"the bucket {settings['bucket']} locks for {lock['days']} days in {lock['mode']} mode by default:"
            f" it should be {settings['lockDays']} days in {settings['mode']} mode"
        )
    block = found["publicAccessBlock"]
    if block is not None and not all(block.values()):
        off = ", ".join(name for name, on in block.items() if not on)
        problems.append(f"the bucket {settings['bucket']} doesn't block public access: {off} is off")
    return problems  # fmt: skip


def checksums(path: str, step: Callable[[int], None]) -> tuple[str, str]:
    """sha256 of a file, and the checksum that the bucket shows for it (see Known). `step` gets the bytes read."""
    sha256, whole = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    parts = []
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while block := _read(file, PART):
            sha256.update(block)
            if size < WHOLE:
                whole.update(block)
            else:
                parts.append(hashlib.md5(block, usedforsecurity=False).digest())
            step(len(block))
    if size < WHOLE:
        return sha256.hexdigest(), whole.hexdigest()
    return sha256.hexdigest(), etag_of_parts(parts)


def etag_of_parts(parts: list[bytes]) -> str:
    """What the bucket shows for a file of which the parts have these md5."""
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def _read(file: Any, size: int) -> bytes:
    """A full block, or what is left."""
    block = b""
    while len(block) < size and (more := file.read(size - len(block))):
        block = block + more if block else more
    return block


FOLDER = "repository/"
