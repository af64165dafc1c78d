"""Which copies in a bucket stay, which versions of files nobody needs any more, and what speaks against removing any.
Nothing here reads or changes anything.

Time is the bucket's: when it received an index, by its own clock. Whoever has the writer's key can add indexes, but
can't date them back. So for a period (a day, a week, …) the first copy of it counts, not the last, and the periods are
those of the calendar, not those of which there is a copy: then an index that comes later takes nobody's place. It can
only make more stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from chtbackup.repository.seals import named
from chtbackup.retention.keeping import (
    DAY,
    FLOOD,
    HOUR,
    PERIODS,
    STALE_DAYS,
    Policy,
    crowded,
    moment,
    undrilled,
)


@dataclass(frozen=True, eq=False)
class Copy:
    """An index in the bucket."""

    key: str
    """`index/…`, below the deployment's prefix."""
    version: str
    at: float
    """When the bucket received it, by its own clock, in seconds since 1970."""
    content: str = ""
    """What the bucket shows of its content, a checksum as a rule."""
    problem: str | None = None
    """Why it can't be read; None: it can."""
    deployment: str = ""
    repository: str = ""
    """borg's id of the repository, as the index says."""
    number: int = 0
    """Counts the copies of a deployment, as the index says."""
    transaction: int = 0
    """borg's number of the state that was copied, as the index says."""
    made: float = 0
    """When, by the server's clock, as the index says."""
    size: int = 0
    """Bytes of all files that it names."""
    lacks: int = 0
    """How many of these aren't in the bucket."""
    names: int = 0
    """Which of what is in the bucket it names: the bit of each one's `place`."""

    @property
    def whole(self) -> bool:
        return self.problem is None and self.lacks == 0

    @property
    def of(self) -> tuple[str, str]:
        return self.deployment, self.repository

    @property
    def id(self) -> tuple[str, str]:
        return self.key, self.version


@dataclass(frozen=True)
class Piece:
    """A version of a file of the repository in the bucket; or a delete marker, which is one without content."""

    place: int
    """Its number in this program's list; it stays the same while the program runs."""
    key: str
    version: str
    size: int
    at: float
    """As of a Copy."""


@dataclass
class Facts:
    """What is known when retention decides."""

    now: float
    """By the bucket's clock."""
    clock: float
    """By this computer's."""
    copies: list[Copy]
    pieces: list[Piece]
    keep_days: float
    """All copies of so many days stay, whatever the policy says."""
    deployment: str
    repositories: list[str]
    """Ids of those that the stack knows: the one of today first, then former ones."""
    seen: list[Copy] = field(default_factory=list)
    """Whole copies that this computer saw when it looked before."""
    drilled: float | None = None
    """This and the next two are as retention of archives has them (retention/keeping.py)."""
    drill_failed: bool = False
    drill_days: int | None = None


@dataclass(frozen=True)
class Going:
    """What nobody needs any more."""

    copies: list[Copy]
    pieces: list[Piece]

    @property
    def size(self) -> int:
        """Bytes of the files; indexes are small."""
        return sum(of.size for of in self.pieces)


def last_periods(name_of: Callable[[time.struct_time], str], count: int, now: float) -> list[str]:
    """The names of the last so many periods by the calendar, this one first."""
    names: dict[str, None] = {}
    day = now
    while len(names) < count:
        names[name_of(time.gmtime(day))] = None
        day -= DAY
    return list(names)


def whole_by_repository(copies: Iterable[Copy]) -> dict[tuple[str, str], list[Copy]]:
    """The whole copies of each deployment and repository, the oldest first."""
    found: dict[tuple[str, str], list[Copy]] = {}
    for of in sorted(copies, key=lambda of: (of.at, of.number)):
        if of.whole:
            found.setdefault(of.of, []).append(of)
    return found


def reasons(copies: list[Copy], policy: Policy, keep_days: float, now: float) -> dict[Copy, list[str]]:
    """Why each copy stays, in words of a few letters; an empty list means that it goes. Only a whole copy counts for
    a period; of each repository the newest whole one stays."""
    days = max(policy.within, keep_days)
    why: dict[Copy, list[str]] = {of: [f"last {days:g} days"] if of.at > now - days * DAY else [] for of in copies}
    for whole in whole_by_repository(copies).values():
        if not why[whole[-1]]:
            why[whole[-1]].append("newest")
        for rule, name_of in PERIODS.items():
            first: dict[str, Copy] = {}
            for of in whole:
                first.setdefault(name_of(time.gmtime(of.at)), of)
            for name in last_periods(name_of, getattr(policy, rule), now):
                if name in first:
                    why[first[name]].append(name)
    return why


