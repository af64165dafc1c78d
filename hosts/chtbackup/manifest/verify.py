"""Tell whether a restored copy of a CHT deployment is what its archive's manifest says. Starts no database.

The checks, in this order: the set of files with owners and modes, the newest header of every database and
view, documents and update sequences of every database and shard, checksums of everything outside CouchDB's
directories, and whether certificate and key belong together.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from chtbackup.couchdb.scan import database_of, grouped, located, missing_ranges, scan
from chtbackup.manifest import write as manifest
from chtbackup.manifest.copy import Copy
from chtbackup.manifest.places import as_couchdb_sees, roots_of

Manifest = dict[str, Any]

REBUILT = ("search_indexes/", "nouveau/")
"""What CouchDB's searches keep beside the data and swap at any time: it is made anew from the documents."""


@dataclass
class Verdict:
    checked: list[str] = field(default_factory=list)
    """What was checked and found right, one line each."""
    problems: list[str] = field(default_factory=list)
    """What is wrong and what it means, one line each; empty when the copy is right."""
    notes: list[str] = field(default_factory=list)
    """Worth knowing, not wrong."""
    databases: manifest.Counts = field(default_factory=dict)
    """What the copy's files hold."""


def describe(path: str, checksum: bool) -> dict[str, Any]:
    """A file, directory or link as the manifest describes it."""
    of = os.lstat(path)
    if stat.S_ISLNK(of.st_mode):
        return {"kind": "link", "target": os.readlink(path)}
    known = manifest.owned(of)
    if stat.S_ISDIR(of.st_mode):
        return {"kind": "directory", **known}
    if not stat.S_ISREG(of.st_mode):  # a pipe would never end
        return {"kind": "special file", **known}
    described: dict[str, Any] = {"kind": "file", **known}
    if checksum:
        described["sha256"] = manifest.checksum(path)
    return described


def drop_views(copy: Copy, places: dict[str, Any]) -> dict[str, str]:
    """Remove the views that can't be used; CouchDB builds them anew. One that is ahead of its shard it would take
    without a word, and answer with rows of documents that aren't there. Returns why, by paths as in the archive."""
    dropped = {}
    for directory in places["couchdb"]:
        scanned = scan(copy.at(directory), elsewhere=_elsewhere(copy, places))
        unusable = dict.fromkeys(scanned["unreadableViews"], "can't be read")
        for path, of in scanned["views"].items():
            if of["shardSequence"] is not None and of["updateSequence"] > of["shardSequence"]:
                unusable[path] = "was ahead of its shard"
        for path, why in unusable.items():
            saved = located(f"{directory}/{path}", places.get("elsewhere", {}))
            os.remove(copy.at(saved))
            dropped[saved] = why
    return dropped


def _elsewhere(copy: Copy, places: dict[str, Any]) -> dict[str, str]:
    return {copy.at(virtual): copy.at(real) for virtual, real in places.get("elsewhere", {}).items()}


def verify(before: Manifest, after: Manifest, copy: Copy, dropped: Collection[str], owners: bool = True) -> Verdict:
    """Compare a copy with the two parts of its archive's manifest.

    `dropped` are views that were removed on purpose (see `drop_views`). `owners` says whether users and
    groups are compared, too: only root can set them.
    """
    verdict = Verdict()
    places = before["places"]
    _belongs_together(before, after, verdict)
    compare_files(before, after, copy, set(dropped), owners, verdict)
    compare_databases(before, after, copy, verdict)
    for what in ("environment", "certificate", "key"):
        if places.get(what) is None:
            verdict.problems.append(f"the archive holds no {_MEANING[what]}")
    if places.get("certificate") and places.get("key"):
        _certificate(copy.at(places["certificate"]), copy.at(places["key"]), verdict)
    return verdict


_MEANING = {
    "environment": ".env: the passwords and the secret that the database needs are missing",
    "certificate": "TLS certificate: browsers and phones will refuse the connection",
    "key": "TLS key: nginx can't use the certificate",
}


def _belongs_together(before: Manifest, after: Manifest, verdict: Verdict) -> None:
    for part, name in ((before, "before"), (after, "after")):
        if part.get("format") != manifest.FORMAT or part.get("part") != name:
            verdict.problems.append(f"manifest-{name}.json is not of the kind that this program reads")
    if before.get("archive") != after.get("archive"):
        verdict.problems.append(
            f"the manifest's parts are of two archives: {before.get('archive')} and {after.get('archive')}"
        )


