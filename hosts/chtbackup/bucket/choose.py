"""Which of the copies in a bucket is fetched: the newest that is asked for and whole, by the bucket's clock.

Whoever has the writer's key can add indexes, but can't date them back.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.text import moment
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.copies import copies_in, read_index
from chtbackup.bucket.errors import ObjectRefused
from chtbackup.bucket.index import Index, Version, absent, made_at

AT_ONCE = 5  # indexes in memory
CLOCKS_APART = 3600  # seconds between the server's clock and the bucket's that are no wonder


def eligible(copies: list[Version], as_of: str | None, key: str | None, version: str | None = None) -> list[Version]:
    """The indexes to try, of those given with the newest first. Raises Refused."""
    if not copies:
        raise Refused("the bucket holds no finished copy under this prefix")
    if key is not None:
        chosen = [of for of in copies if f"index/{of.path}" == key and version in (None, of.id)]
        if not chosen:
            raise Refused(f"there is no copy {key}; `list` shows those that there are")
        # By this name whoever writes it over comes later: the first one is the copy's.
        return chosen[::-1]
    if as_of is not None and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", as_of):
        raise Refused(f"{as_of} is no time such as 2026-11-21T02:00:00Z")
    chosen = [of for of in copies if as_of is None or moment(of.modified) <= as_of]
    if not chosen:
        raise Refused(f"no copy is as old as {as_of}: the oldest is of {moment(copies[-1].modified)}")
    return chosen


def examine(
    there: Bucket, copies: list[Version], repositories: list[str] | None = None
) -> Iterator[tuple[Version, Index | None, str | None]]:
    """Each of the copies with its index (None: it can't be read, or is of none of the `repositories`) and what is
    wrong with it. A few at a time: whatever somebody puts into the bucket takes little memory, and the bucket's list
    is read once for them all. Raises BucketError when the bucket itself fails."""

    def read(of: Version) -> tuple[Version, Index | None, str | None]:
        try:
            index = read_index(there, of)
        except ValueError as error:
            return of, None, f"it is no index of a copy: {error}"
        except ObjectRefused as error:
            return of, None, f"it can't be read: {error}"
        if repositories is not None and index.repository not in repositories:
            return of, None, f"it is of another repository: {index.repository}"
        return of, index, None

    for start in range(0, len(copies), AT_ONCE):
        found = [read(of) for of in copies[start : start + AT_ONCE]]
        named = {(path, of.version) for _, index, _ in found if index for path, of in index.objects.items()}
        listing = there.versions("repository/", lambda of, named=named: (of.path, of.id) in named) if named else None
        for of, index, problem in found:
            lost = absent(index, listing) if index and listing else []
            if lost:
                problem = f"{len(lost)} of its files are not in the bucket, {lost[0]} for one"
            yield of, index, problem


def doubts(of: Version, index: Index, earlier: list[tuple[Version, Index]]) -> list[str]:
    """What speaks for a copy's index being an old one that somebody put there again, as whoever has the writer's key
    can: one line for each sign. `earlier` are whole copies of the same repository that the bucket received before."""
    found = []
    name = f"the copy index/{of.path} of {moment(of.modified)}"
    apart = abs(of.modified - made_at(index.made))
    if apart > CLOCKS_APART:
        found.append(
            f"{name} says that it was made at {index.made}: the server's clock was wrong, or somebody put an old index"
            " there again"
            + (f". To take the one before it: --copy-as-of {moment(earlier[0][0].modified)}" if earlier else "")
        )
    for other, its in earlier:
        if its.number > index.number or its.transaction > index.transaction:
            found.append(
                f"{name} is number {index.number}, transaction {index.transaction}, and an earlier one is newer by"
                f" these: number {its.number}, transaction {its.transaction}. The repository was set back, or somebody"
                f" put an old index there again. To take the other: --copy-as-of {moment(other.modified)}"
            )
            break
    return found


def choose(there: Bucket, request: dict[str, Any], say: Callable[[str], None]) -> tuple[Version, Index]:
    """The newest copy that is asked for and whole. Raises Refused, BucketError."""
    as_of, key, version, repositories = (request.get(name) for name in ("asOf", "copy", "version", "repositories"))
    examined = examine(there, eligible(copies_in(there), as_of, key, version), repositories)
    for of, index, problem in examined:
        if index is not None and problem is None:
            if key is None:
                before = [
                    (other, its)
                    for other, its, wrong in itertools.islice(examined, AT_ONCE - 1)
                    if its is not None and wrong is None
                ]
                for doubt in doubts(of, index, [each for each in before if each[1].repository == index.repository]):
                    say(f"WARNING: {doubt}")
                former = next((other for other, its in before if its.repository != index.repository), None)
                if former is not None:
                    say(
                        "note: a repository was begun anew: earlier copies are of the one that was there before, and"
                        f" archives of it are only in those. To take the last of them: --copy-as-of"
                        f" {moment(former.modified)}"
                    )
            return of, index
        say(f"note: index/{of.path} of {moment(of.modified)} is passed over, {problem}")
    raise Refused("no copy that was asked for is whole")
