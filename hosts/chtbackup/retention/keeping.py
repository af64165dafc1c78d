"""Which archives retention keeps, and what speaks against removing any. Nothing here reads or changes anything.

Time is the server's: when it took an archive, by its own clock (the ledger of audit.py). What a client says of an
archive's time decides nothing: one archive a day that is dated 23:59 pushes each genuine one out of `borg prune
--keep-daily`, and some that are dated ahead use up all that it keeps.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from chtbackup.repository.ledger import Finding
from chtbackup.repository.seals import named

HOUR, DAY = 3600, 86400
CHECKPOINT = ".checkpoint"  # how borg ends the name of what an interrupted backup has stored
FLOOD = 30  # archives within a day, which no schedule makes: one an hour and some by hand
STALE_DAYS = 8
FEWER = 2  # a database with less than this part of its earlier documents isn't what it was
FEW = 50  # documents, below which a database may come and go
LOOK_BACK = (1, 7, 30, 180)  # days before the newest archive
# borg fills in `{now:…}` and the like in names that it is given, so that one name would mean another archive.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+=,~-]*")

# What borg's `delete` leaves in the log, as the audit tells it.
OURS = ("objects were marked as deleted", "the list of archives (the manifest) was written without a new archive")


@dataclass(frozen=True)
class Policy:
    """How much is kept. Each count is of days, weeks, months or years of which there is an archive."""

    within: int
    """All archives of the last so many days."""
    daily: int
    weekly: int
    monthly: int
    yearly: int


@dataclass(frozen=True, eq=False)
class Archive:
    """One that the repository lists."""

    name: str
    id: str
    began: float | None
    """When the client says that it began; seconds since 1970."""
    at: int | None
    """When the server took it; None where the ledger doesn't know it: it was made before the repository was adopted."""
    documents: dict[str, int] | None = None
    """By database, by the manifest; None where that wasn't looked up, or can't be read."""

    @property
    def finished(self) -> bool:
        return not self.name.endswith(CHECKPOINT)

    @property
    def namable(self) -> bool:
        """Whether borg means this archive when it is given its name."""
        return NAME.fullmatch(self.name) is not None and "::" not in self.name


@dataclass(frozen=True)
class Taken:
    """One in the ledger."""

    id: str
    at: int
    gone: bool
    """Whether it was removed, which somebody has approved, or it was a checkpoint."""


@dataclass
class Facts:
    """What is known when retention decides."""

    now: float
    archives: list[Archive]
    ledger: list[Taken]
    """In the order of transactions."""
    repository: str
    """The id of the repository that is there."""
    expected: str
    """The id of the one that the stack knows."""
    seen: dict[str, str] = field(default_factory=dict)
    """Names by ids of archives that the operator's computer has seen in it, without those that retention removed."""
    drilled: float | None = None
    """When the last drill that succeeded ended; None: never, as far as is known."""
    drill_failed: bool = False
    """Whether the last drill failed."""
    drill_days: int | None = None
    """After how many days a drill is overdue; None where there are no drills."""
    session_days: int = 45
    """How long a backup may take at most."""
    asked: float | None = None
    """What the clock of the computer shows that asks for retention."""


# A period's name, by which archives of the same one are known, from a time. ISO weeks, and UTC throughout.
PERIODS: dict[str, Callable[[time.struct_time], str]] = {
    "daily": lambda at: time.strftime("day %Y-%m-%d", at),
    "weekly": lambda at: time.strftime("week %G-W%V", at),
    "monthly": lambda at: time.strftime("month %Y-%m", at),
    "yearly": lambda at: time.strftime("year %Y", at),
}


def reasons(archives: list[Archive], policy: Policy, now: float) -> dict[str, list[str]]:
    """Why each archive stays, by its id, in words of a few letters; an empty list means that it goes. For a period the
    last archive of it counts."""
    why: dict[str, list[str]] = {of.id: [] for of in archives}
    known = sorted((of for of in archives if of.at is not None), key=lambda of: of.at or 0, reverse=True)
    for of in archives:
        if of.at is None:
            why[of.id].append("made by hand" if of.finished else "unknown to the server's ledger")
        elif not of.namable:
            why[of.id].append("a name by which borg could take another archive for it")
    for of in known:
        if (of.at or 0) > now - policy.within * DAY:
            why[of.id].append(f"last {policy.within} days")
    finished = [of for of in known if of.finished and of.namable]
    if finished and not why[finished[0].id]:
        why[finished[0].id].append("newest")
    for rule, name_of in PERIODS.items():
        left, before = getattr(policy, rule), None
        for of in finished:
            name = name_of(time.gmtime(of.at))
            if name != before:
                before, left = name, left - 1
                if left < 0:
                    break
                why[of.id].append(name)
    return why


def moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def doubts(facts: Facts) -> dict[str, str]:
    """What speaks against removing anything, in words for the operator, by a short name with which he can say that he
    knows (`--despite NAME`)."""
    found = {
        "repository": another_repository(facts),
        "vanished": vanished(facts),
        "clock": wrong_times(facts),
        "flood": flood(facts),
        "manifest": unread(facts),
        "shrunk": shrunk(facts),
        "stale": stale(facts),
        "drill": undrilled(facts),
    }
    return {name: why for name, why in found.items() if why is not None}


