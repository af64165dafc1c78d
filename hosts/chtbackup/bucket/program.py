"""Copy the borg repository on this machine to a bucket, keep the copy locked there, and check it.

Run by the units `cht-bucket-copy-<deployment>` and `cht-bucket-check-<deployment>` as the user that owns the
repository. See `--help` for exit codes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

from chtbackup.base.errors import Stopped
from chtbackup.base.process import stop_on_signals
from chtbackup.base.text import complain, say
from chtbackup.bucket.access import connect
from chtbackup.bucket.check import Check
from chtbackup.bucket.copy import Copy
from chtbackup.bucket.errors import BucketError
from chtbackup.bucket.memory import OnlyOne
from chtbackup.bucket.plan import NoCopy, bucket_problems, read_settings
from chtbackup.bucket.report import FAILED, RIGHT, WRONG, megabytes, remember, report


def attempt(action: Callable[[], None], problems: list[str]) -> bool:
    """Run, and turn every way to fail into one line. Returns whether it came to its end."""
    try:
        action()
        return True
    except (NoCopy, BucketError) as error:
        problems.append(str(error))
    except Stopped as error:
        problems.append(f"stopped by {error}; the next run goes on from here")
    except OSError as error:
        problems.append(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return False


def copy(settings: dict[str, Any], only_extend: bool, settle: int, alone: OnlyOne) -> int:
    """The actions `copy` and `extend`."""
    run = Copy(settings, settle, alone)
    if not attempt(run.extend if only_extend else run.run, run.problems):
        run.outcome = "failed"
    result = run.result()
    if not only_extend:
        remember(settings, "last-copy.json", result)
    report(result)
    say(
        f"{run.outcome}: {run.upload.files} files uploaded, {megabytes(run.upload.bytes)}, {run.locks.extended} locks"
        f" lengthened, {result['requests']} requests in all, {time.time() - run.started:.0f} s"
    )
    return result["exitCode"]


def check(settings: dict[str, Any], everything: bool) -> int:
    run = Check(settings, everything)
    done = attempt(run.run, run.problems)
    result = run.result(FAILED if not done else WRONG if run.problems else RIGHT)
    remember(settings, "last-check.json", result)
    report(result)
    return result["exitCode"]


def describe(settings: dict[str, Any]) -> int:
    there = connect(settings)
    found = there.describe()
    print(json.dumps({**found, "problems": bucket_problems(found, settings)}))
    return RIGHT


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Copy a borg repository to a bucket, keep the copies locked there, and check them. `copy` copies"
        " what is new and lengthens locks; `extend` only lengthens locks; `check` compares the bucket with its newest"
        " index and reads some of it back; `describe` prints the bucket's protection as JSON.",
        epilog="Exit codes: 0 all is well (also: nothing new, the repository in use and the last copy recent, or"
        " stopped while it only waited); 1 done, but something is wrong, which is named; 2 not done, the reason is"
        " named. Results are kept in the state directory: last-copy.json, last-check.json.",
    )
    parser.add_argument("action", choices=("copy", "check", "extend", "describe"), metavar="ACTION",
                        help="copy, check, extend or describe")  # fmt: skip
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup-bucket/DEPLOYMENT/bucket.json")
    parser.add_argument("--all", action="store_true", help="check: read everything back, whatever it costs")
    parser.add_argument("--settle", type=int, default=0, metavar="SECONDS",
                        help="copy: first wait until nobody has taken or given back the repository's lock for so long,"
                        " at most as long as for the lock itself; default 0")  # fmt: skip
    options = parser.parse_args(arguments)
    os.umask(0o077)
    stop_on_signals()
    try:
        settings = read_settings(options.settings)
        if options.action == "describe":
            return describe(settings)
        check_user(settings)
        with OnlyOne(settings, options.action) as alone:
            if options.action == "check":
                return check(settings, options.all)
            return copy(settings, options.action == "extend", options.settle, alone)
    except (NoCopy, BucketError) as error:
        complain(error)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error)
    except Stopped as error:
        complain(f"stopped by {error}")
    return FAILED


def check_user(settings: dict[str, Any]) -> None:
    """Files of another user in the repository would keep the next backup from being stored. Raises NoCopy."""
    # Its directory is root's where it is sealed; README stays with the account that borg serves it as.
    for path in (os.path.join(settings["repository"], "README"), settings["repository"]):
        with contextlib.suppress(FileNotFoundError):  # a repository that is gone is told of later
            owner = os.stat(path).st_uid
            if owner != os.geteuid():
                raise NoCopy(f"this must run as the user that owns {path} (user number {owner})")
            return
