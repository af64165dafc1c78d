"""Room in the scratch directory: what a drill needs, and what it leaves to others."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.text import megabytes, say

GIGABYTE = 1e9
WATCH_INTERVAL = 1


class TooLittle(BaseException):
    """The disk fills up while the drill runs."""


def reserve(size: float) -> float:
    """Bytes of a file system of `size` bytes that a drill leaves free, for whoever else works there."""
    return max(GIGABYTE, size * 0.02)


def too_little(needed: float, free: float, size: float, limit: float) -> str | None:
    """Why there is no room for a drill; sizes in bytes, `limit` 0 for none."""
    if limit and needed > limit:
        return (
            f"it takes {megabytes(needed)} of scratch space, and scratchGibibytes allows {megabytes(limit)}:"
            " raise it, or let another machine drill"
        )
    if needed + reserve(size) > free:
        return (
            f"it takes {megabytes(needed)} of scratch space and {megabytes(reserve(size))} that stay free, and"
            f" {megabytes(free)} are free: make room, or choose another scratch directory"
        )
    return None


def too_many(needed: int, of: os.statvfs_result) -> str | None:
    """Why there is no room for so many more files and directories on a file system."""
    if not of.f_files:  # it makes inodes as it needs them
        return None
    if needed + of.f_files // 50 > of.f_favail:
        return (
            f"it makes {needed:,} files and directories, and {of.f_favail:,} more are possible on that disk (inodes),"
            f" of which {of.f_files // 50:,} stay free: make room, or choose another scratch directory"
        )
    return None


def filling_up(of: os.statvfs_result, path: str) -> str | None:
    """Why a drill must end before the file system of its scratch directory `path` is full for others; None while
    it needn't."""
    free, least = of.f_bavail * of.f_frsize, reserve(of.f_blocks * of.f_frsize)
    texts = (megabytes(free), megabytes(least)) if free < least else None
    if of.f_files and of.f_favail < of.f_files // 50:
        texts = (f"{of.f_favail:,} inodes", f"{of.f_files // 50:,}")
    if texts is None:
        return None
    return f"the disk with {path} fills up: {texts[0]} are free, and {texts[1]} must stay free; the drill was ended"


def require_room(path: str, needed: float, held: float, gibibytes: float) -> None:
    """See to it that there is room for so many bytes more in the scratch directory `path`, where the drill holds some
    already. `gibibytes` is the most it may take, 0 for no limit. Raises Refused."""
    of = os.statvfs(path)
    free, size = of.f_bavail * of.f_frsize, of.f_blocks * of.f_frsize
    say(f"{megabytes(needed)} of scratch space needed, {megabytes(free)} free")
    if why := too_little(needed + held, free + held, size, gibibytes * 1024**3):
        raise Refused(why)


class Watch(threading.Thread):
    """Ends the drill in order when others need the disk."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.done = threading.Event()
        self.why = ""

    def run(self) -> None:
        while not self.done.wait(WATCH_INTERVAL):
            if why := filling_up(os.statvfs(self.path), self.path):
                self.why = why
                os.kill(os.getpid(), signal.SIGUSR1)
                return


def short(_number: int, _frame: Any) -> None:
    raise TooLittle()
