"""Count a data directory's documents from the headers of its files, and tell what is wrong there."""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import sys
from collections.abc import Collection, Iterable
from typing import Any

from chtbackup.base.text import complain, plain_lines
from chtbackup.couchdb.files import LAST_KEY, Empty, Unreadable, database_counts, documents_of, view_sequence

SHARD = re.compile(r"^shards/([0-9a-f]{8})-([0-9a-f]{8})/(.+)\.(\d+)\.couch$")
IN_SHARDS = re.compile(r"shards/[0-9a-f]{8}-[0-9a-f]{8}/(.+)")
VIEW = re.compile(r"^\.(.+)_design/mrview/[0-9a-f]+\.view$")


def located(path: str, elsewhere: dict[str, str]) -> str:
    """Where something of CouchDB's data really is. `elsewhere` has, by their paths in a data directory, the
    directories that are mounted there or that a link leads to, perhaps one in another."""
    above = [virtual for virtual in elsewhere if path == virtual or path.startswith(f"{virtual}/")]
    nearest = max(above, key=len, default=None)
    return path if nearest is None else elsewhere[nearest] + path[len(nearest) :]


def list_files(directory: str, elsewhere: dict[str, str] | None = None) -> dict[str, int]:
    """Every regular file under `directory`: path relative to it, size in bytes. Sorted. Files that vanish
    while the list is made (a compaction swaps files) are left out. `elsewhere`: see `located`."""
    top = directory.rstrip("/")
    elsewhere = {path: real for path, real in (elsewhere or {}).items() if path.startswith(f"{top}/")}
    sizes: dict[str, int] = {}
    for seen, real in {top: top, **elsewhere}.items():
        for folder, folders, names in os.walk(real):
            place = seen + folder[len(real) :]
            folders[:] = [name for name in folders if f"{place}/{name}" not in elsewhere]
            for name in names:
                path = os.path.join(folder, name)
                try:
                    of = os.lstat(path)
                    if stat.S_ISREG(of.st_mode):
                        sizes[os.path.relpath(seen + path[len(real) :], directory)] = of.st_size
                except FileNotFoundError:
                    continue
    return dict(sorted(sizes.items()))


def missing_ranges(ranges: Iterable[str]) -> list[str]:
    """Parts of the key space 00000000-ffffffff that none of the `ranges` ("00000000-7fffffff") covers.

    The ranges of a complete database cover it without a gap, whatever its number of shards (q)."""
    gaps = []
    expected = 0
    for begin, end in sorted(tuple(int(part, 16) for part in text.split("-")) for text in ranges):
        if begin > expected:
            gaps.append(f"{expected:08x}-{begin - 1:08x}")
        expected = max(expected, end + 1)
    if expected <= LAST_KEY:
        gaps.append(f"{expected:08x}-{LAST_KEY:08x}")
    return gaps


def database_of(path: str) -> str:
    """The database's name in a path of one of its shards or views: what is between range and epoch."""
    found = IN_SHARDS.search(path)
    name = found[1] if found else ""
    return name.partition("_design/")[0].removesuffix(".couch").rpartition(".")[0]


