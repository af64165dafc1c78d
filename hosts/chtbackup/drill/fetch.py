"""Fetch an archive in portions, so that backups get borg's lock in between."""

from __future__ import annotations

import os
import time
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.base.text import duration, say
from chtbackup.borg.client import Borg
from chtbackup.restore.extract import guarded
from chtbackup.restore.output import Output
from chtbackup.restore.targets import Progress

# borg holds a lock for as long as it extracts, and a backup waits ten minutes for it.
PORTION = 1e9  # bytes
# A backup that waits looks five times a second whether the readers have gone.
PAUSE = 2
HELD_LONG = 540  # seconds, after which a backup that waits may give up


def portions(items: list[dict[str, Any]], size: float) -> list[list[str]]:
    """Files to fetch one portion after the other, before a last one that takes all that is left.

    `items` are those of `Borg.items`; a portion has at most `size` bytes, or is a single larger file. Paths
    that a line of borg's pattern file can't hold are left to the last.
    """
    found: list[list[str]] = []
    filled = 0
    for item in items:
        if item["type"] != "-" or not item["size"] or item["path"] != " ".join(item["path"].split()):
            continue
        if not found or filled + item["size"] > size:
            found.append([])
            filled = 0
        found[-1].append(item["path"])
        filled += item["size"]
    return found[:-1]


def patterns(fetched: list[list[str]], number: int) -> str:
    """borg's pattern file for a portion of `portions`; the number after the last one means all that is left."""
    if number < len(fetched):
        return "".join(f"+ pf:{path[1:]}\n" for path in fetched[number]) + "- re:.\n"
    return "".join(f"- pf:{path[1:]}\n" for of in fetched for path in of)


def fetch(borg: Borg, archive: str, directory: str, work: str, output: Output) -> float:
    """Extract an archive into a new directory. Returns how many seconds it took. Raises Refused."""
    items = borg.items(archive)
    total = sum(of["size"] for of in items)
    known, began, finished, longest = {of["path"]: of["size"] for of in items}, time.monotonic(), 0, 0.0
    fetched = portions(items, PORTION)
    os.mkdir(directory, 0o700)
    os.makedirs(work, mode=0o700, exist_ok=True)
    listed = f"{work}/patterns"
    with guarded(borg, archive, [directory]):
        for number in range(len(fetched) + 1):
            if number:
                time.sleep(PAUSE)
            write_atomically(listed, patterns(fetched, number), 0o600)
            locked = time.monotonic()
            borg.extract(
                archive, ["--patterns-from", listed],
                directory=directory, progress=Progress(began, finished, total),
            )  # fmt: skip
            longest = max(longest, time.monotonic() - locked)
            finished += sum(known[path] for path in fetched[number]) if number < len(fetched) else 0
    took = time.monotonic() - began
    say(f"fetched in {duration(took)}, {len(fetched) + 1} portions")
    if longest > HELD_LONG:
        output.remark(
            f"a single file kept the repository locked for {duration(longest)}; a backup waits 10 min, so let"
            " the drill begin when no backup does"
        )
    return took