def compare_files(
    before: Manifest, after: Manifest, copy: Copy, dropped: set[str], owners: bool, verdict: Verdict
) -> None:
    places, files = before["places"], before["files"]
    data = [f"{directory}/" for directory in places["couchdb"]]
    changed = set(after.get("changed", []))
    problems: list[str] = []
    swapped: list[str] = []
    gone: list[tuple[str, str]] = []  # kind and line, for `grouped`
    checksums: list[str] = []
    compared = 0
    for path, wanted in files.items():
        if wanted["kind"] == "vanished" or path in dropped or path in changed:
            continue
        seen = as_couchdb_sees(path, places)
        inside = next((seen[len(prefix) :] for prefix in data if seen.startswith(prefix)), None)
        actual = copy.at(path)
        if not os.path.lexists(actual):
            _missing(path, inside, places, gone, problems)
            continue
        found = describe(actual, "sha256" in wanted)
        compared += 1
        if found["kind"] != wanted["kind"]:
            problems.append(f"{path}: is a {found['kind']}, but was a {wanted['kind']}")
            continue
        if found.get("target") != wanted.get("target"):
            problems.append(f"{path}: leads to {found['target']}, but led to {wanted['target']}")
        differs = []
        if found.get("mode") != wanted.get("mode"):
            differs.append(f"{path}: has mode {found['mode']}, but had {wanted['mode']}")
        if owners and (found.get("uid"), found.get("gid")) != (wanted.get("uid"), wanted.get("gid")):
            differs.append(
                f"{path}: belongs to {found['uid']}:{found['gid']}, but belonged to {wanted['uid']}:{wanted['gid']}"
            )
        # While the backup runs a compaction swaps files, and a container that starts sets owners and modes right.
        if inside is not None or path in places["couchdb"]:
            swapped += differs
        else:
            problems += differs
        if "sha256" in wanted and found["sha256"] != wanted["sha256"]:
            meaning = next(
                (f" ({_WRONG[what]})" for what in _WRONG if places.get(what) == path),
                "",
            )
            checksums.append(f"{path}: its content is not what was backed up{meaning}")
    for path in copy.paths(roots_of(places)):
        if path not in files:
            problems.append(f"{path}: is not in the manifest, so it comes from elsewhere")
    verdict.problems += problems + checksums
    verdict.notes += grouped(gone)
    if swapped:
        more = f" (and {len(swapped) - 1} more)" if len(swapped) > 1 else ""
        verdict.notes.append(f"{swapped[0]}{more}: CouchDB changed that while it was backed up")
    if not problems:
        verdict.checked.append(
            f"files: {compared} files and directories are there{', with owners' if owners else ''} and modes"
        )
    summed = sum(1 for of in files.values() if "sha256" in of)
    if summed and not checksums and not problems:
        verdict.checked.append(f"checksums: {summed} files outside CouchDB's directory (.env, certificate, …)")


_WRONG = {
    "environment": "with another password or secret the services can't log in to the database",
    "certificate": "browsers and phones may refuse the connection",
    "key": "nginx can't use the certificate",
}


def _missing(
    path: str, inside: str | None, places: dict[str, Any], gone: list[tuple[str, str]], problems: list[str]
) -> None:
    if inside is None:
        meaning = next((f" ({text})" for what, text in _WRONG.items() if places.get(what) == path), "")
        problems.append(f"{path}: missing{meaning}")
    elif inside.startswith("shards/") and inside.endswith(".couch"):
        pass  # compare_shards knows whether its database was deleted meanwhile
    elif inside.endswith(".view"):
        gone.append(("view", f"{path}: missing; CouchDB builds this view anew"))
    elif inside.startswith((".shards", ".delete", *REBUILT)) or ".compact" in inside:
        gone.append(("gone", f"{path}: went away during the backup"))
    else:
        problems.append(f"{path}: missing")


def compare_databases(
    before: Manifest, after: Manifest, copy: Copy, verdict: Verdict, only: list[str] | None = None
) -> None:
    """Compare headers and counts. `only` are the databases of a copy that holds nothing else (None: all)."""
    directories = before["places"]["couchdb"]
    actual = [copy.at(directory) for directory in directories]
    unsteady = after.get("unsteady", [])
    elsewhere = _elsewhere(copy, before["places"])
    scanned = scan(*actual, whole=only is None, unsteady=unsteady, elsewhere=elsewhere)
    problems = [copy.plain(text) for text in scanned["problems"]]
    for name in only or []:
        ranges = scanned["databases"].get(name, {"ranges": []})["ranges"]
        problems += [
            f"{name}: no shard for {gap}; CouchDB would silently recreate it empty" for gap in missing_ranges(ranges)
        ]
    if not problems:
        verdict.checked.append(
            f"headers: the newest header of {len(scanned['shardFiles']) + len(scanned['nodeDatabases'])}"
            f" database files and {len(scanned['views'])} views is intact, no view is ahead of its shard"
        )
    verdict.problems += problems
    verdict.notes += [copy.plain(text) for text in scanned["notes"]]
    found = manifest.counts_of(scanned["databases"])
    low, high = before["counts"]["databases"], after["counts"]["databases"]
    # `scan` gives paths in the data directory when there is one, else absolute ones; the manifest's are absolute.
    prefix = f"{directories[0]}/" if len(directories) == 1 else ""
    shards = {copy.plain(prefix + path): of for path, of in scanned["shardFiles"].items()}
    unreadable = {copy.plain(prefix + path) for path in scanned["unreadable"]}
    passed_over = unreadable | {path for path in before["shards"] if database_of(path) in unsteady}
    wrong = manifest.compare_shards(before["shards"], high, shards, passed_over)
    if only is not None:
        low, high, found = ({name: of[name] for name in only if name in of} for of in (low, high, found))
    wrong += manifest.compare_counts(low, high, found, {*unsteady, *map(database_of, unreadable)})
    verdict.databases = found
    verdict.problems += wrong
    if not wrong and only != []:
        documents = sum(of["documents"] for of in found.values())
        databases = "1 database" if len(found) == 1 else f"{len(found)} databases"
        verdict.checked.append(
            f"counts: {databases} with {documents:,} documents, within what was there before and after the backup"
        )


def _certificate(certificate: str, key: str, verdict: Verdict) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        verdict.checked.append("TLS: certificate and key belong together")
    except FileNotFoundError:
        pass  # named above
    except (OSError, ssl.SSLError) as error:
        verdict.problems.append(f"TLS: certificate and key don't belong together: {str(error).splitlines()[0]}")
