"""Wait until borg opens a file, then do something to it or around it. Exit code 1 when borg never came.

Arguments: FILE `append`: CouchDB's kind of data blocks are appended to it for as long as borg has it open.
           FILE `run` COMMAND: the shell command is run, while borg stands still.
"""

import ctypes
import os
import select
import signal
import struct
import subprocess
import sys
import time

IN_OPEN, IN_CLOSE_NOWRITE = 0x20, 0x10
BLOCK = 4096
LIMIT = 60  # seconds


def borgs() -> list[int]:
    """Process numbers of `borg create` on this machine."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
        except OSError:
            continue
        if any(os.path.basename(argument) == b"borg" for argument in arguments[:2]) and b"create" in arguments:
            found.append(int(name))
    return found


def watch(path: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    if libc.inotify_add_watch(descriptor, os.fsencode(path), IN_OPEN | IN_CLOSE_NOWRITE) < 0:
        sys.exit(f"{path} can't be watched: {os.strerror(ctypes.get_errno())}")
    return descriptor


def events(descriptor: int, wait: float) -> int:
    """All kinds of events that have come meanwhile, at most `wait` seconds after."""
    if not select.select([descriptor], [], [], wait)[0]:
        return 0
    data, kinds = os.read(descriptor, 65536), 0
    while data:
        _, mask, _, length = struct.unpack_from("iIII", data)
        kinds |= mask
        data = data[16 + length :]
    return kinds


def main() -> None:
    path, action = sys.argv[1:3]
    descriptor = watch(path)
    end = time.monotonic() + LIMIT
    while not (events(descriptor, 1) & IN_OPEN and borgs()):
        if time.monotonic() > end:
            sys.exit(f"borg didn't open {path} within {LIMIT} s")
    if action == "append":
        written, closed = 0, False
        with open(path, "ab", buffering=0) as file:
            while not closed:
                written += file.write(b"\0" + os.urandom(BLOCK - 1))
                closed = bool(events(descriptor, 0.0005) & IN_CLOSE_NOWRITE)
        print(written)
        return
    stopped = borgs()
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    try:
        subprocess.run(["sh", "-ec", sys.argv[3]], check=True)
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)


main()
