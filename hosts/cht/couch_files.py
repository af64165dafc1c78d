#!/usr/bin/env python3
"""Read the headers of CouchDB's database and view files, without a CouchDB.

The newest header of a `.couch` file says how many documents it holds and at which update sequence it
stands. That is enough to count a data directory, a mounted archive or a restore in well under a second,
and to see a missing shard, a damaged file, or a view that is ahead of its shard. Only headers are read:
damage inside a file's data is not seen.

Format (CouchDB 3.5, `src/couch/src/couch_file.erl`, `couch_bt_engine_header.erl`): a file is a row of
4,096-byte blocks; a block whose first byte is 1 begins a header; the newest header that checks out wins.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import xxhash

BLOCK = 4096
# Nearly always the newest header is in the last blocks of a file; there may be thousands of files.
FIRST_CHUNK = 16 * BLOCK
CHUNK = 256 * BLOCK
CHECKSUM = 16
# A real header has some hundred bytes, a view's some thousand. The limit keeps garbage from filling memory.
LARGEST_HEADER = 16 * 1024 * 1024
DEEPEST_TERM = 100
LAST_KEY = 0xFFFFFFFF

SHARD = re.compile(r"^shards/([0-9a-f]{8})-([0-9a-f]{8})/(.+)\.(\d+)\.couch$")
VIEW = re.compile(r"^\.(.+)_design/mrview/[0-9a-f]+\.view$")


class Unreadable(Exception):
    """A file that is no intact CouchDB file. The text is one line and begins with the file's path."""


class BadTerm(ValueError):
    """Bytes that are no Erlang term of the kinds CouchDB writes into headers."""


class Atom(str):
    """An Erlang atom, told apart from a binary (`bytes`)."""


def decode_term(data: bytes) -> Any:
    """Decode one value in Erlang's external term format (erts, "External Term Format").

    Tuples become `tuple`, lists and strings `list`, maps `dict`, binaries `bytes`, atoms `Atom`,
    numbers `int` or `float`. Raises BadTerm on anything else, on bytes left over and on short input.
    """
    if not data or data[0] != 131:
        raise BadTerm("it doesn't begin with the version byte 131")
    try:
        value, end = _decode(data, 1, 0)
    except (struct.error, IndexError, UnicodeDecodeError, TypeError) as error:
        raise BadTerm("it ends too early or is garbled") from error
    if end != len(data):
        raise BadTerm(f"{len(data) - end} bytes are left over")
    return value


def _take(data: bytes, at: int, length: int) -> bytes:
    if length > len(data) - at:
        raise BadTerm("it ends too early")
    return data[at : at + length]


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > DEEPEST_TERM:
        raise BadTerm("it is nested too deeply")
    tag = data[at]
    at += 1
    if tag == 97:  # SMALL_INTEGER_EXT
        return data[at], at + 1
    if tag == 98:  # INTEGER_EXT
        return struct.unpack_from(">i", data, at)[0], at + 4
    if tag == 70:  # NEW_FLOAT_EXT
        return struct.unpack_from(">d", data, at)[0], at + 8
    if tag in (110, 111):  # SMALL_BIG_EXT, LARGE_BIG_EXT
        head = ">B" if tag == 110 else ">I"
        length = struct.unpack_from(head, data, at)[0]
        at += struct.calcsize(head)
        sign = data[at]
        number = int.from_bytes(_take(data, at + 1, length), "little")
        return (-number if sign else number), at + 1 + length
    if tag in (100, 118, 119, 115):  # ATOM_EXT, ATOM_UTF8_EXT, SMALL_ATOM_UTF8_EXT, SMALL_ATOM_EXT
        head = ">H" if tag in (100, 118) else ">B"
        length = struct.unpack_from(head, data, at)[0]
        at += struct.calcsize(head)
        encoding = "latin-1" if tag in (100, 115) else "utf-8"
        return Atom(_take(data, at, length).decode(encoding)), at + length
    if tag == 109:  # BINARY_EXT
        length = struct.unpack_from(">I", data, at)[0]
        return _take(data, at + 4, length), at + 4 + length
    if tag == 107:  # STRING_EXT: a list of bytes
        length = struct.unpack_from(">H", data, at)[0]
        return list(_take(data, at + 2, length)), at + 2 + length
    if tag == 106:  # NIL_EXT
        return [], at
    if tag in (104, 105):  # SMALL_TUPLE_EXT, LARGE_TUPLE_EXT
        head = ">B" if tag == 104 else ">I"
        values, at = _decode_many(data, at, head, 1, depth)
        return tuple(values), at
    if tag == 108:  # LIST_EXT: the elements, then a tail which is [] in a proper list
        values, at = _decode_many(data, at, ">I", 1, depth)
        tail, at = _decode(data, at, depth + 1)
        if tail != []:
            raise BadTerm("a list has an improper tail")
        return values, at
    if tag == 116:  # MAP_EXT
        values, at = _decode_many(data, at, ">I", 2, depth)
        return dict(zip(values[::2], values[1::2])), at
    raise BadTerm(f"tag {tag} is unknown")


