"""What is wanted of an archive: databases by their names, files and directories by their paths."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.couchdb.scan import SHARD
from chtbackup.manifest.places import as_couchdb_sees

# What CouchDB keeps of a database's views, all kinds of them.
VIEWS = re.compile(r"^\.shards/([0-9a-f]{8})-([0-9a-f]{8})/(.+)\.(\d+)_design(?:/.*)?$")
NAMED = 30  # names that a message lists at most


def inside(path: str, directories: list[str]) -> str | None:
    """A path relative to the data directory that holds it; None for one elsewhere."""
    return next((path[len(of) + 1 :] for of in directories if path.startswith(f"{of}/")), None)


def database_of(
    path: str, directories: list[str], elsewhere: dict[str, str] | None = None
) -> tuple[str, int, bool] | None:
    """Which database a file belongs to: its name, its epoch (the number in the file's name, when it was made),
    and whether the file is a shard, not a view. `elsewhere`: see `located`."""
    relative = inside(as_couchdb_sees(path, {"elsewhere": elsewhere or {}}), directories) or ""
    shard = SHARD.match(relative)
    found = shard or VIEWS.match(relative)
    return None if found is None else (found[3], int(found[4]), shard is not None)


def parents(path: str) -> list[str]:
    found = []
    while path := path.rpartition("/")[0]:
        found.append(path)
    return found


def chooser(
    known: Iterable[str],
    directories: list[str],
    databases: list[str],
    paths: list[str],
    archive: str,
    elsewhere: dict[str, str] | None = None,
) -> Callable[[str], bool]:
    """What is wanted of the `known` paths: the databases' shards and views, and files and directories by path. Of
    a database that was made anew, the newer files. Raises Refused for a name that isn't there."""
    known = list(known)
    epochs: dict[str, int] = {}
    for path in known:
        of = database_of(path, directories, elsewhere)
        if of is not None and of[2]:
            epochs[of[0]] = max(epochs.get(of[0], 0), of[1])
    for name in databases:
        if name not in epochs:
            raise Refused(f"there is no database {name} in {archive}; {near(name, sorted(epochs), 'it holds')}")
    for path in paths:
        if not any(each == path or each.startswith(f"{path}/") for each in known):
            raise Refused(f"there is no {path} in {archive}; {near_path(path, known)}")

    def wanted(path: str) -> bool:
        of = database_of(path, directories, elsewhere)
        if of is not None and of[0] in databases and of[1] == epochs[of[0]]:
            return True
        return any(path == each or path.startswith(f"{each}/") for each in paths)

    return wanted


def near(name: str, names: list[str], holds: str) -> str:
    """Which names there are, the similar ones where there are too many."""
    if len(names) <= NAMED:
        return f"{holds}: {', '.join(names) or 'nothing'}"
    similar = difflib.get_close_matches(name, names, NAMED, 0.5)
    return f"{holds} {len(names)} others" + (f", similar: {', '.join(similar)}" if similar else "")


def near_path(path: str, known: list[str]) -> str:
    """What there is in the lowest directory above a path that isn't there."""
    for parent in [*parents(path), ""]:
        names = sorted({each[len(parent) + 1 :].split("/")[0] for each in known if each.startswith(f"{parent}/")})
        if names:
            return near(path[len(parent) + 1 :].split("/")[0], names, f"{parent or '/'} holds")
    return "it is empty"


def narrowed(before: dict[str, Any], wanted: Callable[[str], bool]) -> dict[str, Any]:
    """The first part of a manifest without what isn't wanted. The directories above stay."""
    chosen = {path for path in before["files"] if wanted(path)}
    chosen |= {parent for path in chosen for parent in parents(path)}
    return {
        **before,
        "files": {path: of for path, of in before["files"].items() if path in chosen},
        "shards": {path: of for path, of in before["shards"].items() if wanted(path)},
    }
