"""A drill from the bucket: which copy of the repository it takes, what speaks against that copy, and its fetching.

`bucket_fetch.py` does the work, as a program of its own in a Python environment that has boto3. It reads the key for
reading from a file, so no other program of the drill ever holds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import backup
import restore
from restore import Refused, duration

HOUR = 3600


def doubts(copy: dict[str, Any], now: float, hours: float) -> list[str]:
    """What is wrong with the newest copy, described by `bucket_fetch.newest`, one line each; `hours` is how old it may
    be. Its age is by the bucket's clock, which a server that was taken over can't set; this machine's can't be far from
    it, as the bucket answers no request that is dated otherwise."""
    found = [text.removeprefix("WARNING: ").removeprefix("note: ") for text in copy["remarks"]]
    age = now - copy["finishedAt"]
    if age > hours * HOUR:
        found.append(
            f"the newest copy in the bucket ({copy['finished']}) is {duration(age)} old, and {hours:g} h are allowed:"
            " backups or copies have stopped, or somebody has stopped them; look at the server"
        )
    return found


def archive_too_old(age: float, hours: float) -> str | None:
    """Why the newest archive in a copy is too old; `age` in seconds. Unlike the copy's own times, the archive's can't
    be forged without the passphrase."""
    if age <= hours * HOUR:
        return None
    return (
        f"the newest finished archive in the copy is {duration(age)} old, and {hours:g} h are allowed: backups have"
        " stopped, or copies come that hold nothing new, as when somebody puts old ones into the bucket again"
    )


def newest(place: dict[str, Any]) -> dict[str, Any]:
    """The newest whole copy, as `bucket_fetch.newest` describes it; `place` is the settings' `bucket`. Raises
    Refused."""
    said: list[str] = []
    ask(place, ["newest"], place, said.append)
    try:
        return json.loads("".join(said))
    except ValueError:
        raise Refused("bucket_fetch.py says nothing of the newest copy") from None


def fetch(place: dict[str, Any], copy: dict[str, Any], directory: str) -> None:
    """Fetch the repository as a copy has it into a directory. Raises Refused."""
    request = {**place, "copy": copy["copy"], "version": copy["version"]}
    ask(place, ["fetch", directory], request, backup.say)


def ask(place: dict[str, Any], words: list[str], request: dict[str, Any], heard: Callable[[str], None]) -> None:
    """Run bucket_fetch.py, and hand over its lines as they come. Raises Refused with its reason."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bucket_fetch.py")
    try:
        child = subprocess.Popen(
            [place["python"], script, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", start_new_session=True, preexec_fn=backup._end_with_parent,
        )  # fmt: skip
    except OSError as error:
        raise Refused(f"{place['python']} can't be run ({error.strerror}): `pulumi up` makes it") from None
    with child:
        try:
            assert child.stdin is not None and child.stdout is not None and child.stderr is not None
            with contextlib.suppress(BrokenPipeError), child.stdin:
                child.stdin.write(json.dumps(request) + "\n")
            for line in child.stdout:
                heard(line.rstrip("\n"))
            # A line or two: they wait in the pipe.
            said = child.stderr.read().strip().splitlines()
            code = child.wait()
        except BaseException:
            restore.end(child)
            raise
    if code != 0:
        raise Refused(said[-1] if said else f"bucket_fetch.py ended with exit code {code}")
