#!/usr/bin/env python3
"""Seal what a backup has written: it becomes root's, so that nothing that runs as the account which receives backups,
borg included, can change or remove it again, whatever a client makes it do.

- A committed segment belongs to root, mode 0440; so does `config`, which holds the key (0640).
- Directories belong to root, mode 1770: the account can add files, and with the sticky bit it can remove only its own.
- What isn't committed, borg's index and its locks stay the account's.

Run as root by `cht-repository-seal-DEPLOYMENT.service` after each transaction, and by the stack. See `--help`.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import errno
import json
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import segment_log
from plain import complain, exit_with, say

SEALED_FILE, SEALED_DIRECTORY, SEALED_CONFIG = 0o440, 0o1770, 0o640
ROUNDS = 20  # looks for what was committed meanwhile
NAMED = 3  # paths that a message names


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

    # ---- looking and sealing are one walk -----------------------------------------------------------------

    def look(self) -> Seals:
        """What is sealed, and whether the guard gets at what it needs. Changes nothing."""
        seals = self._walk(lambda *_: False)
        seals.unsealed += [path for path, mode, group in self._own() if not is_as(path, mode, group)]
        return seals

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

    def _walk(self, take: Callable[[int, os.stat_result, int], bool]) -> Seals:
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
            if number <= seals.transaction:
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


def is_as(path: str, mode: int, group: int) -> bool:
    """Whether a directory of root's is there, with this mode and group."""
    try:
        of = os.stat(path)
    except FileNotFoundError:
        return False
    return (stat.S_IMODE(of.st_mode), of.st_uid, of.st_gid) == (mode, 0, group)


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


def read(path: str) -> str:
    """A small file's text; empty where there is none, or a link. Raises OSError where it can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return ""
        raise
    with os.fdopen(descriptor, "rb") as file:
        return file.read(1 << 20).decode("utf-8", "replace")


def write(path: str, text: str, mode: int, group: int) -> None:
    """Write a file of root's, as a whole or not at all."""
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.remove(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchown(descriptor, 0, group)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    os.replace(temporary, path)


def seal_all(repository: Repository) -> Seals:
    """Seal until nothing is finished that isn't sealed."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{repository.state}/spool/seal")  # the guard's wish, which is met from here on
    seals = repository.seal()
    for _ in range(ROUNDS):
        if not repository.exists() or repository.finished() == seals.transaction:
            break
        seals = repository.seal()
    return seals


def problem(repository: Repository, seals: Seals) -> str | None:
    """What an operator must do about what couldn't be sealed; None where there is nothing."""
    if seals.strangers:
        return (
            f"{repository.path}: {named(seals.strangers)} belongs to an account that this machine doesn't know for this"
            " deployment (a disk from another machine?). `pulumi up` takes it over"
        )
    if seals.unsealed:
        return f"{repository.path}: {named(seals.unsealed)} can't be sealed"
    return None


def seen(seals: Seals) -> dict[str, Any]:
    """What `look` prints: the newest transaction, and what isn't sealed, in words for a preview; empty where all is."""
    missing = [*seals.unsealed, *seals.strangers]
    return {"transaction": seals.transaction, "unsealed": named(missing)}


def named(paths: list[str]) -> str:
    more = len(paths) - NAMED
    return ", ".join(paths[:NAMED]) + (f" and {more} more" if more > 0 else "")


def try_out(repository: Repository) -> None:
    """Try on the repository's own file system whether seals hold there. Raises CannotSeal."""
    folder = f"{repository.path}.seal-test"
    path = f"{folder}/sealed"
    remove_test(folder)
    try:
        os.mkdir(folder, 0o700)
        write(path, "sealed", SEALED_FILE, repository.gid)
        os.chown(folder, 0, repository.gid)
        os.chmod(folder, SEALED_DIRECTORY)
        of, inside = os.stat(folder), os.stat(path)
        kept = (of.st_uid, stat.S_IMODE(of.st_mode), inside.st_uid, stat.S_IMODE(inside.st_mode))
        holds = kept == (0, SEALED_DIRECTORY, 0, SEALED_FILE) and tried_as(
            repository,
            [
                lambda: os.remove(path),
                lambda: os.rename(path, f"{path}-2"),
                lambda: open(path, "a").close(),
                lambda: os.chmod(path, 0o600),
                lambda: os.rmdir(folder),
            ],
        )
    except OSError as error:
        raise CannotSeal(f"{repository.path}: seals can't be tried out: {error}") from error
    finally:
        remove_test(folder)
    if not holds:
        raise CannotSeal(
            f"{repository.path}: its file system doesn't keep owners and modes (a network share, FAT or NTFS?), so that"
            " root can't keep archives from whoever takes over the account. Use ext4, XFS, Btrfs or ZFS"
        )


def remove_test(folder: str) -> None:
    for path, remove in ((f"{folder}/sealed", os.remove), (f"{folder}/sealed-2", os.remove), (folder, os.rmdir)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            remove(path)


def tried_as(repository: Repository, attempts: list[Callable[[], Any]]) -> bool:
    """Whether each attempt is refused to the account, while it can add a file of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(repository.gid)
            os.setuid(repository.uid)
            own = f"{repository.path}.seal-test/own"
            os.close(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.remove(own)
            code = 0 if all(refused(attempt) for attempt in attempts) else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def refused(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    return False


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotSeal(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error


def act(action: str, settings: dict[str, Any]) -> int:
    repository = Repository(settings)
    maintenance = f"{repository.state}/open"
    if action == "open":
        # First: a transaction of the maintenance must not have all sealed in its middle.
        write(maintenance, time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()), 0o600, 0)
        repository.open()
        say(f"{repository.path} is open: the account {settings['user']} can change and delete what is in it")
        return 0
    if action == "look":
        say(json.dumps(seen(repository.look())))
        return 0
    repository.prepare()
    if action in ("close", "adopt"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(maintenance)
    elif os.path.exists(maintenance):
        say(f"open for maintenance since {read(maintenance).strip()}: nothing is sealed until it is closed")
        return 0
    if action == "adopt":
        try_out(repository)
        repository.seal(adopt=True)
    seals = seal_all(repository)
    now, marker = f"{seals.transaction}\n", f"{repository.state}/sealed"
    # Its change starts the audit, which starts this program.
    if seals.transaction is not None and read(marker) != now:
        write(marker, now, 0o644, 0)
    why = problem(repository, seals)
    if why is not None:
        raise CannotSeal(why)
    say("nothing to seal yet" if seals.transaction is None else f"sealed up to transaction {seals.transaction}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="seal.py",
        description="Make what backups have written into a borg repository root's, for good. `seal` seals what is"
        " finished; `adopt` first tries whether seals hold on this file system, and takes over what belongs to an"
        " account of another machine; `look` prints as JSON what isn't sealed; `open` breaks all seals, for maintenance"
        " as the account, and none is made until `close`.",
        epilog="Exit codes: 0 done, 2 not done or not all, the reason is named.",
    )
    parser.add_argument("action", choices=("seal", "adopt", "look", "open", "close"), metavar="ACTION",
                        help="seal, adopt, look, open or close")  # fmt: skip
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup-server/DEPLOYMENT/repository.json")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        with plain_errors():
            with open(options.settings, encoding="utf-8") as file:
                settings = json.load(file)
            return act(options.action, settings)
    except CannotSeal as error:
        complain(error)
        return 2


if __name__ == "__main__":
    exit_with(main)
