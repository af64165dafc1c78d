"""Files of root's in a place of the account's, which may have put a link or a pipe there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat


def is_as(path: str, mode: int, group: int) -> bool:
    """Whether a directory of root's is there, with this mode and group."""
    try:
        of = os.stat(path)
    except FileNotFoundError:
        return False
    return (stat.S_IMODE(of.st_mode), of.st_uid, of.st_gid) == (mode, 0, group)


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


def write(path: str, content: str | bytes, mode: int, group: int) -> None:
    """Write a file of root's, as a whole or not at all."""
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.remove(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fchown(descriptor, 0, group)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    os.replace(temporary, path)


def last_success(path: str) -> float | None:
    """When a run last succeeded, in seconds since 1970, by the former report at `path`; None where none says so. Raises
    OSError."""
    with contextlib.suppress(ValueError, AttributeError):
        return json.loads(read(path) or "{}").get("lastSuccessAt")
    return None


def read_lines(path: str) -> list[str]:
    """The lines of a file of the account's, which may have put a link or a pipe there. Raises OSError for a link."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)

    try:
        with open(path, encoding="ascii", errors="replace", opener=opener) as file:
            return file.readlines()
    except FileNotFoundError:
        return []
