"""Where a restore's directories come to be: room, owners, what is there already."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import time
from collections.abc import Iterable
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.text import duration, megabytes, say
from chtbackup.couchdb.scan import list_files

ASSUMED_RATE = 30e6  # bytes a second, for a first guess of the time
PROGRESS_INTERVAL = 10  # seconds
SPARE = 200e6  # bytes that stay free


def estimate(files: int, size: int, here: int | None) -> str:
    """What will be extracted, and a first guess of the time. Sizes in bytes; `here` are left from a run before."""
    return (
        f"{files} files, {megabytes(size)}"
        + ("" if here is None else f", of which {megabytes(here)} are here from a run before")
        + f"; about {duration(max((size - (here or 0)) / ASSUMED_RATE, 1))} at {megabytes(ASSUMED_RATE)} a second"
    )


class Place:
    """A directory that is put in place as a whole, and the place beside it where it is made first.

    `mounts` are the file systems of their own below it, each of which is a place of its own."""

    def __init__(self, target: str, mounts: Iterable[str] = ()) -> None:
        self.target = target
        self.mounted = os.path.ismount(target)
        self.mounts = sorted(mounts)
        folder, name = os.path.split(target)
        self.base = f"{target}/.restoring" if self.mounted else f"{folder}/.{name}.restoring"

    @property
    def fixed(self) -> bool:
        """Whether it can't be renamed, being or holding a file system's root: then its entries are."""
        return self.mounted or bool(self.mounts)

    def occupied(self) -> bool:
        try:
            return self._holds_something(self.target)
        except FileNotFoundError:
            return os.path.lexists(self.target)
        except NotADirectoryError:
            return True

    def _holds_something(self, folder: str) -> bool:
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            if name == "lost+found" or path == self.base or path in self.mounts:
                continue
            leads_to_mount = any(mount.startswith(f"{path}/") for mount in self.mounts)
            if not leads_to_mount or self._holds_something(path):
                return True
        return False

    def free(self) -> int:
        """Free bytes where it will be."""
        path = self.target
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        of = os.statvfs(path)
        return of.f_bavail * of.f_frsize

    def device(self) -> int:
        path = self.target
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return os.stat(path).st_dev


def places_of(targets: list[str], paths: list[str], mounts: list[str]) -> list[Place]:
    """The targets, and the file systems below them that get some of the `paths`."""
    inner = {target: [mount for mount in mounts if mount.startswith(f"{target}/")] for target in targets}
    own = [mount for of in inner.values() for mount in of if any(f"{path}/".startswith(f"{mount}/") for path in paths)]
    return [
        *(Place(target, inner[target]) for target in targets),
        *(Place(mount, [other for other in mounts if other.startswith(f"{mount}/")]) for mount in own),
    ]


def mount_points() -> list[str]:
    """Where file systems are mounted on this machine, links resolved."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        fields = (line.split()[4] for line in file)
        return sorted({re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path) for path in fields})


def own(path: str, of: dict[str, Any]) -> None:
    """Give a directory the owner and mode that a manifest has of it."""
    os.chown(path, of["uid"], of["gid"])
    os.chmod(path, int(of["mode"], 8))


def make_parents(path: str, known: dict[str, dict[str, Any]]) -> None:
    """Make the directories above a path that aren't there, with the owners and modes of the manifest."""
    missing = []
    while (path := os.path.dirname(path)) != "/" and not os.path.isdir(path):
        missing.append(path)
    for folder in reversed(missing):
        os.mkdir(folder)
        os.chmod(folder, 0o755)
        if folder in known:
            own(folder, known[folder])


def require_space(needed: list[tuple[Place, int]]) -> None:
    """Say how many bytes are needed and free on each file system. Raises Refused where there is too little."""
    needs: dict[int, tuple[Place, int]] = {}
    for place, size in needed:
        first, before = needs.get(place.device(), (place, 0))
        needs[place.device()] = (first, before + size)
    for place, size in needs.values():
        free = place.free()
        where = place.target if place.mounted else os.path.dirname(place.target)
        say(f"space: {megabytes(size)} needed, {megabytes(free)} free in {where}")
        if size + SPARE > free:
            raise Refused(
                f"too little space in {where}: {megabytes(size + SPARE)} needed (with a little to spare),"
                f" {megabytes(free)} free"
            )


def works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def complete(path: str, item: dict[str, Any]) -> bool:
    """Whether a file was extracted in full: borg sets its time when all its content is written."""
    try:
        of = os.lstat(path)
    except FileNotFoundError:
        return False
    wanted = datetime.datetime.fromisoformat(item["isomtime"])
    if wanted.tzinfo is None:
        wanted = wanted.replace(tzinfo=datetime.timezone.utc)
    return of.st_size == item["size"] and abs(of.st_mtime - wanted.timestamp()) < 5e-6


def size_of(directory: str) -> int:
    return sum(list_files(directory).values())


class Progress:
    """Says now and then how far the extraction is."""

    def __init__(self, began: float, before: int, total: int) -> None:
        self.began, self.before, self.total, self.said, self.percent = began, before, total, began, -1

    def __call__(self, current: int) -> None:
        now = time.monotonic()
        done = min(self.before + current, self.total)
        # Some hundred lines at most for the hours of a large one: once a minute, or at each percent.
        waited, percent = now - self.said, done * 100 // max(self.total, 1)
        if not self.total or waited < PROGRESS_INTERVAL or (waited < 60 and percent == self.percent):
            return
        self.said, self.percent = now, percent
        left = (self.total - done) * (now - self.began) / max(done, 1)
        say(f"{done / self.total:.0%} extracted: {megabytes(done)} of {megabytes(self.total)}, {duration(left)} left")