def unneeded(
    copies: list[Copy], staying: Iterable[Copy], pieces: list[Piece], keep_days: float, now: float
) -> list[Piece]:
    """What none of the `staying` copies names, and no copy that is being made now can. It must be older than
    `keep_days`, and than a whole copy that is as old itself: a first copy may take longer than that to upload."""
    limit = now - keep_days * DAY
    limit = max((of.at for of in copies if of.whole and of.at < limit), default=0)
    marks = 0
    for of in staying:
        marks |= of.names
    bits = marks.to_bytes(max((of.place for of in pieces), default=0) // 8 + marks.bit_length() // 8 + 1, "little")
    return [of for of in pieces if of.at < limit and not bits[of.place >> 3] >> (of.place & 7) & 1]


def going(facts: Facts, why: dict[Copy, list[str]]) -> Going:
    """What goes by the reasons why the others stay."""
    copies = [of for of in facts.copies if not why[of]]
    staying = [of for of in facts.copies if why[of]]
    return Going(copies, unneeded(facts.copies, staying, facts.pieces, facts.keep_days, facts.now))


def doubts(facts: Facts, policy: Policy) -> dict[str, str]:
    """What speaks against removing anything, in words for the operator, by a short name with which he can say that he
    knows (`--despite NAME`)."""
    found = {
        "repository": strangers(facts),
        "unreadable": unreadable(facts),
        "incomplete": incomplete(facts),
        "vanished": vanished(facts, policy),
        "numbers": disorder(facts),
        "clock": wrong_times(facts),
        "flood": flood(facts),
        "stale": stale(facts),
        "drill": undrilled(facts),
    }
    return {name: why for name, why in found.items() if why is not None}


def strangers(facts: Facts) -> str | None:
    known = {(facts.deployment, id) for id in facts.repositories}
    odd = {of.of: of.key for of in facts.copies if of.problem is None and of.of not in known}
    if not odd:
        return None
    words = [f"{key} is of {deployment}'s {repository[:16]}…" for (deployment, repository), key in odd.items()]
    return f"there are copies of another repository than the stack knows: {named(words)}"


def unreadable(facts: Facts) -> str | None:
    odd = [f"{of.key} ({of.problem})" for of in facts.copies if of.problem is not None]
    return f"{len(odd)} indexes can't be read, so it isn't known what they name: {named(odd)}" if odd else None


def incomplete(facts: Facts) -> str | None:
    odd = [f"{of.key} lacks {of.lacks}" for of in facts.copies if of.problem is None and of.lacks > 0]
    return f"{len(odd)} copies name files that aren't in the bucket: {named(odd)}" if odd else None


def vanished(facts: Facts, policy: Policy) -> str | None:
    """Copies that this computer has seen, that are gone, and that the policy would still keep: another operator's run
    wouldn't have removed them."""
    there = {of.id for of in facts.copies}
    gone = [of for of in facts.seen if of.id not in there]
    why = reasons([*facts.copies, *gone], policy, facts.keep_days, facts.now)
    missed = [f"{of.key} of {moment(of.at)}" for of in gone if why[of]]
    return f"{len(missed)} copies that were there, and should be, are gone: {named(missed)}" if missed else None


def disorder(facts: Facts) -> str | None:
    """Numbers that the server can't have given. It counts its copies, so whoever adds indexes with its key brings them
    into disorder."""
    for whole in whole_by_repository(facts.copies).values():
        for before, after in zip(whole, whole[1:], strict=False):
            if (before.key, before.content) == (after.key, after.content):
                continue  # of an upload whose answer was lost
            if after.number <= before.number or after.transaction < before.transaction:
                return (
                    f"{after.key} of {moment(after.at)} is number {after.number}, transaction {after.transaction}, and"
                    f" {before.key} before it number {before.number}, transaction {before.transaction}: somebody has"
                    " the writer's key, or the repository was set back"
                )
    return None


def wrong_times(facts: Facts) -> str | None:
    if abs(facts.now - facts.clock) > HOUR:
        return f"this computer's clock shows {moment(facts.clock)}, and the bucket's {moment(facts.now)} (UTC)"
    ahead = [of.key for of in facts.copies if of.at > facts.now + HOUR]
    if ahead:
        return f"the bucket's clock shows {moment(facts.now)}, and it received {named(ahead)} later than that"
    odd = [of.key for of in facts.copies if of.problem is None and abs(of.at - of.made) > HOUR]
    if odd:
        return f"{len(odd)} copies bear another time than that at which the bucket received them: {named(odd)}"
    return None


def flood(facts: Facts) -> str | None:
    begun = crowded([of.at for of in facts.copies])
    return None if begun is None else f"there are more than {FLOOD} copies of one day, from {moment(begun)} on"


def stale(facts: Facts) -> str | None:
    """Whether there is no good copy of today's repository, or an old one."""
    known = (facts.deployment, facts.repositories[0])
    newest = max((of.at for of in facts.copies if of.whole and of.of == known), default=None)
    if newest is None:
        return "there is no whole copy of the repository that the stack knows"
    days = (facts.now - newest) / DAY
    return f"the newest whole copy is {days:.0f} days old: are copies made?" if days > STALE_DAYS else None
