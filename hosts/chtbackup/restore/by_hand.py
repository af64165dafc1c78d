"""Archives that were made by hand (`borg create` from cron, as CHT's backup guide has it) and so have no manifest.

What in them belongs to a CHT, and what can be told of a copy without a manifest. They are restored when they are asked
for by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from typing import Any

from chtbackup.couchdb.scan import missing_ranges, scan
from chtbackup.manifest import verify
from chtbackup.manifest import write as manifest
from chtbackup.manifest.copy import Copy

SHARD = re.compile(r"(/.*)/shards/[0-9a-f]{8}-[0-9a-f]{8}/.*\.couch")
NODE_DATABASE = re.compile(r"(/.*)/_dbs\.couch")
COMPOSE = re.compile(r"(/.*)/(?:compose|upgrade-service)/[^/]*\.ya?ml")
ENVIRONMENT = re.compile(r"(/.*)/upgrade-service/\.env")
UNPROVEN = (
    "it was made by hand, without a manifest: what is in it can be checked for damage, but nothing proves that it is"
    " all there was"
)


def places_of(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Where in an archive the parts of a CHT are, in the form of a manifest's `places`. Of several homes (a copy beside
    the original) the one with the shortest path."""
    files = [of["path"] for of in items if of["type"] == "-"]
    data = {found[1] for path in files for form in (SHARD, NODE_DATABASE) if (found := form.fullmatch(path))}
    homes = {found[1] for path in files for form in (COMPOSE, ENVIRONMENT) if (found := form.fullmatch(path))}
    home = min(homes, key=len, default=None)

    def in_home(form: re.Pattern[str]) -> list[str]:
        return sorted(path for path in files if (found := form.fullmatch(path)) and found[1] == home)

    return {
        "couchdb": sorted(data),
        "composeFiles": in_home(COMPOSE),
        "environment": next(iter(in_home(ENVIRONMENT)), None),
        "volumes": {},
        "certificate": None,
        "key": None,
    }


def before(archive: str, time: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """What stands for the first part of a manifest, as far as the archive itself can tell it."""
    kinds = {"-": "file", "d": "directory", "l": "link"}
    return {
        "format": manifest.FORMAT,
        "part": "before",
        "archive": archive,
        "time": time,
        "host": "",
        "versions": {},
        "problems": [UNPROVEN],
        "counts": {"databases": {}},
        "shards": {},
        "containers": [],
        "files": {of["path"]: {"kind": kinds[of["type"]], "size": of["size"]} for of in items},
        "places": places_of(items),
    }


def lacks(places: dict[str, Any]) -> list[str]:
    """What of a CHT isn't in such an archive, for the operator."""
    return [
        *([] if places["environment"] else [".env (upgrade-service/.env): the passwords of the database"]),
        *([] if places["composeFiles"] else ["compose files"]),
        "TLS certificate and key, and CouchDB's credentials, which Docker keeps: nginx shows a certificate of its own"
        " until you put yours there",
    ]


def check(
    copy: Copy,
    items: list[dict[str, Any]],
    directories: list[str],
    dropped: Collection[str],
    only: list[str] | None = None,
) -> verify.Verdict:
    """Look at a copy without a manifest: whether all that the archive lists is there, and whether CouchDB's files are
    whole in themselves. `only` are the databases of a copy that holds nothing else."""
    verdict = verify.Verdict()
    kinds = {"-": os.path.isfile, "d": os.path.isdir, "l": os.path.islink}
    for of in items:
        actual = copy.at(of["path"])
        if of["path"] in dropped:
            continue
        if not kinds[of["type"]](actual):
            verdict.problems.append(f"{of['path']}: missing")
        elif of["type"] == "-" and not os.path.islink(actual) and os.path.getsize(actual) != of["size"]:
            verdict.problems.append(
                f"{of['path']}: {os.path.getsize(actual)} bytes, but the archive lists {of['size']}"
            )
    if not verdict.problems:
        verdict.checked.append(f"files: {len(items)} files and directories are there, as the archive lists them")
    if only == [] or not directories:
        return verdict
    scanned = scan(*(copy.at(directory) for directory in directories), whole=only is None)
    problems = [copy.plain(text) for text in scanned["problems"]]
    for name in only or []:
        gaps = missing_ranges(scanned["databases"].get(name, {"ranges": []})["ranges"])
        problems += [f"{name}: no shard for {gap}; CouchDB would silently recreate it empty" for gap in gaps]
    verdict.problems += problems
    verdict.notes += [copy.plain(text) for text in scanned["notes"]]
    verdict.databases = manifest.counts_of(scanned["databases"])
    if not problems:
        documents = sum(of["documents"] for of in verdict.databases.values())
        verdict.checked.append(
            f"headers: the newest header of each of CouchDB's files is intact; {len(verdict.databases)} databases with"
            f" {documents:,} documents"
        )
    return verdict
