"""A drill from the bucket: which copy of the repository it takes, what speaks against that copy, and its fetching.

`bucket/fetch.py` does the work, as a program of its own in a Python environment that has boto3. It reads the key for
reading from a file, so no other program of the drill ever holds it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable
from typing import Any

from chtbackup.base import programs
from chtbackup.base.errors import Refused
from chtbackup.base.process import end, end_with_parent
from chtbackup.base.text import duration, say
from chtbackup.drill.findings import Findings
from chtbackup.drill.reports import origin
from chtbackup.drill.room import require_room

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
        raise Refused("the program that fetches says nothing of the newest copy") from None


def take_newest(settings: dict[str, Any], scratch: str, findings: Findings) -> int:
    """Take the repository as its newest copy in the bucket has it into the scratch directory. Returns how many bytes it
    holds there. Raises Refused."""
    place, report = settings["bucket"], findings.report
    findings.stage("choosing the copy in the bucket")
    copy = newest(place)
    report["copy"] = {
        **{name: copy[name] for name in ("copy", "number", "finished", "files")},
        "bucket": place["bucket"],
        "bytes": copy["size"],
        "ageSeconds": round(max(report["beganAt"] - copy["finishedAt"], 0)),
    }
    say(f"the repository is taken from {origin(report)}")
    for text in doubts(copy, report["beganAt"], place["maxAgeHours"]):
        findings.wrong(text)
    require_room(scratch, copy["size"], 0, settings["scratchGibibytes"])
    findings.stage("fetching the repository from the bucket")
    fetch(place, copy, repository_in(scratch))
    findings.right(f"copy: {copy['files']} files fetched from the bucket, each by its version and with its checksum")
    return copy["size"]


def repository_in(scratch: str) -> str:
    """Where the repository is fetched to."""
    return f"{scratch}/repository"


def fetch(place: dict[str, Any], copy: dict[str, Any], directory: str) -> None:
    """Fetch the repository as a copy has it into a directory. Raises Refused."""
    request = {**place, "copy": copy["copy"], "version": copy["version"]}
    ask(place, ["fetch", directory], request, say)


def ask(place: dict[str, Any], words: list[str], request: dict[str, Any], heard: Callable[[str], None]) -> None:
    """Run `fetch`, and hand over its lines as they come. Raises Refused with its reason."""
    try:
        child = subprocess.Popen(
            [*programs.command("fetch", place["python"]), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
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
            end(child)
            raise
    if code != 0:
        raise Refused(said[-1] if said else f"the program that fetches ended with exit code {code}")
