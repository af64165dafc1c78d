"""The last weeks day by day, from what machines report: what ran, how large everything was. Pure. Days are UTC's."""

from __future__ import annotations

import datetime
import re
from typing import Any

from chtbackup.watch.overview import facts_of, listed, mapping, number, text

MARKED = ("backup", "copy", "drill", "restore", "retention")
"""What a calendar shows."""

# Whose figure counts where several machines have one: free space is the server's, documents are the CHT's.
_OWNERS = {"repository": "server", "free": "server", "archives": "server", "data": "cht", "documents": "cht"}

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def day_of(at: float) -> datetime.date | None:
    try:
        return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).date()
    except (ValueError, OverflowError, OSError):
        return None


def _date(value: Any) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(value) if _DAY.fullmatch(text(value)) else None
    except ValueError:
        return None


def _entries(report: dict[str, Any]) -> list[tuple[datetime.date, dict[str, Any]]]:
    """A report's history, oldest first, without what isn't a day's."""
    dated = [(_date(entry.get("day")), entry) for entry in map(mapping, listed(facts_of(report).get("history")))]
    return sorted(((day, entry) for day, entry in dated if day is not None), key=lambda each: each[0])


def sizes(reports: list[dict[str, Any]]) -> dict[str, dict[datetime.date, float]]:
    """`repository`, `free`, `data`, `archives` and the number of `documents`, each by the day."""
    found: dict[str, dict[datetime.date, float]] = {}
    for name, owner in _OWNERS.items():
        # The owner last, whose figure stays.
        for report in sorted(reports, key=lambda of: of.get("role") == owner):
            for day, entry in _entries(report):
                figure = number(entry.get(name)) if name != "documents" else _total(entry.get(name))
                if figure is not None:
                    found.setdefault(name, {})[day] = figure
    return {name: dict(sorted(by_day.items())) for name, by_day in found.items()}


def _total(documents: Any) -> float | None:
    """Of all databases: the names of some are those of people."""
    counts = [number(each) for each in mapping(documents).values()]
    return sum(each for each in counts if each is not None) if counts else None


def last_runs(facts: dict[str, Any]) -> list[tuple[datetime.date, str, bool]]:
    """The days on which what a calendar shows ran the last time, and last succeeded, and whether it went well."""
    found: list[tuple[datetime.date | None, str, bool]] = []
    for name in MARKED:
        fact = mapping(facts.get(name))
        success, end = number(fact.get("lastSuccessAt")), number(fact.get("finishedAt"))
        if success is not None:
            found.append((day_of(success), name, True))
        if end is not None and fact.get("ok") is not True:
            found.append((day_of(end), name, False))
    return [(day, name, well) for day, name, well in found if day is not None]


def marks(reports: list[dict[str, Any]]) -> dict[datetime.date, dict[str, bool]]:
    """What ran on each day, by its name, and whether all of it went well.

    A day of the history may say it itself (`runs`: true or false by the name). Besides, it is known of the last run of
    each, and a backup ended well on a day with more archives than the day before.
    """
    found: dict[datetime.date, dict[str, bool]] = {}

    def mark(day: datetime.date, name: str, well: bool) -> None:
        today = found.setdefault(day, {})
        today[name] = well and today.get(name, True)

    for report in reports:
        before: float | None = None
        for day, entry in _entries(report):
            for name, well in mapping(entry.get("runs")).items():
                if name in MARKED and isinstance(well, bool):
                    mark(day, name, well)
            archives = number(entry.get("archives"))
            if archives is not None and before is not None and archives > before:
                mark(day, "backup", True)
            before = before if archives is None else archives
        for day, name, well in last_runs(facts_of(report)):
            mark(day, name, well)
    return found


def weeks(today: datetime.date, many: int) -> list[list[datetime.date]]:
    """The last weeks, Monday to Sunday, the oldest first; the last one is today's."""
    monday = today - datetime.timedelta(days=today.weekday())
    first = monday - datetime.timedelta(weeks=many - 1)
    return [[first + datetime.timedelta(weeks=week, days=day) for day in range(7)] for week in range(many)]