def grouped(found: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each kind of trouble of each database, instead of one for each of its shards. `found` are
    kinds and lines, which begin with a path; what is of no database has a line of its own."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for kind, line in found:
        database = database_of(line.split(": ")[0])
        groups.setdefault((kind, database, "" if database else line), []).append(line)
    return [
        lines[0] + (f" (and so are {len(lines) - 1} more of {database})" if database and len(lines) > 1 else "")
        for (_kind, database, _line), lines in groups.items()
    ]


def scan(
    *directories: str,
    whole: bool = True,
    unsteady: Collection[str] = (),
    elsewhere: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Read every header of a CouchDB's data directories: one, or those of all nodes of a cluster.

    Result, ready for JSON:

    - `databases`: by name `documents`, `deleted`, `updateSequence` (each summed over the shards),
      `shards` (number), `ranges`, `size` (bytes);
    - `nodeDatabases`: the same without shards for files such as `_dbs.couch`, by path;
    - `shardFiles`: the same for every file of `databases`, by path;
    - `views`: by path `updateSequence`, and `shardSequence` of its shard (null when that is missing);
    - `unreadableViews`: paths of views whose header can't be read; CouchDB builds them anew;
    - `files`: by path the size in bytes;
    - `unreadable`: paths of shards without an intact header;
    - `leftOver`: names of databases that CouchDB has deleted and of which files are there all the same, as
      when a request came while it deleted them; they are none of `databases`;
    - `problems`: one line each, empty when all is well; `notes`: worth knowing, not wrong.

    `whole` is False for a part of a data directory, from which files are left out on purpose: then what isn't
    there is no problem. `unsteady` are databases that were made or deleted while the files were copied: it is
    no problem that they aren't whole. `elsewhere`: see `located`.
    Paths are relative to the data directory; with several directories they begin with its path.
    Copies of databases with more than one replica (n > 1) count each replica: CHT uses n=1.
    """
    kinds = ("databases", "nodeDatabases", "shardFiles", "views", "files")
    found: dict[str, Any] = {**{kind: {} for kind in kinds}, "unreadable": [], "unreadableViews": []}
    problems: list[str] = []
    notes: list[str] = []
    shards: dict[str, dict[int, list[tuple[str, str]]]] = {}  # database, epoch, (range, path)
    sequences: dict[str, int] = {}  # by path without ".couch"
    counts: dict[str, dict[str, int]] = {}
    views: dict[str, tuple[str, int]] = {}
    unread: list[tuple[str, str]] = []  # kind and line, for `grouped`
    ahead: list[tuple[str, str]] = []
    empty: list[tuple[str, str]] = []  # directory, name
    broken: list[tuple[str | None, str]] = []  # database of a shard, and what is wrong

    for directory in directories:
        prefix = f"{directory.rstrip('/')}/" if len(directories) > 1 else ""
        files = list_files(directory, elsewhere)

        def at(name: str, directory: str = directory) -> str:
            return located(os.path.join(directory, name), elsewhere or {})

        problems += [
            f"{directory}: {what} is missing, so this is no CouchDB data directory"
            for what in ("_dbs.couch", "shards")
            if whole and not os.path.exists(at(what))
        ]
        for name, size in files.items():
            found["files"][prefix + name] = size
        # Views before shards, for the reason the backup copies them first: on a running CouchDB the
        # shard moves on, and a view read after it would look ahead.
        for name in files:
            view = VIEW.match(name)
            if view is None:
                continue
            try:
                views[prefix + name] = (prefix + view[1], view_sequence(at(name)))
            except FileNotFoundError:
                continue
            except Unreadable as error:
                found["unreadableViews"].append(prefix + name)
                unread.append(("unreadable", f"{error}; CouchDB builds this view anew"))
            except OSError as error:
                problems.append(str(error))
        for name in files:
            if not name.endswith(".couch") or name.endswith(".deleted.couch"):
                continue
            try:
                counted = database_counts(at(name))
            except FileNotFoundError:
                continue
            except Empty:
                # CouchDB takes it for what it has just made. Whether anything was lost is seen below.
                counted = {"documents": 0, "deleted": 0, "updateSequence": 0, "size": 0, "damagedHeaders": 0}
                empty.append((directory, name))
            except (Unreadable, OSError) as error:
                counted, wrong = None, str(error)
            shard = SHARD.match(name)
            if counted is None:
                broken.append((None if shard is None else shard[3], wrong))
                if shard is not None:
                    found["unreadable"].append(prefix + name)
            if shard is not None:
                place = (f"{shard[1]}-{shard[2]}", prefix + name)
                shards.setdefault(shard[3], {}).setdefault(int(shard[4]), []).append(place)
            if counted is None:
                continue
            if counted["damagedHeaders"]:
                notes.append(f"{prefix}{name}: {counted['damagedHeaders']} newer header(s) don't check out")
            counts[prefix + name] = counted
            sequences[prefix + name[: -len(".couch")]] = counted["updateSequence"]
            kind = "nodeDatabases" if shard is None else "shardFiles"
            keys = ("documents", "deleted", "updateSequence", "size")
            found[kind][prefix + name] = {key: counted[key] for key in keys}

    # After the files, because a database that goes meanwhile is deleted there before its files are.
    listed: dict[bool, set[str]] = {False: set(), True: set()}  # by whether it is deleted
    for directory in directories if whole else ():
        prefix = f"{directory.rstrip('/')}/" if len(directories) > 1 else ""
        if prefix + "_dbs.couch" not in counts:
            continue  # told above
        try:
            path = located(os.path.join(directory, "_dbs.couch"), elsewhere or {})
            for name, deleted in documents_of(path) if counts[prefix + "_dbs.couch"]["size"] else ():
                listed[deleted].add(name)
        except (OSError, Unreadable) as error:
            problems.append(str(error))
    left_over = (listed[True] - listed[False]) & shards.keys()
    found["leftOver"] = sorted(left_over)
    for database, text in broken:
        (notes if database in unsteady or database in left_over else problems).append(text)

    for name in sorted(shards):
        epochs = shards[name]
        if name in left_over:
            number = sum(len(files) for files in epochs.values())
            notes.append(f"{name}: CouchDB has deleted this database, and {number} of its files are left over")
            continue
        newest = max(epochs)
        notes += [f"{name}: files of an older database of that name (.{old})" for old in epochs if old != newest]
        total = {"documents": 0, "deleted": 0, "updateSequence": 0, "size": 0}
        for _range, path in epochs[newest]:
            for key in total:
                total[key] += counts.get(path, {}).get(key, 0)
        ranges = sorted({text for text, _path in epochs[newest]})
        found["databases"][name] = {**total, "shards": len(epochs[newest]), "ranges": ranges}
        gaps = missing_ranges(ranges) if whole else []
        if name in unsteady and gaps:
            notes.append(f"{name}: was made or deleted meanwhile, so it is not whole (no shard for {', '.join(gaps)})")
        else:
            problems += [f"{name}: no shard for {gap}; CouchDB would silently recreate it empty" for gap in gaps]

    for directory, name in empty:
        shard = SHARD.match(name)
        others = shards[shard[3]][int(shard[4])] if shard else []
        used = sum(counts[path]["updateSequence"] for _range, path in others if path in counts)
        lost = used or (shards and name == "_dbs.couch")
        if lost and not (shard and (shard[3] in unsteady or shard[3] in left_over)):
            problems.append(f"{os.path.join(directory, name)}: empty file, but its database has changes")
        else:
            notes.append(f"{os.path.join(directory, name)}: empty file, as CouchDB has just made it")

    for path, (shard_path, sequence) in sorted(views.items()):
        of_shard = sequences.get(shard_path)
        found["views"][path] = {"updateSequence": sequence, "shardSequence": of_shard}
        if of_shard is None:
            notes.append(f"{path}: its shard is not there")
        elif sequence > of_shard:
            line = f"{path}: ahead of its shard ({sequence} > {of_shard}); remove it, CouchDB rebuilds it"
            ahead.append(("ahead", line))
    problems += grouped(ahead)
    notes += grouped(unread)

    return {**found, "problems": problems, "notes": notes}


def table(result: dict[str, Any]) -> str:
    """The result of `scan` for people."""
    rows = [("database", "documents", "deleted", "sequence", "shards", "bytes")]
    for name, of in result["databases"].items():
        rows.append((name, *(f"{of[key]:,}" for key in ("documents", "deleted", "updateSequence", "shards", "size"))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells))
    lines.append(f"{len(result['files'])} files, {sum(result['files'].values()):,} bytes, {len(result['views'])} views")
    lines += [f"note: {text}" for text in result["notes"]]
    lines += [f"problem: {text}" for text in result["problems"]]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Count the documents of a CouchDB's data directory from the headers of its files.",
        epilog="Exit codes: 0 all is well, 1 problems were found (listed), 2 the directory can't be read.",
    )
    parser.add_argument(
        "directory",
        nargs="+",
        metavar="DIRECTORY",
        help="data directory (all of them for a clustered CouchDB)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON, file list included")
    options = parser.parse_args(arguments)
    for directory in options.directory:
        if not os.path.isdir(directory):
            complain(f"{directory}: not a directory")
            return 2
    try:
        result = scan(*options.directory)
    except OSError as error:
        complain(error)
        return 2
    try:
        print(json.dumps(result, indent=2) if options.json else plain_lines(table(result)))
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # the reader (head, less) has gone
    return 1 if result["problems"] else 0
