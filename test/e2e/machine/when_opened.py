"""Wait until borg opens a file, then do something to it or around it. Exit code 1 when borg never came.

Arguments: FILE `append`: CouchDB's kind of data blocks are appended to it for as long as borg has it open.
           FILE `run` COMMAND: the shell command is run, while borg stands still.
"""

import ctypes
import os
import select
import struct
import subprocess
import sys
import time

IN_OPEN, IN_CLOSE_NOWRITE = 0x20, 0x10
FAN_CLASS_CONTENT, FAN_MARK_ADD, FAN_OPEN_PERM, FAN_ALLOW = 0x4, 0x1, 0x10000, 0x1
FAN_EVENT = "=IBBHQii"  # struct fanotify_event_metadata
BLOCK = 4096
LIMIT = 60  # seconds


def is_borg(process: int) -> bool:
    """Whether it is `borg create`."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
    except OSError:
        return False
    return any(os.path.basename(argument) == b"borg" for argument in arguments[:2]) and b"create" in arguments


def is_running() -> bool:
    return any(is_borg(int(name)) for name in filter(str.isdigit, os.listdir("/proc")))


def hold(path: str, command: str) -> None:
    """Run the command while borg waits for the file to be opened: the kernel asks us first (fanotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    asked = libc.fanotify_init(FAN_CLASS_CONTENT, os.O_RDONLY)
    if asked < 0 or libc.fanotify_mark(asked, FAN_MARK_ADD, ctypes.c_uint64(FAN_OPEN_PERM), -1, os.fsencode(path)) < 0:
        sys.exit(f"{path} can't be watched: {os.strerror(ctypes.get_errno())}")
    end = time.monotonic() + LIMIT
    held: int | None = None
    running: subprocess.Popen[bytes] | None = None
    while running is None or running.poll() is None:
        if running is None and time.monotonic() > end:
            sys.exit(f"borg didn't open {path} within {LIMIT} s")
        if not select.select([asked], [], [], 0.02)[0]:
            continue
        data = os.read(asked, 65536)
        while data:
            length, _, _, _, _, file, process = struct.unpack_from(FAN_EVENT, data)
            data = data[length:]
            if running is None and is_borg(process):
                held = file
                running = subprocess.Popen(["sh", "-ec", command])
            else:
                os.write(asked, struct.pack("iI", file, FAN_ALLOW))
                os.close(file)
    assert held is not None
    os.write(asked, struct.pack("iI", held, FAN_ALLOW))
    if running.returncode != 0:
        sys.exit(f"the command ended with {running.returncode}")


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


def append(path: str) -> None:
    descriptor = watch(path)
    end = time.monotonic() + LIMIT
    while not (events(descriptor, 1) & IN_OPEN and is_running()):
        if time.monotonic() > end:
            sys.exit(f"borg didn't open {path} within {LIMIT} s")
    written, closed = 0, False
    with open(path, "ab", buffering=0) as file:
        while not closed:
            written += file.write(b"\0" + os.urandom(BLOCK - 1))
            closed = bool(events(descriptor, 0.0005) & IN_CLOSE_NOWRITE)
    print(written)


if sys.argv[2] == "append":
    append(sys.argv[1])
else:
    hold(sys.argv[1], sys.argv[3])
