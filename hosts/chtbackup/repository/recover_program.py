"""The package as one file, kept beside the repository: a recovery kit on paper fetches it from there. It holds no
secret, so that any login at the server may. Earlier ones stay: a kit finds its own by its name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat

from chtbackup.base import pack
from chtbackup.repository.files import is_as, write

NAME = re.compile(r"recover-[0-9a-f]{12}\.pyz")
LARGEST = 16 << 20  # bytes; the package has half a million


def folder(repository: str) -> str:
    """Where they are, so that they go with the repository's disk."""
    return os.path.join(os.path.dirname(repository), "recovery")


def look(repository: str) -> list[str]:
    """SHA-256 of each of them that is whole, by its name, and root's alone to change. Whether the one that is wanted is
    among them is for the stack to say: this package may be the one that somebody has changed."""
    recovery, found = folder(repository), []
    if not os.path.isdir(recovery) or not is_as(recovery, 0o755, 0):
        return []
    for name in sorted(os.listdir(recovery)):
        if not NAME.fullmatch(name):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(f"{recovery}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                of = os.fstat(descriptor)
                if (of.st_uid, of.st_mode) == (0, stat.S_IFREG | 0o644) and of.st_size <= LARGEST:
                    found.append(hashlib.sha256(file.read()).hexdigest())
    return [sha256 for sha256 in found if os.path.exists(f"{recovery}/recover-{sha256[:12]}.pyz")]


def keep(repository: str) -> None:
    """Put the package beside the repository as one file."""
    wanted, recovery = pack.program(), folder(repository)
    if wanted.sha256 in look(repository):
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(recovery)
    os.chown(recovery, 0, 0)
    os.chmod(recovery, 0o755)
    write(f"{recovery}/{wanted.name}", wanted.content, 0o644, 0)
