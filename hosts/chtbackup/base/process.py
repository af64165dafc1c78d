"""Programs that are run, and what they do meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from typing import IO, Any

from chtbackup.base.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def end_with_parent() -> None:
    # prctl(PR_SET_PDEATHSIG, SIGTERM): borg must not go on, unobserved, when this process was killed.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def unread(pipe: IO[str]) -> int:
    """Bytes in a pipe that its reader hasn't taken yet."""
    waiting = fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(waiting, sys.byteorder)


def descendants(parent: int) -> list[int]:
    """Process numbers of the children of a process, and of theirs."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
            children = [int(text) for text in file.read().split()]
    except OSError:
        return []
    return [process for child in children for process in (child, *descendants(child))]


def name_of(process: int) -> str:
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def work_done(process: int) -> int | None:
    """Bytes that a process has read and written so far, and the time that it has computed, in one number; 0
    when it has ended, None when the kernel doesn't tell."""
    try:
        with open(f"/proc/{process}/io", encoding="ascii") as file:
            moved = sum(int(line.split()[1]) for line in file if line.startswith(("rchar", "wchar")))
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            after_name = file.read().rpartition(")")[2].split()
        return moved + int(after_name[11]) + int(after_name[12])  # utime and stime, see proc(5)
    except PermissionError:
        return None
    except (OSError, ValueError, IndexError):
        return 0


def open_files(process: int) -> list[str]:
    """Paths of the files that a process has open."""
    try:
        return [os.readlink(f"/proc/{process}/fd/{name}") for name in os.listdir(f"/proc/{process}/fd")]
    except OSError:
        return []


def end(child: subprocess.Popen[str], patience: float = 20) -> None:
    """End a program and all that it started: those of the session that it leads. Gently first, and by force after so
    many seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + patience
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
            os.killpg(child.pid, signal.SIGCONT)  # one that was suspended must hear it, too
            while time.monotonic() < deadline:
                child.poll()
                os.killpg(child.pid, 0)  # fails when none of the group is left
                time.sleep(0.05)
            continue
        return


def stopped(number: int, _frame: Any) -> None:
    for other in SIGNALS:  # once is enough; the rest is tidying up
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


def stop_on_signals() -> None:
    """From here on a signal that ends a program raises Stopped."""
    for number in SIGNALS:
        signal.signal(number, stopped)


def end_with_input() -> None:
    """Stop when the operator's side is gone: its end of the standard input is closed then. Runs in a thread."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
