"""Wait until a program opens a file, and do something while it stands still: the kernel asks us first (fanotify(7)).

Arguments: FILE `append`: CouchDB's kind of data blocks are appended to it each time that borg reads of it.
           PLACE `run` COMMAND [PATTERN]: the shell command is run, before the program goes on.
           DIRECTORY `stop` NUMBER: borg is stopped (SIGSTOP) when it has extracted that many files to the directory,
           which may not be there yet, and opens the next.
PLACE is a file; where it isn't there yet, or where it ends with a slash, all of its file system is watched for it, or
for what is below it. PATTERN is of the program's command line, by default that of `borg create`. Exit code 1 when it
never came.
"""

import ctypes
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

FAN_CLASS_CONTENT, FAN_MARK_ADD, FAN_MARK_FILESYSTEM, FAN_ALLOW = 0x4, 0x1, 0x100, 0x1
FAN_CLOSE_NOWRITE, FAN_OPEN_PERM, FAN_ACCESS_PERM = 0x10, 0x10000, 0x20000
FAN_EVENT = "=IBBHQii"  # struct fanotify_event_metadata
BLOCK = 4096
LIMIT = 540  # seconds; who has called us waits for ten minutes
BORG = r"^(\S*python\S* )?\S*\bborg .*\b{}\b"


def runs(process: int, pattern: str) -> bool:
    """Whether its command line is like that."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            words = os.fsdecode(file.read()).split("\0")
    except OSError:
        return False
    return re.search(pattern, " ".join(words)) is not None


class Asked:
    """What is about to happen to a file, or below a directory."""

    def __init__(self, path: str, mask: int) -> None:
        marks = FAN_MARK_ADD
        if not os.path.isfile(path):
            # In which mounts the program sees it doesn't matter so.
            marks |= FAN_MARK_FILESYSTEM
            while not os.path.exists(path):
                path = os.path.dirname(path)
        libc = ctypes.CDLL(None, use_errno=True)
        # Without O_NONBLOCK the kernel would wait for a writer where somebody opens a pipe.
        self.kernel = libc.fanotify_init(FAN_CLASS_CONTENT, os.O_RDONLY | os.O_NONBLOCK)
        if self.kernel < 0 or libc.fanotify_mark(self.kernel, marks, ctypes.c_uint64(mask), -1, os.fsencode(path)) < 0:
            sys.exit(f"{path} can't be watched: {os.strerror(ctypes.get_errno())}")
        self.end = time.monotonic() + LIMIT

    def questions(self, what: str) -> Iterator[tuple[int, int, int]]:
        """Those that have come meanwhile: what happens, the file, opened for us, and the process."""
        if time.monotonic() > self.end:
            sys.exit(f"not within {LIMIT} s: {what}")
        if not select.select([self.kernel], [], [], 0.02)[0]:
            return
        data = os.read(self.kernel, 65536)
        while data:
            length, _, _, _, mask, file, process = struct.unpack_from(FAN_EVENT, data)
            data = data[length:]
            yield mask, file, process

    def allow(self, file: int) -> None:
        os.write(self.kernel, struct.pack("iI", file, FAN_ALLOW))
        os.close(file)


def path_of(file: int) -> str:
    return os.readlink(f"/proc/self/fd/{file}")


def hold(place: str, command: str, pattern: str) -> None:
    # It starts now: where the file system is watched, a program that is started later waits for our own answer.
    shell = subprocess.Popen(["sh", "-ec", f"read -r go\n{command}"], stdin=subprocess.PIPE)
    assert shell.stdin is not None
    asked = Asked(place, FAN_OPEN_PERM)
    held: int | None = None
    while held is None or shell.poll() is None:
        for _, file, process in asked.questions(f"{pattern} opens {place}, and the command ends"):
            there = path_of(file) == place or (place.endswith("/") and path_of(file).startswith(place))
            if held is None and there and runs(process, pattern):
                held = file
                shell.stdin.write(b"go\n")
                shell.stdin.flush()
            else:
                asked.allow(file)
    asked.allow(held)
    if shell.returncode != 0:
        sys.exit(f"the command ended with {shell.returncode}")


def stop(directory: str, number: int) -> None:
    asked = Asked(directory, FAN_OPEN_PERM)
    extracts = BORG.format("extract")
    seen: set[str] = set()
    while True:
        for _, file, process in asked.questions(f"borg extracts {number} files to {directory}"):
            path = path_of(file)
            if path.startswith(f"{directory}/") and os.path.isfile(path) and runs(process, extracts):
                seen.add(path)
            if len(seen) > number:
                os.kill(process, signal.SIGSTOP)
                asked.allow(file)
                return
            asked.allow(file)


def append(path: str) -> None:
    asked = Asked(path, FAN_ACCESS_PERM | FAN_CLOSE_NOWRITE)
    creates = BORG.format("create")
    written, closed = 0, False
    with open(path, "ab", buffering=0) as file:
        while not closed:
            for what, seen, process in asked.questions(f"borg has read {path}"):
                ours = runs(process, creates)
                if what & FAN_CLOSE_NOWRITE:
                    closed = closed or (ours and written > 0)
                    os.close(seen)
                    continue
                if ours:
                    written += file.write(b"\0" + os.urandom(BLOCK - 1))
                asked.allow(seen)
    print(written)


if sys.argv[2] == "append":
    append(sys.argv[1])
elif sys.argv[2] == "stop":
    stop(sys.argv[1], int(sys.argv[3]))
else:
    hold(sys.argv[1], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else BORG.format("create"))
