"""Whether seals hold on a file system, tried as the account."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Any

from chtbackup.repository.files import write
from chtbackup.repository.seals import SEALED_DIRECTORY, SEALED_FILE, CannotSeal, Repository


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