def _decode_many(data: bytes, at: int, head: str, each: int, depth: int) -> tuple[list[Any], int]:
    count = struct.unpack_from(head, data, at)[0] * each
    at += struct.calcsize(head)
    if count > len(data) - at:  # every element needs a byte: an absurd count ends here, not in memory
        raise BadTerm("it ends too early")
    values = []
    for _ in range(count):
        value, at = _decode(data, at, depth + 1)
        values.append(value)
    return values, at


@dataclass(frozen=True)
class Header:
    """The newest intact header of a file."""

    term: Any
    """The decoded Erlang term."""
    position: int
    """Where the header begins, in bytes."""
    file_size: int
    """Size of the file in bytes when it was opened."""
    damaged_after: int
    """Number of newer headers that don't check out. A copy of a live file may have one (half written)."""


def newest_header(path: str) -> Header:
    """Find the newest header of a `.couch` or `.view` file, reading backwards from its end.

    Memory is bounded (about 1 MiB and one header) however large the file is. Raises Unreadable when no
    header checks out, and OSError when the file can't be read at all.
    """
    damaged = 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for position in _header_blocks(file, size):
            data = _header_bytes(file, position, size)
            if data is None:
                damaged += 1
                continue
            try:
                return Header(decode_term(data), position, size, damaged)
            except BadTerm as error:
                raise Unreadable(
                    f"{path}: the header at byte {position} is no Erlang term: {error}"
                ) from error
    if size == 0:
        raise Unreadable(f"{path}: empty file, a CouchDB file has a header of at least {BLOCK} bytes")
    raise Unreadable(f"{path}: none of its {size} bytes is an intact CouchDB header ({damaged} damaged)")


