"""Fetch a copy's files into a directory, each compared with the size and checksum in the copy's index."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.text import megabytes
from chtbackup.bucket import client as bucket
from chtbackup.bucket.borg_index import INDEX_HEADER, mistaken_header
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.errors import BucketError
from chtbackup.bucket.index import Index, Stored
from chtbackup.bucket.parallel import in_parallel

ATTEMPTS = 3
PROGRESS_INTERVAL = 10  # seconds
SPARE = 200e6  # bytes that stay free
# What borg reads whole before it has looked at it, and which has some hundred bytes.
SMALL = re.compile(r"config|nonce|README|integrity\.\d+")
LARGEST_SMALL = 1024 * 1024
FORGED = "the copy is damaged, or its index forged. Take an earlier one (--copy-as-of)"


class Fetch:
    """One repository into one directory. What an earlier run fetched is checked and kept."""

    def __init__(self, there: Bucket, index: Index, directory: str, say: Callable[[str], None]) -> None:
        self.there, self.index, self.directory, self.say = there, index, directory, say
        self.notes = f"{directory}.fetched.json"
        """Lies beside the directory, and says that it is ours to change."""
        self.first = f"index.{index.transaction}"
        self.stop = threading.Event()
        self.counting = threading.Lock()
        self.count_anew()

    def run(self, dry_run: bool = False) -> bool:
        """Whether the directory holds the copy at the end: always, but for a dry run, which changes nothing. Raises
        Refused, BucketError, OSError."""
        if os.path.isdir(self.directory) and os.listdir(self.directory) and not os.path.exists(self.notes):
            raise Refused(f"{self.directory} isn't empty; nothing was changed")
        todo = self.missing()
        size = sum(self.index.objects[path].size for path in todo)
        self.say(
            f"{len(self.index.objects)} files, {megabytes(self.index.size)}"
            + (f", of which {megabytes(self.index.size - size)} are here already" if size < self.index.size else "")
        )
        where = existing(self.directory)
        free = os.statvfs(where)
        self.say(
            f"space for the repository: {megabytes(size)} needed, {megabytes(free.f_bavail * free.f_frsize)} free in"
            f" {where}; what is extracted needs its own besides"
        )
        if size + SPARE > free.f_bavail * free.f_frsize:
            raise Refused(
                f"too little space in {where}: {megabytes(size + SPARE)} needed (with a little to spare),"
                f" {megabytes(free.f_bavail * free.f_frsize)} free. Fetch it to a larger disk"
            )
        if dry_run:
            return not todo and self.noted() == self.about()
        self.prepare()
        self.count_anew()
        # Before hours of fetching the rest.
        if self.first in todo:
            self.fetch(self.first, size)
            todo.remove(self.first)
        self.inspect()
        in_parallel(lambda path: self.fetch(path, size), sorted(todo), self.stop.set)
        self.say(f"fetched and compared in {time.monotonic() - self.began:.0f} s")
        return True

    def inspect(self) -> None:
        """Look at what borg would believe before it has looked. Raises Refused."""
        large = [path for path, of in self.index.objects.items() if SMALL.fullmatch(path) and of.size > LARGEST_SMALL]
        if large:
            raise Refused(f"{large[0]} of the copy is too large to be borg's: {FORGED}")
        path = os.path.join(self.directory, self.first)
        with open(path, "rb") as file:
            wrong = mistaken_header(file.read(INDEX_HEADER.size), os.path.getsize(path))
        if wrong is not None:
            os.remove(path)  # so that nobody opens the directory
            raise Refused(f"{self.first} of the copy is no index of borg's, {wrong}: {FORGED}")

    def missing(self) -> list[str]:
        """Paths of what isn't in the directory yet, or isn't right there."""
        size = sum(self._here(path) for path in self.index.objects)
        paths = sorted(self.index.objects)
        kept = in_parallel(lambda path: self.kept(path, size), paths, self.stop.set)
        return [path for path, right in zip(paths, kept, strict=True) if not right]

    def _here(self, path: str) -> int:
        try:
            return os.path.getsize(os.path.join(self.directory, path))
        except FileNotFoundError:
            return 0

    def about(self) -> dict[str, Any]:
        return {"repository": self.index.repository, "number": self.index.number}

    def noted(self) -> Any:
        """Of which copy the directory's content is, as the last run noted it."""
        try:
            with open(self.notes, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def prepare(self) -> None:
        """Make the directory ready: empty, or what an earlier run fetched, less what isn't in this copy."""
        os.makedirs(os.path.dirname(self.directory) or "/", exist_ok=True)
        with open(self.notes, "w", encoding="utf-8") as file:
            json.dump(self.about(), file)
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        for folder, _folders, names in os.walk(self.directory):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self.directory)
                if path not in self.index.objects:
                    os.remove(os.path.join(folder, name))

    def kept(self, path: str, total: int) -> bool:
        full, of = os.path.join(self.directory, path), self.index.objects[path]
        try:
            if os.path.getsize(full) != of.size:
                return False
        except FileNotFoundError:
            return False
        digest = hashlib.sha256()
        with open(full, "rb") as file:
            while block := file.read(bucket.BLOCK):
                if self.stop.is_set():
                    return False
                digest.update(block)
                self.count(len(block), total, "of what is here compared")
        return digest.hexdigest() == of.sha256

    def fetch(self, path: str, total: int) -> None:
        of = self.index.objects[path]
        full = os.path.join(self.directory, path)
        os.makedirs(os.path.dirname(full), mode=0o700, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                right = self.transfer(path, of, f"{full}.part", total)
            except BucketError:
                if attempt == ATTEMPTS or self.stop.is_set():
                    raise
                time.sleep(attempt)
                continue
            if right:
                os.replace(f"{full}.part", full)
                return
        os.remove(f"{full}.part")
        raise Refused(f"{path} in the bucket isn't what the copy's index says: {FORGED}")

    def transfer(self, path: str, of: Stored, part: str, total: int) -> bool:
        """Fetch into a file; whether it is what the index says."""
        digest, size = hashlib.sha256(), 0
        try:
            with open(part, "wb") as file:
                for block in self.there.read(f"repository/{path}", of.version):
                    if self.stop.is_set():
                        raise BucketError("stopped")
                    file.write(block)
                    digest.update(block)
                    size += len(block)
                    self.count(len(block), total)
                    if size > of.size:
                        break
        finally:
            if (size, digest.hexdigest()) != (of.size, of.sha256):
                self.count(-size, total)
        return (size, digest.hexdigest()) == (of.size, of.sha256)

    def count_anew(self) -> None:
        self.done = 0
        self.began = self.said = time.monotonic()

    def count(self, size: int, total: int, what: str = "fetched") -> None:
        with self.counting:
            self.done += size
            now = time.monotonic()
            if now - self.said < PROGRESS_INTERVAL or not total:
                return
            self.said = now
            left = (total - self.done) * (now - self.began) / max(self.done, 1)
            done = f"{self.done / total:.0%} {what}: {megabytes(self.done)} of {megabytes(total)}"
            self.say(f"{done}, {left / 60:.0f} min left")


def existing(path: str) -> str:
    """The path, or the directory above it that there is."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
