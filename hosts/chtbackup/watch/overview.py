"""What the machines of a deployment report, put together: what is wrong, the worst first, and the verdict. Pure.

A report is what `watch report` prints. Whoever took a machine over chooses every word of its report, so nothing in one
is taken to be of the right kind before it was looked at. `operations/status/overview.ts` is the same for the operator's
computer; `test/fixtures/status-states.json` holds both to one table.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

WELL, WARNINGS, SOMEBODY, UNKNOWN = "well", "warnings", "somebody", "unknown"
CRITICAL, WARNING = "critical", "warning"


@dataclasses.dataclass(frozen=True)
class Condition:
    """Something that isn't as it should be, told in place of all that follows from it."""

    id: str
    severity: str
    title: str
    text: str
    todo: str
    link: str
    since: float | None
    """The earliest time that anybody knows of, in seconds since 1970."""
    told_by: tuple[str, ...]
    """The machines that tell of it."""
    explains: tuple[str, ...]
    """Titles of what follows from it."""


def number(value: Any) -> float | None:
    """A number that can be reckoned with and shown, else None."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool)  # NaN is below nothing
    return value if usable and abs(value) < 1e18 else None


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def usable(report: Any) -> bool:
    """Whether a report says what is wrong on its machine. One that doesn't is as good as none: not all is well then."""
    return isinstance(mapping(report).get("conditions"), list)


def facts_of(report: dict[str, Any]) -> dict[str, Any]:
    return mapping(report.get("facts"))


def name_of(report: dict[str, Any]) -> str:
    """What a machine is called: what it does for the deployment, in one word."""
    return text(report.get("role")) or "a machine"


def conditions(reports: list[dict[str, Any]]) -> list[Condition]:
    """What is to be told, each thing once, the worst first and of those the oldest."""
    merged: dict[tuple[str, str, str], Condition] = {}
    for report in reports:
        for found in _told(report):
            # Two machines may have the same trouble, each its own: then their texts differ.
            key = (found.id, found.title, found.text)
            merged[key] = _both(merged[key], found) if key in merged else found
    return sorted(merged.values(), key=_rank)


def _told(report: dict[str, Any]) -> list[Condition]:
    """What a machine tells, each with what follows from it, and as bad as the worst of that."""
    given = {text(of.get("id")): of for of in map(mapping, listed(report.get("conditions")))}

    def cause(name: str) -> str:
        """What is told in its place; itself, where nothing explains it, or only what it explains itself."""
        seen = [name]
        while (at := text(given[seen[-1]].get("hiddenBy"))) in given:
            if at in seen:
                return name
            seen.append(at)
        return seen[-1]

    causes = {name: cause(name) for name in given}
    return [
        _condition(of, [given[each] for each in given if each != name and causes[each] == name], name_of(report))
        for name, of in given.items()
        if causes[name] == name
    ]


def _condition(of: dict[str, Any], following: list[dict[str, Any]], machine: str) -> Condition:
    # Whatever isn't known to be less is for somebody to look at.
    warns = all(each.get("severity") == WARNING for each in [of, *following])
    return Condition(
        id=text(of.get("id")),
        severity=WARNING if warns else CRITICAL,
        title=_title(of),
        text=text(of.get("text")),
        todo=text(of.get("todo")),
        link=text(of.get("link")),
        since=number(of.get("since")),
        told_by=(machine,),
        explains=tuple(_title(each) for each in following),
    )


def _title(of: dict[str, Any]) -> str:
    return text(of.get("title")) or text(of.get("id")) or "something without a name"


def _rank(of: Condition) -> tuple[bool, float, str, str]:
    return of.severity != CRITICAL, math.inf if of.since is None else of.since, of.id, of.text


def _both(one: Condition, other: Condition) -> Condition:
    """What two machines tell of the same thing."""
    return dataclasses.replace(
        min(one, other, key=_rank),
        since=min((of.since for of in (one, other) if of.since is not None), default=None),
        told_by=tuple(dict.fromkeys((*one.told_by, *other.told_by))),
        explains=tuple(dict.fromkeys((*one.explains, *other.explains))),
    )


def verdict(found: list[Condition], complete: bool) -> str:
    """What it comes to. What needs somebody does, whatever else isn't known; then what isn't known might.

    `complete` is whether every machine has said how things are, and there was one.
    """
    if any(of.severity == CRITICAL for of in found):
        return SOMEBODY
    if not complete:
        return UNKNOWN
    return WARNINGS if found else WELL
