"""What is to be expected from the history: when the disk is full, and what isn't usual. Pure."""

from __future__ import annotations

import datetime
from statistics import mean
from typing import Any

DAY, WEEK = 86400, 7 * 86400
WINDOW = 28  # days of which the pace is reckoned
LEAST = 14  # days of history before anything is said of the pace: the first copies are no pace
UNUSUAL = 3  # times as much as in any week before
COLLAPSED = 0.8  # of the documents that there were
FEW = 100  # documents; smaller databases come and go
LOOKED_BACK = 60  # days, for documents
# What the CHT itself empties: logs, and who has purged what.
EMPTIED = ("medic-logs", "medic-purged-", "_replicator", "_global_changes")


def at(line: dict[str, Any]) -> int:
    """When a line's day began, in seconds since 1970."""
    return (datetime.date.fromisoformat(line["day"]) - datetime.date(1970, 1, 1)).days * DAY


def values(lines: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """Days, in seconds since 1970, and what is known of them."""
    return [(at(of), of[name]) for of in lines if of[name] is not None]


def pace(lines: list[dict[str, Any]]) -> float | None:
    """By how many bytes the free space shrinks in a week; None where the history is too short. Weeks are compared, so
    that what retention frees once a week doesn't look like a turn."""
    free = values(lines, "free")
    if not free:
        return None
    last = free[-1][0]
    free = [(day, size) for day, size in free if day > last - WINDOW * DAY]
    if free[-1][0] - free[0][0] < (LEAST - 1) * DAY:
        return None
    first_week = [(day, size) for day, size in free if day < free[0][0] + WEEK]
    last_week = [(day, size) for day, size in free if day > last - WEEK]
    weeks = (mean(day for day, _ in last_week) - mean(day for day, _ in first_week)) / WEEK
    return (mean(size for _, size in first_week) - mean(size for _, size in last_week)) / weeks


def full_at(lines: list[dict[str, Any]], free: int, now: float) -> int | None:
    """When the disk is full at that pace, in seconds since 1970; None where it isn't, within ten years."""
    shrinks = pace(lines)
    if shrinks is None or shrinks <= 0:
        return None
    weeks = free / shrinks
    return round(now + weeks * WEEK) if weeks < 520 else None


def weekly(known: list[tuple[int, float]]) -> list[float]:
    """By how much something grew in each week up to the last day, the last week first."""
    if not known:
        return []
    days, last = dict(known), known[-1][0]
    found = []
    for week in range(12):
        end, begin = (near(days, last - (week + of) * WEEK) for of in (0, 1))
        if end is None or begin is None:
            break
        found.append(end - begin)
    return found


def near(days: dict[int, float], day: int) -> float | None:
    """What is known of a day, or of one of the two before it: a machine may have been off."""
    return next((days[day - back * DAY] for back in range(3) if day - back * DAY in days), None)


def grew(lines: list[dict[str, Any]], name: str) -> tuple[float, float] | None:
    """By how much something grew in the last week, and the most in a week before; None where that is usual. A
    compaction of CouchDB makes the next archive a full copy: as much as was there when the history began is usual."""
    known = values(lines, name)
    weeks = weekly(known)
    if len(weeks) < 4:
        return None
    most = max(weeks[1:])
    usual = max(UNUSUAL * most, 1.5 * known[0][1])
    return (weeks[0], most) if weeks[0] > usual else None


def shrank(lines: list[dict[str, Any]], name: str) -> tuple[float, float] | None:
    """The most in the last eight days, and what is there now, where less than half is left; else None."""
    known = values(lines, name)
    recent = [size for day, size in known if day > known[-1][0] - 9 * DAY]
    return (max(recent), recent[-1]) if recent and recent[-1] < max(recent) / 2 else None


def collapsed(lines: list[dict[str, Any]], documents: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Databases that had many more documents in the last weeks than now, with both numbers. What they had on three days
    counts, so that a mistake that was put right doesn't."""
    if not documents or not lines:
        return {}
    last = at(lines[-1])
    found = {}
    recent = [of["documents"] for of in lines[:-1] if at(of) > last - LOOKED_BACK * DAY and of["documents"]]
    for name in sorted({name for of in recent for name in of}):
        had = sorted((of.get(name, 0) for of in recent), reverse=True)[2:3]
        now = documents.get(name, 0)
        if not name.startswith(EMPTIED) and had and had[0] >= FEW and now < COLLAPSED * had[0]:
            found[name] = (had[0], now)
    return found
