"""Files of our own."""

from __future__ import annotations

import contextlib
import os


def write_atomically(path: str, text: str, mode: int = 0o640) -> None:
    """Put a text at a path in one step, and on the disk. Raises OSError, and leaves nothing then."""
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        # Paths may be no UTF-8.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def size_of(directory: str) -> int:
    """Bytes that the files below a directory take, as far as they can be looked at: others may take some away."""
    total = 0
    for folder, _folders, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
