"""A line a day of what grows (the sizes, the free space, documents by database) and of what ran. Kept for a bit more
than a year."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.watch.days import last_runs

MOST = 400  # lines
MOST_DATABASES = 60  # in a line


def day_of(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def runs_on(day: str, facts: dict[str, Any]) -> dict[str, bool]:
    """What ran on a day, by its name, and whether all of it went well, as far as the last reports tell."""
    runs: dict[str, bool] = {}
    for of, name, well in last_runs(facts):
        if of.isoformat() == day:
            runs[name] = well and runs.get(name, True)
    return runs


def line_of(facts: dict[str, Any], now: float) -> dict[str, Any]:
    """Today's line, from facts. What isn't known is None."""
    disk, backup, audit = facts["disk"] or {}, facts["backup"] or {}, facts["audit"] or {}
    documents = backup.get("documents") or {}
    largest = sorted(documents, key=lambda name: -documents[name])[:MOST_DATABASES]
    return {
        "day": day_of(now),
        "repository": disk.get("repository"),
        "free": disk.get("free"),
        "data": disk.get("data"),
        "archives": audit.get("archives"),
        "documents": {name: documents[name] for name in sorted(largest)},
        "runs": runs_on(day_of(now), facts),
    }


def read(path: str) -> list[dict[str, Any]]:
    """The lines, the oldest first. What is no line is left out."""
    lines = []
    with contextlib.suppress(OSError):
        with open(path, encoding="utf-8", errors="replace") as file:
            for text in file:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    of = json.loads(text)
                    lines.append({name: of[name] for name in ("day", "repository", "free", "data", "archives")})
                    lines[-1]["documents"] = dict(of.get("documents") or {})
                    lines[-1]["runs"] = {str(name): bool(well) for name, well in (of.get("runs") or {}).items()}
    return lines[-MOST:]


def with_today(lines: list[dict[str, Any]], today: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines with today's, which takes the place of an earlier one of the same day. What that one knew and this one
    doesn't, as the last run failed, stays."""
    before = next((of for of in lines if of["day"] == today["day"]), {})
    runs = before.get("runs", {})
    # One that failed in the morning isn't forgotten for one that didn't at noon.
    also = {name: well and runs.get(name, True) for name, well in today.get("runs", {}).items()}
    today = {**before, **today, **{name: of for name, of in before.items() if today.get(name) in (None, {})}}
    today["runs"] = {**runs, **also}
    return [*(of for of in lines if of["day"] < today["day"]), today][-MOST:]


def write(path: str, lines: list[dict[str, Any]]) -> None:
    """Raises OSError."""
    write_atomically(path, "".join(f"{json.dumps(of)}\n" for of in lines), 0o640)
