"""Kill a restore in the middle of its verification: when it reads a file that only the verification reads.

Arguments: GONE, a file that is there during the extraction only; FILE, what is read; PATTERN of the restore's
command line, for pgrep. Exit code 1 when it never came.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

IN_OPEN = 0x20
LIMIT = 60  # seconds


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {LIMIT} s")
        time.sleep(0.001)


def main() -> None:
    gone, path, pattern = sys.argv[1:4]
    # Of a run that was killed.
    if os.path.exists(gone):
        os.remove(gone)
    wait_for(lambda: os.path.exists(gone), "the extraction")
    # The first of them: the others are about to become a program that it starts.
    process = int(subprocess.run(["pgrep", "-o", "-f", pattern], capture_output=True, check=True).stdout)
    wait_for(lambda: not os.path.exists(gone), "the end of the extraction")
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(0)
    if libc.inotify_add_watch(descriptor, os.fsencode(path), IN_OPEN) < 0:
        sys.exit(f"{path} can't be watched: {os.strerror(ctypes.get_errno())}")
    if not select.select([descriptor], [], [], LIMIT)[0]:
        sys.exit(f"{path} isn't read within {LIMIT} s")
    os.kill(process, signal.SIGKILL)


main()
