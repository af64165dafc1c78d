"""In which order CouchDB's files are copied, so that a copy is as good as a moment's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from chtbackup.couchdb.scan import SHARD

# Work that a compaction has not finished; CouchDB starts it again. A file that ends in `.couch.compact` is
# NOT among them: it is a finished one in the instant before it takes the place of its `.couch`.
UNFINISHED_COMPACTION = (".compact.data", ".compact.meta", ".compact.view")
# Full-text indexes of CHT 5. CouchDB rebuilds them; restored ahead of their shards they could stay stale.
LEFT_OUT = "nouveau"
SHARD_DATABASE = re.compile(r"^shards/[0-9a-f]{8}-[0-9a-f]{8}/(.+)\.\d+\.couch")


def below(path: str, directory: str) -> bool:
    """Whether a path is a directory, or in it."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def stage(path: str) -> int:
    """When a path, relative to a data directory, must be copied:

    0. `.shards` (views): a view copied after its shard would be ahead of it, which CouchDB doesn't notice.
    1. `_dbs.couch` and other databases of the node: a database made while the copy runs is then not listed.
    2. the shards of `medic-sentinel`; 3. of all other databases; 4. of `medic`: what sentinel and others
       noted about a document must not be ahead of the document.
    5. the rest.
    """
    top = path.split("/")[0]
    if top.startswith("."):
        return 5 if top == ".delete" else 0
    shard = SHARD_DATABASE.match(path)
    if shard is not None:
        return {"medic-sentinel": 2, "medic": 4}.get(shard[1], 3)
    return 1 if path.endswith(".couch") else 5


def copied_in_order(trees: dict[str, list[str]]) -> list[str]:
    """Put the paths of data directories (relative ones by directory, "" for itself) in the order in which
    they must be copied (see `stage`), as absolute paths. The order holds for all nodes of a cluster
    together. A directory comes before the first path in it."""
    known = {(directory, path) for directory, paths in trees.items() for path in paths}
    parents = {(directory, parent) for directory, path in known for parent in _parents(path)} & known
    ordered: dict[str, None] = {}
    for _stage, directory, path in sorted((stage(path), directory, path) for directory, path in known - parents):
        for part in [*reversed(_parents(path)), path]:
            if (directory, part) in known:
                ordered.setdefault(os.path.join(directory, part) if part else directory)
    return list(ordered)


def _parents(path: str) -> list[str]:
    found = []
    while path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found


def shards(paths: Iterable[str]) -> dict[str, tuple[int, frozenset[str]]]:
    """By database, when it was made (its files' names say so) and the ranges of its shards. `paths` are
    relative to a data directory. Of a database that was made again the newer one counts."""
    found: dict[str, tuple[int, frozenset[str]]] = {}
    for path in paths:
        shard = SHARD.match(path)
        if shard is None:
            continue
        range_, name, epoch = f"{shard[1]}-{shard[2]}", shard[3], int(shard[4])
        known = found.get(name, (epoch, frozenset()))
        if epoch >= known[0]:
            found[name] = (epoch, (known[1] if epoch == known[0] else frozenset()) | {range_})
    return found
