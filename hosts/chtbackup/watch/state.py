"""What the watch remembers from one look to the next: since when each condition holds, and when somebody was told.

Told is at once, then once a day, then, when it is over, how long it lasted. A condition that follows from another
isn't told while that one holds. One that its unit has told (`told_by`) isn't told again as news.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.base.text import moment
from chtbackup.watch.condition import BY_UNIT_DAILY, BY_WATCH, CRITICAL
from chtbackup.watch.conditions import BY_ID
from chtbackup.watch.judge import Found

HOUR, DAY = 3600, 86400
SLACK = HOUR / 2  # by which an hourly look may be early


@dataclass
class Entry:
    """A condition that holds, or did a short while ago."""

    since: float
    """Since when it holds, in seconds since 1970."""
    seen: float
    """When it was seen first, and last."""
    last: float
    text: str
    reason: str = ""
    """What a run said first of its failure; `alert/lately.py` knows by it that the trouble is the same."""
    told: float | None = None
    """When somebody was told last; None: nobody was."""
    gone: float | None = None
    """Since when it isn't seen any more; None while it holds."""


@dataclass
class Memory:
    """What is kept in `watch-state.json`."""

    began: float
    """When the watch was set up: the first look."""
    entries: dict[str, Entry] = field(default_factory=dict)
    probed: dict[str, Any] = field(default_factory=dict)
    """What `probes.py` found out last."""


def read(path: str, now: float) -> Memory:
    """The memory; a new one where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        with open(path, encoding="utf-8") as file:
            of = json.load(file)
        entries = {id: Entry(**entry) for id, entry in of["entries"].items() if id in BY_ID}
        return Memory(min(of["began"], now), entries, of["probed"])
    return Memory(now)


def write(path: str, memory: Memory) -> None:
    """Raises OSError."""
    write_atomically(path, json.dumps(asdict(memory), indent=1) + "\n", 0o640)


def noted(memory: Memory, found: list[Found], settings: dict[str, Any], now: float) -> Memory:
    """The memory after a look, before anybody is told of it."""
    entries: dict[str, Entry] = {}
    for of in found:
        before = memory.entries.get(of.id)
        if before is not None and before.gone is not None and before.told is None:
            before = None  # it was over before anybody heard of it
        since = of.since if of.since is not None else before.since if before else now
        # While a run fails again and again, it is the same trouble since the first time.
        since = min(since, before.since) if before else since
        seen, told = (before.seen, before.told) if before else (now, None)
        if before is None and BY_ID[of.id].told_by != BY_WATCH:
            told = now
        entries[of.id] = Entry(since, seen, now, of.text, of.reason, told)
    calm = settings["graceMinutes"] * 60
    for id, before in memory.entries.items():
        gone = before.gone or now
        # What comes and goes is one trouble, not a message each time.
        if id not in entries and (now - gone < calm or before.told is not None):
            entries[id] = replace(before, gone=gone)
    return Memory(memory.began, entries, memory.probed)


def holding(memory: Memory, settings: dict[str, Any], now: float) -> dict[str, Entry]:
    """The conditions that count: they hold and, where a reboot may cause them, have held for a while."""
    patience = settings["graceMinutes"] * 60
    return {
        id: of
        for id, of in memory.entries.items()
        if of.gone is None and (not BY_ID[id].patient or now - of.seen >= patience)
    }


def hider(id: str, there: dict[str, Entry]) -> str | None:
    """The condition from which this one follows, if one of them is there."""
    return next((by for by in BY_ID[id].hidden_by if by in there), None)


def listed(there: dict[str, Entry]) -> list[dict[str, Any]]:
    """The conditions as `watch.json` has them, critical ones first."""
    order = [id for id in BY_ID if id in there]
    return [
        {
            "id": id,
            "severity": BY_ID[id].severity,
            "title": BY_ID[id].title,
            "text": there[id].text,
            "todo": BY_ID[id].todo,
            "since": round(there[id].since),
            "link": BY_ID[id].link,
            "hiddenBy": hider(id, there),
        }
        for id in sorted(order, key=lambda id: BY_ID[id].severity != CRITICAL)
    ]


def due(memory: Memory, there: dict[str, Entry], quiet: set[str], remind: float, now: float) -> list[str]:
    """Which of the conditions that count (`there`) somebody must be told of now: news, and what was told `remind`
    seconds ago."""
    # One that doesn't count yet hides, too: what follows from it would be told an hour before it.
    present = {id: of for id, of in memory.entries.items() if of.gone is None}

    def is_due(id: str, of: Entry) -> bool:
        if hider(id, present) is not None or id in quiet:
            return False
        if of.told is None:
            return True
        return BY_ID[id].told_by != BY_UNIT_DAILY and now - of.told >= remind - min(SLACK, remind / 4)

    return [id for id in BY_ID if id in there and is_due(id, there[id])]


def over(memory: Memory, settings: dict[str, Any], now: float) -> list[str]:
    """Which conditions somebody was told of, and are over for good. They are forgotten with that."""
    calm = settings["graceMinutes"] * 60
    return [id for id, of in memory.entries.items() if of.gone is not None and now - of.gone >= calm]


def duration(seconds: float) -> str:
    """Roughly how long something lasts, for people."""
    for size, name in ((DAY, "days"), (HOUR, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return "a moment" if seconds < 60 else "1 minute"


def words(deployment: str, host: str, ids: list[str], there: dict[str, Entry], now: float) -> tuple[str, str]:
    """Title and text of one message about conditions that hold, the worst first."""
    ids = sorted(ids, key=lambda id: BY_ID[id].severity != CRITICAL)
    texts = [
        f"{there[id].text} Since {moment(there[id].since)} ({duration(now - there[id].since)})."
        f" What to do: {BY_ID[id].todo} More: {BY_ID[id].link}"
        for id in ids
    ]
    # The first is in the title.
    texts[1:] = [f"{BY_ID[id].title}: {text}" for id, text in zip(ids[1:], texts[1:])]
    others = f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""
    return f"CHT backup {deployment} on {host}: {BY_ID[ids[0]].title}{others}", " — ".join(texts)


def all_clear(deployment: str, host: str, ended: dict[str, Entry]) -> tuple[str, str]:
    """Title and text of one message about conditions that are over."""
    texts = [f"{BY_ID[id].title}: over since {moment(of.gone or 0)}, it lasted {duration((of.gone or 0) - of.since)}."
             for id, of in ended.items()]  # fmt: skip
    first, others = BY_ID[next(iter(ended))].title, f" (and {len(ended) - 1} more)" if len(ended) > 1 else ""
    return f"CHT backup {deployment} on {host}: all clear: {first}{others}", " ".join(texts)
