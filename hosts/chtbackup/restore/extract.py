"""Get an archive's files beside the places where they will be, with what an interrupted run has left."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.base.text import duration, say
from chtbackup.borg.client import Borg, exchanged
from chtbackup.borg.errors import Hostile
from chtbackup.manifest.copy import Copy
from chtbackup.restore.choose import Archive
from chtbackup.restore.listing import unlisted
from chtbackup.restore.marker import Marker
from chtbackup.restore.targets import Place, Progress, complete, estimate, own, require_space, size_of


def wanted_items(borg: Borg, archive: Archive, places: list[Place]) -> list[dict[str, Any]]:
    """What is extracted: of an archive that was made by hand, only what a CHT is made of."""
    items = borg.items(archive.name)
    if not archive.by_hand:
        return items
    targets = tuple(f"{place.target}/" for place in places)
    return [of for of in items if f"{of['path']}/".startswith(targets)]


def plan(
    items: list[dict[str, Any]], copy: Copy, places: list[Place], rest: str, resumed: bool
) -> tuple[dict[str, list[str]], int]:
    """Paths that an interrupted run has already extracted in full, by base; and the bytes still to do. `rest` is the
    base of what goes to none of the places. Says what is needed and raises Refused where there is too little room."""
    done: dict[str, list[str]] = {base: [] for base in copy.bases.values()}
    todo: dict[str, int] = dict.fromkeys(done, 0)
    for of in items:
        actual = copy.at(of["path"])
        base = actual.removesuffix(of["path"])
        if of["type"] == "-" and resumed and complete(actual, of):
            done[base].append(of["path"])
        else:
            todo[base] += of["size"]
    total = sum(todo.values())
    files = sum(1 for of in items if of["type"] == "-")
    size = sum(of["size"] for of in items)
    say(estimate(files, size, size - total if resumed else None))
    require_space([*((place, todo[place.base]) for place in places), (Place(rest), todo.get(rest, 0))])
    return done, total


def extract(
    borg: Borg, archive: Archive, copy: Copy, marker: Marker, resumed: bool, done: dict[str, list[str]], total: int
) -> None:
    """Extract all but what is `done` already: `done` and `total` are those of `plan`. Raises Refused."""
    if not resumed:
        for base in copy.bases.values():
            shutil.rmtree(base, ignore_errors=True)
    marker.write()
    listed = f"{os.path.dirname(marker.path)}/excluded"
    began, finished = time.monotonic(), 0
    with guarded(borg, archive.name, copy.bases.values(), marker):
        for root, base in copy.bases.items():
            os.makedirs(base, mode=0o700, exist_ok=True)
            before = size_of(base)  # of an interrupted run
            excluded = [f"pf:{path[1:]}" for path in done[base] if "\n" not in path]
            excluded += [f"pp:{other[1:]}" for other in copy.bases if other.startswith(f"{root}/")]
            write_atomically(listed, "".join(f"{line}\n" for line in excluded), 0o600)
            borg.extract(
                archive.name, ["--exclude-from", listed], *([root[1:]] if root else []),
                directory=base, progress=Progress(began, finished, total),
            )  # fmt: skip
            finished += size_of(base) - before
        os.remove(listed)
    say(f"extracted in {duration(time.monotonic() - began)}")


@contextlib.contextmanager
def guarded(borg: Borg, archive: str, bases: Iterable[str], marker: Marker | None = None) -> Iterator[None]:
    """See to it that what is extracted meanwhile, below the `bases`, is of the very archive that was looked at. Raises
    Hostile; then the next run doesn't build on it."""
    try:
        borg.require_same(archive)
        yield
        items = borg.items(archive)
        for base in bases:
            if path := unlisted(base, items):
                raise exchanged(archive, f"{path} was extracted, and isn't as it was listed")
    except Hostile:
        if marker is not None:
            marker.remove()
        raise


def own_directories(archive: Archive, copy: Copy, places: list[Place]) -> None:
    """The directories of compose files and .env aren't in the archive: they get the owners and modes that they had.
    Archives from before those were noted down don't have them: there they get their files' owner."""
    parents = archive.before.get("parents")
    if parents is not None:
        for path, of in parents.items():
            actual = copy.at(path)
            inside = any(path == place.target or path.startswith(f"{place.target}/") for place in places)
            if inside and os.path.isdir(actual):
                own(actual, of)
        return
    environment = archive.places["environment"]
    for path in [*archive.places["composeFiles"], *([environment] if environment else [])]:
        actual = copy.at(path)
        if not os.path.exists(actual):
            continue
        owner = os.stat(actual)
        for folder in {os.path.dirname(path), archive.home}:
            os.chown(copy.at(folder), owner.st_uid, owner.st_gid)
            os.chmod(copy.at(folder), 0o755)
