"""Which files of a repository are root's, and how they become so: the seals of `seal.py`."""

from __future__ import annotations

import configparser
import contextlib
import os
import pwd
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chtbackup.repository import segment_log
from chtbackup.repository.files import is_as, read, write

SEALED_FILE, SEALED_DIRECTORY, SEALED_CONFIG = 0o440, 0o1770, 0o640
NAMED = 3  # paths that a message names
LATE = 20  # seconds that seals may come after what they are for


class CannotSeal(Exception):
    """The text says why, for the operator."""


@dataclass
class Seals:
    """How far a repository is sealed."""

    transaction: int | None = None
    """The newest one that is finished; None before the first."""
    unsealed: list[str] = field(default_factory=list)
    """What should be root's and isn't, or has another mode; paths in the repository."""
    strangers: list[str] = field(default_factory=list)
    """What belongs neither to root nor to the account: on a disk from another machine accounts have other numbers."""


class Repository:
    """The repository of a deployment as root sees it. The account may write in it at any time, so that every file is
    opened without following links, and judged and changed by what was opened."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.path: str = settings["repository"]
        self.state: str = settings["state"]
        self.maintenance, self.marker = f"{self.state}/open", f"{self.state}/sealed"
        try:
            account = pwd.getpwnam(settings["user"])
        except KeyError:
            raise CannotSeal(f"there is no account {settings['user']}") from None
        self.uid, self.gid = account.pw_uid, account.pw_gid

    def exists(self) -> bool:
        return os.path.isfile(os.path.join(self.path, "config"))

    def finished(self) -> int | None:
        """The newest transaction for which both borg's index and the log say that it is finished."""
        index = segment_log.newest_index(self.path)
        if index is None:
            return None
        for number, path in reversed(segment_log.segments(self.path).items()):
            if number <= index and segment_log.is_committed(path):
                return number
        return None

    def finishes(self) -> bool:
        """Whether borg is about to finish a transaction: its COMMIT is in the log, and the index isn't written yet,
        which takes seconds where it is large. Not where borg was killed in between: the next session finishes that."""
        if not self._is_locked():
            return False
        there, index = segment_log.segments(self.path), segment_log.newest_index(self.path)
        newest = max(there, default=-1)
        return newest > (-1 if index is None else index) and segment_log.is_committed(there[newest])

    def _is_locked(self) -> bool:
        """Whether a borg that runs holds the lock for writing. It names its process there, `HOST.PROCESS-THREAD`."""
        try:
            names = os.listdir(os.path.join(self.path, "lock.exclusive"))
        except (FileNotFoundError, NotADirectoryError):
            return False
        processes = [found[1] for name in names if (found := re.search(r"\.(\d+)-[0-9a-f]+$", name))]
        return any(os.path.exists(f"/proc/{process}") for process in processes)

    def sealed(self) -> int | None:
        """Up to which transaction the last run of seal.py came; None where there was none."""
        with contextlib.suppress(ValueError):
            return int(read(self.marker))
        return None

    # ---- looking and sealing are one walk -----------------------------------------------------------------

    def look(self) -> Seals:
        """What is sealed, and whether the guard gets at what it needs. Changes nothing, and waits for seals that are
        being made."""
        end = time.monotonic() + LATE
        while True:
            before = self.sealed()  # read first: what is sealed during the walk was late, and isn't missing
            seals = self._walk(lambda *_: False)
            if not self._is_late(seals, before) or time.monotonic() > end:
                break
            time.sleep(0.2)
        seals.unsealed += [path for path, mode, group in self._own() if not is_as(path, mode, group)]
        return seals

    def _is_late(self, seals: Seals, before: int | None) -> bool:
        """Whether all that isn't sealed is newer than the last run of seal.py, which comes a moment after a
        transaction."""
        if not seals.unsealed or seals.transaction is None or os.path.exists(self.maintenance):
            return False
        if before is None:
            return True
        return before < seals.transaction and not self._walk(lambda *_: False, before).unsealed

    def seal(self, adopt: bool = False) -> Seals:
        """Seal all that is finished, and say what couldn't be. `adopt` also takes what belongs to neither root nor the
        account."""

        def take(descriptor: int, of: os.stat_result, mode: int) -> bool:
            if of.st_uid not in (0, self.uid) and not adopt:
                return False
            os.fchown(descriptor, 0, self.gid)
            os.fchmod(descriptor, mode)
            return True

        seals = self._walk(take)
        if adopt and seals.strangers:
            self._strangers(lambda name, at: os.chown(name, self.uid, self.gid, dir_fd=at, follow_symlinks=False))
            seals = self._walk(take)
        if self.exists() and seals.transaction is not None:
            self._remember()
        return seals

    def open(self) -> None:
        """Break all seals: the repository is the account's, as borg makes it."""
        for _folder, folders, files, at in os.fwalk(self.path):
            for name in [".", *folders, *files]:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
                    try:
                        os.fchmod(descriptor, 0o600 if name in files else 0o700)
                        os.fchown(descriptor, self.uid, self.gid)
                    finally:
                        os.close(descriptor)

    def _walk(self, take: Callable[[int, os.stat_result, int], bool], up_to: int | None = None) -> Seals:
        if not self.exists():
            return Seals()
        seals = Seals(self.finished())
        if seals.transaction is None:
            return seals
        # Directories before what is in them: in a directory of its own the account could still remove what is root's.
        self._one(self.path, SEALED_DIRECTORY, take, seals)
        data = os.path.join(self.path, "data")
        self._one(data, SEALED_DIRECTORY, take, seals)
        self._one(os.path.join(self.path, "config"), SEALED_CONFIG, take, seals)
        folders = set()
        # In the order of writing, so that whoever sees the newest one sealed knows that all are (guard.py does).
        for number, path in segment_log.segments(self.path).items():
            if number <= (seals.transaction if up_to is None else up_to):
                folder = os.path.dirname(path)
                if folder not in folders:
                    folders.add(folder)
                    self._one(folder, SEALED_DIRECTORY, take, seals)
                self._one(path, SEALED_FILE, take, seals)
        seals.strangers = self._strangers(lambda *_: None)
        return seals

    def _strangers(self, found: Callable[[str, int], None]) -> list[str]:
        """Paths of what belongs to neither root nor the account; `found` gets each name and its directory."""
        paths = []
        for folder, names, files, at in os.fwalk(self.path):
            for name in [*names, *files]:
                with contextlib.suppress(FileNotFoundError):  # locks come and go
                    of = os.stat(name, dir_fd=at, follow_symlinks=False)
                    if of.st_uid not in (0, self.uid) or of.st_gid not in (0, self.gid):
                        found(name, at)
                        paths.append(os.path.relpath(os.path.join(folder, name), self.path))
        return paths

    def _one(self, path: str, mode: int, take: Callable[[int, os.stat_result, int], bool], seals: Seals) -> None:
        directory = mode == SEALED_DIRECTORY
        try:
            descriptor = os.open(
                path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_DIRECTORY if directory else 0)
            )
        except OSError:
            self._add(seals.unsealed, path)
            return
        try:
            of = os.fstat(descriptor)
            regular = directory or stat.S_ISREG(of.st_mode)
            sealed = (of.st_uid, of.st_gid, stat.S_IMODE(of.st_mode)) == (0, self.gid, mode)
            if not sealed and not (regular and take(descriptor, of, mode)):
                self._add(seals.unsealed, path)
        finally:
            os.close(descriptor)

    def _add(self, paths: list[str], path: str) -> None:
        paths.append(os.path.relpath(path, self.path))

    # ---- what root keeps for itself -----------------------------------------------------------------------

    def _remember(self) -> None:
        """Keep a copy of `config`, without whose key nothing can be read, and the highest counter seen."""
        text = read(os.path.join(self.path, "config"))
        kept = os.path.join(self.state, "config")
        if readable_config(text) and read(kept) != text:
            if os.path.exists(kept):  # another key, or another repository: the one before may still be needed
                os.rename(kept, f"{kept}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            write(kept, text, 0o600, 0)
        counter = max(counter_of(read(os.path.join(self.path, "nonce"))), counter_of(read(f"{self.state}/nonce")))
        write(f"{self.state}/nonce", f"{counter:016x}", 0o640, self.gid)

    def _own(self) -> list[tuple[str, int, int]]:
        """Path, mode and group of the directories that the guard must get at."""
        return [
            # As systemd makes them for the units (StateDirectory=), which may not have run yet.
            (os.path.dirname(self.state), 0o755, 0),
            (self.state, 0o755, 0),
            (f"{self.state}/spool", SEALED_DIRECTORY, self.gid),
            (f"{self.state}/spool/refused", SEALED_DIRECTORY, self.gid),
        ]

    def prepare(self) -> None:
        """Root's own place, which the guard goes through, and those in it where the guard tells what root must know."""
        for path, mode, group in self._own():
            if not is_as(path, mode, group):  # the unit can't write above its own directory
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path)
                os.chown(path, 0, group)
                os.chmod(path, mode)


def readable_config(text: str) -> bool:
    """Whether it is a repository's `config` with an id and a key."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        return bool(parser["repository"]["id"].strip() and parser["repository"]["key"].strip())
    except (configparser.Error, KeyError):
        return False


def counter_of(text: str) -> int:
    """borg's counter for encryption as it is in `nonce`: 16 hexadecimal digits; 0 where it isn't that."""
    try:
        return int(text.strip(), 16) if len(text.strip()) == 16 else 0
    except ValueError:
        return 0


def named(paths: list[str]) -> str:
    more = len(paths) - NAMED
    return ", ".join(paths[:NAMED]) + (f" and {more} more" if more > 0 else "")
