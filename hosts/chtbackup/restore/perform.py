"""Do what the operator's computer asks for by a line of JSON on standard input, which it keeps open while it waits."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from chtbackup.base.errors import REFUSED, Refused, Stopped, reason_of
from chtbackup.base.process import end_with_input, stop_on_signals
from chtbackup.base.text import complain, say
from chtbackup.restore.from_bucket import from_bucket


def forget_other_runs(work: str, own: str) -> None:
    """Remove the scripts and keys of runs whose operator's computer died; after a day such a key is void."""
    for path in pathlib.Path(work).glob("run.*"):
        if str(path) != own and path.stat().st_mtime < time.time() - 24 * 3600:
            shutil.rmtree(path, ignore_errors=True)


def read_line() -> str:
    """The first line of the standard input, and not a byte more."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def perform(action: Callable[[dict[str, Any], str], int], work: str, needs_docker: bool = False) -> int:
    """Do what the line on standard input asks for, alone on this machine, until standard input ends. Returns
    the exit code."""
    os.umask(0o077)
    if os.getuid() != 0:
        complain("a restore must run as root")
        return REFUSED
    stop_on_signals()
    try:
        request = json.loads(read_line())
        dry_run = bool(request.get("dryRun"))
        # A dry run makes nothing; where there is no lock, no other run is there either.
        if not dry_run:
            os.makedirs(work, mode=0o700, exist_ok=True)
        if not dry_run or os.path.exists(f"{work}/lock"):
            lock = os.open(f"{work}/lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not dry_run:
            forget_other_runs(work, os.path.dirname(request["baseDirectory"]))
        threading.Thread(target=end_with_input, daemon=True).start()
        if "bucket" in request:
            # A list is printed as JSON, with nothing beside it.
            tell = complain if "last" in request else say
            return from_bucket(action, request, work, tell, needs_docker)
        return action(request, work)
    except BlockingIOError:
        complain("another restore is running on this machine")
        return REFUSED
    except Refused as error:
        complain(str(error))
        return REFUSED
    except Stopped as error:
        complain(f"stopped by {error}; the next run goes on from here")
        return 143
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        complain(reason_of(error))
        return REFUSED
    except (LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        complain(f"unexpected: {reason}; the archive may be of another kind")
        return REFUSED