def _header_blocks(file: BinaryIO, size: int) -> Iterator[int]:
    end = -(-size // BLOCK) * BLOCK
    chunk = FIRST_CHUNK
    while end > 0:
        start = max(0, end - chunk)
        chunk = CHUNK
        file.seek(start)
        marks = file.read(end - start)[::BLOCK]
        for index in range(len(marks) - 1, -1, -1):
            if marks[index] == 1:
                yield start + index * BLOCK
        end = start


def _header_bytes(file: BinaryIO, position: int, size: int) -> bytes | None:
    file.seek(position + 1)
    head = file.read(4)
    if len(head) < 4:
        return None
    length = struct.unpack(">I", head)[0]
    if not CHECKSUM < length <= min(LARGEST_HEADER, size - position - 5):
        return None
    # Five bytes of the first block are used; every following block spends its first byte as a mark.
    raw = file.read(length + (length + 5) // (BLOCK - 1) + 1)
    first = BLOCK - 5
    parts = [raw[:first]]
    for at in range(first, len(raw), BLOCK):
        parts.append(raw[at + 1 : at + BLOCK])
    payload = b"".join(parts)[:length]
    if len(payload) < length:
        return None
    checksum, term = payload[:CHECKSUM], payload[CHECKSUM:]
    # XXH3 since CouchDB 3.4, MD5 before; a database that was upgraded may hold both.
    if (
        checksum == xxhash.xxh3_128_digest(term)
        or checksum == hashlib.md5(term, usedforsecurity=False).digest()
    ):
        return term
    return None


def database_counts(path: str) -> dict[str, int]:
    """Counts of one `.couch` file: `documents`, `deleted`, `updateSequence`, `size` (bytes) and
    `damagedHeaders` (newer headers that don't check out). Raises Unreadable, OSError."""
    header = newest_header(path)
    term = header.term
    try:
        if not isinstance(term, tuple) or term[0] != "db_header":
            raise Unreadable(f"{path}: its header is not that of a database")
        sequence, tree = term[2], term[4]
        documents, deleted = (0, 0) if tree == Atom("nil") else tree[1][:2]
        if not all(isinstance(number, int) and number >= 0 for number in (sequence, documents, deleted)):
            raise Unreadable(f"{path}: its header holds no counts")
    except (IndexError, TypeError, ValueError) as error:
        raise Unreadable(f"{path}: its header is of an unknown version") from error
    return {
        "documents": documents,
        "deleted": deleted,
        "updateSequence": sequence,
        "size": header.file_size,
        "damagedHeaders": header.damaged_after,
    }


def view_sequence(path: str) -> int:
    """The update sequence of its shard up to which a `.view` file is built. Raises Unreadable, OSError."""
    term = newest_header(path).term
    try:
        _signature, header = term
        if header[0] != "mrheader" or not isinstance(header[1], int):
            raise Unreadable(f"{path}: its header is not that of a view")
        return header[1]
    except (IndexError, TypeError, ValueError) as error:
        raise Unreadable(f"{path}: its header is not that of a view") from error


def list_files(directory: str) -> dict[str, int]:
    """Every regular file under `directory`: path relative to it, size in bytes. Sorted. Files that vanish
    while the list is made (a compaction swaps files) are left out."""
    sizes: dict[str, int] = {}
    for folder, _folders, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            try:
                if not os.path.islink(path) and os.path.isfile(path):
                    sizes[os.path.relpath(path, directory)] = os.stat(path).st_size
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


def scan(*directories: str, whole: bool = True) -> dict[str, Any]:
    """Read every header of a CouchDB's data directories: one, or those of all nodes of a cluster.

    Result, ready for JSON:

    - `databases`: by name `documents`, `deleted`, `updateSequence` (each summed over the shards),
      `shards` (number), `ranges`, `size` (bytes);
    - `nodeDatabases`: the same without shards for files such as `_dbs.couch`, by path;
    - `shardFiles`: the same for every file of `databases`, by path;
    - `views`: by path `updateSequence`, and `shardSequence` of its shard (null when that is missing);
    - `files`: by path the size in bytes;
    - `problems`: one line each, empty when all is well; `notes`: worth knowing, not wrong.

    `whole` is False for a part of a data directory, from which files are left out on purpose: then what isn't
    there is no problem.
    Paths are relative to the data directory; with several directories they begin with its path.
    Copies of databases with more than one replica (n > 1) count each replica: CHT uses n=1.
    """
    found: dict[str, Any] = {"databases": {}, "nodeDatabases": {}, "shardFiles": {}, "views": {}, "files": {}}
    problems: list[str] = []
    notes: list[str] = []
    shards: dict[str, dict[int, list[tuple[str, str]]]] = {}  # database, epoch, (range, path)
    sequences: dict[str, int] = {}  # by path without ".couch"
    counts: dict[str, dict[str, int]] = {}
    views: dict[str, tuple[str, int]] = {}

    for directory in directories:
        prefix = f"{directory.rstrip('/')}/" if len(directories) > 1 else ""
        files = list_files(directory)
        problems += [
            f"{directory}: {what} is missing, so this is no CouchDB data directory"
            for what in ("_dbs.couch", "shards")
            if whole and not os.path.exists(os.path.join(directory, what))
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
                views[prefix + name] = (prefix + view[1], view_sequence(os.path.join(directory, name)))
            except FileNotFoundError:
                continue
            except (Unreadable, OSError) as error:
                problems.append(str(error))
        for name in files:
            if not name.endswith(".couch") or name.endswith(".deleted.couch"):
                continue
            try:
                counted = database_counts(os.path.join(directory, name))
            except FileNotFoundError:
                continue
            except (Unreadable, OSError) as error:
                problems.append(str(error))
                counted = None
            shard = SHARD.match(name)
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

    for name in sorted(shards):
        epochs = shards[name]
        newest = max(epochs)
        notes += [
            f"{name}: files of an older database of that name (.{old})" for old in epochs if old != newest
        ]
        total = {"documents": 0, "deleted": 0, "updateSequence": 0, "size": 0}
        for _range, path in epochs[newest]:
            for key in total:
                total[key] += counts.get(path, {}).get(key, 0)
        ranges = sorted({text for text, _path in epochs[newest]})
        found["databases"][name] = {**total, "shards": len(epochs[newest]), "ranges": ranges}
        problems += [
            f"{name}: no shard for {gap}; CouchDB would silently recreate it empty"
            for gap in (missing_ranges(ranges) if whole else [])
        ]

    for path, (shard_path, sequence) in sorted(views.items()):
        of_shard = sequences.get(shard_path)
        found["views"][path] = {"updateSequence": sequence, "shardSequence": of_shard}
        if of_shard is None:
            notes.append(f"{path}: its shard is not there")
        elif sequence > of_shard:
            problems.append(
                f"{path}: ahead of its shard ({sequence} > {of_shard}); remove it, CouchDB rebuilds it"
            )

    return {**found, "problems": problems, "notes": notes}


def table(result: dict[str, Any]) -> str:
    """The result of `scan` for people."""
    rows = [("database", "documents", "deleted", "sequence", "shards", "bytes")]
    for name, of in result["databases"].items():
        rows.append(
            (name, *(f"{of[key]:,}" for key in ("documents", "deleted", "updateSequence", "shards", "size")))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells))
    lines.append(
        f"{len(result['files'])} files, {sum(result['files'].values()):,} bytes, {len(result['views'])} views"
    )
    lines += [f"note: {text}" for text in result["notes"]]
    lines += [f"problem: {text}" for text in result["problems"]]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="couch_files.py",
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
            print(f"couch_files.py: {directory}: not a directory", file=sys.stderr)
            return 2
    try:
        result = scan(*options.directory)
    except OSError as error:
        print(f"couch_files.py: {error}", file=sys.stderr)
        return 2
    try:
        print(json.dumps(result, indent=2) if options.json else table(result))
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # the reader (head, less) has gone
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