def another_repository(facts: Facts) -> str | None:
    if facts.repository == facts.expected:
        return None
    return f"the repository there is {facts.repository[:16]}…, and the stack knows {facts.expected[:16]}…"


def vanished(facts: Facts) -> str | None:
    """Archives that retention didn't remove, and that are no longer listed."""
    there = {of.id for of in facts.archives}
    taken = {of.id: f"the one taken at {moment(of.at)}" for of in facts.ledger if not of.gone}
    gone = [name for id, name in {**taken, **facts.seen}.items() if id not in there]
    if not gone:
        return None
    return f"{len(gone)} archives that were there are no longer listed: {named(gone)}. See docs/restore.md, 9"


def wrong_times(facts: Facts) -> str | None:
    """Times that can't be: of a clock that goes wrong here or on the CHT host, or of archives that somebody dated."""
    if facts.asked is not None and abs(facts.asked - facts.now) > HOUR:
        return (
            f"the server's clock shows {moment(facts.now)}, and that of the computer which asks {moment(facts.asked)}"
        )
    ahead = [of for of in facts.ledger if of.at > facts.now + HOUR]
    if ahead:
        return f"the server's clock shows {moment(facts.now)}, and it took an archive at {moment(ahead[-1].at)}"
    for before, after in zip(facts.ledger, facts.ledger[1:], strict=False):
        if after.at < before.at - HOUR:
            return f"the server took an archive at {moment(before.at)}, and the one after it at {moment(after.at)}"
    odd = [
        of.name
        for of in facts.archives
        if of.at is not None
        and of.began is not None
        and not of.at - facts.session_days * DAY <= of.began <= of.at + HOUR
    ]
    if odd:
        return f"{len(odd)} archives bear another time than that at which the server took them: {named(odd)}"
    return None


def crowded(times: list[float]) -> float | None:
    """When a day begins that has more than any schedule makes; None: there is none."""
    ordered = sorted(times)
    days = zip(ordered, ordered[FLOOD:], strict=False)
    return next((first for first, last in days if last - first < DAY), None)


def flood(facts: Facts) -> str | None:
    begun = crowded([of.at for of in facts.archives if of.at is not None and of.finished])
    return None if begun is None else f"there are more than {FLOOD} archives of one day, from {moment(begun)} on"


def worth_looking_into(archives: list[Archive]) -> list[Archive]:
    """The newest archive, and those of before to which its documents are compared; the newest first."""
    finished = sorted((of for of in archives if of.at is not None and of.finished), key=lambda of: -(of.at or 0))
    if not finished:
        return []
    newest = finished[0].at or 0
    older = [next((of for of in finished if (of.at or 0) <= newest - days * DAY), None) for days in LOOK_BACK]
    return list(dict.fromkeys([*finished[:2], *(of for of in older if of is not None)]))


def unread(facts: Facts) -> str | None:
    """Archives of which nothing says how many documents they hold, though others say it. Without this, whoever makes an
    archive with a manifest that can't be read, or with none, would hide that documents have gone."""
    looked = worth_looking_into(facts.archives)
    silent = [of.name for of in looked if of.documents is None]
    if not silent or len(silent) == len(looked):
        return None
    return (
        f"{len(silent)} archives have no manifest that can be read, and others have: {named(silent)}. Whether documents"
        " have gone can't be told by them. Find out who made them"
    )


def shrunk(facts: Facts) -> str | None:
    """Whether the newest archive holds far less than those before it, which then must not be pushed out."""
    looked = [of for of in worth_looking_into(facts.archives) if of.documents is not None]
    if len(looked) < 2:
        return None
    newest, fewer = looked[0], []
    for of in looked[1:]:
        for database, documents in (of.documents or {}).items():
            now = (newest.documents or {}).get(database, 0)
            if documents >= FEW and now * FEWER < documents:
                fewer.append(f"{database} had {documents} documents in {of.name}, and has {now} in {newest.name}")
    if not fewer:
        return None
    return f"{named(fewer)}. Were they deleted on the CHT by mistake, or by an attacker?"


def stale(facts: Facts) -> str | None:
    newest = max((of.at for of in facts.archives if of.at is not None and of.finished), default=None)
    if newest is None:
        return "the server's ledger knows no finished archive"
    days = (facts.now - newest) / DAY
    return f"the newest archive is {days:.0f} days old: do the backups run?" if days > STALE_DAYS else None


class Drills(Protocol):
    """As Facts has it."""

    now: float
    drilled: float | None
    drill_failed: bool
    drill_days: int | None


def undrilled(facts: Drills) -> str | None:
    if facts.drill_days is None:
        return "the settings have no drills: nothing has proven that the archives which stay can be restored"
    if facts.drill_failed:
        return "the last drill failed: npm run drill -- --stack STACK --report says why"
    if facts.drilled is None:
        return "no drill has succeeded so far: npm run drill -- --stack STACK"
    days = (facts.now - facts.drilled) / DAY
    if days < -HOUR / DAY:
        return f"the last drill succeeded at {moment(facts.drilled)}, which is yet to come: whose clock is wrong?"
    return f"the last drill that succeeded is {days:.0f} days old" if days > facts.drill_days else None


def strangers_in(findings: list[Finding], since: int) -> list[str]:
    """What the audit found that isn't the deletion by this program, which began after the transaction `since`."""
    return [what for _at, what, _count, number in findings if what not in OURS or number is None or number <= since]
