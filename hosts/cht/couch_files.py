#!/usr/bin/env python3
"""Read the headers of CouchDB's database and view files, without a CouchDB.

The newest header of a `.couch` file says how many documents it holds and at which update sequence it
stands. That is enough to count a data directory, a mounted archive or a restore in well under a second,
and to see a missing shard, a damaged file, or a view that is ahead of its shard. Only headers are read:
damage inside a file's data is not seen (a drill reads that through CouchDB, a portion each time).

Format (CouchDB 3.5, `src/couch/src/couch_file.erl`, `couch_bt_engine_header.erl`): a file is a row of
4,096-byte blocks; a block whose first byte is 1 begins a header; the newest header that checks out wins.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import stat
import struct
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import xxhash

from plain import complain, exit_with, plain_lines

BLOCK = 4096
# Nearly always the newest header is in the last blocks of a file; there may be thousands of files.
FIRST_CHUNK = 16 * BLOCK
CHUNK = 256 * BLOCK
CHECKSUM = 16
# A real header has some hundred bytes, a view's some thousand. The limit keeps garbage from filling memory.
LARGEST_HEADER = 16 * 1024 * 1024
DEEPEST_TERM = 100
LARGEST_TREE = 1_000_000  # nodes of a tree of documents
LEVELS = 4  # of a node of it: itself, its list, a key with its value, the value's parts
LAST_KEY = 0xFFFFFFFF

SHARD = re.compile(r"^shards/([0-9a-f]{8})-([0-9a-f]{8})/(.+)\.(\d+)\.couch$")
IN_SHARDS = re.compile(r"shards/[0-9a-f]{8}-[0-9a-f]{8}/(.+)")
VIEW = re.compile(r"^\.(.+)_design/mrview/[0-9a-f]+\.view$")


class Unreadable(Exception):
    """A file that is no intact CouchDB file. The text is one line and begins with the file's path."""


class Empty(Unreadable):
    """A file without a byte: CouchDB has made it and not yet written its first header."""


class BadTerm(ValueError):
    """Bytes that are no Erlang term of the kinds CouchDB writes into headers."""


class Atom(str):
    """An Erlang atom, told apart from a binary (`bytes`)."""


def decode_term(data: bytes, levels: int | None = None) -> Any:
    """Decode one value in Erlang's external term format (erts, "External Term Format").

    What is deeper than so many `levels` is passed over, with None in its place; without them a value that is
    nested too deeply is refused. Tuples become `tuple`, lists and strings `list`, maps `dict`, binaries
    `bytes`, atoms `Atom`, numbers `int` or `float`. Raises BadTerm on anything else, on bytes left over and
    on short input.
    """
    if not data or data[0] != 131:
        raise BadTerm("it doesn't begin with the version byte 131")
    try:
        value, end = _decode(data, 1, 0, levels)
    except (struct.error, IndexError, UnicodeDecodeError, TypeError) as error:
        raise BadTerm("it ends too early or is garbled") from error
    if end != len(data):
        raise BadTerm(f"{len(data) - end} bytes are left over")
    return value


def _take(data: bytes, at: int, length: int) -> bytes:
    if length > len(data) - at:
        raise BadTerm("it ends too early")
    return data[at : at + length]


def _end(data: bytes, at: int) -> int:
    """Where the value ends that begins there, however deep it is."""
    left = 1
    while left:
        left -= 1
        tag = data[at]
        at += 1
        if tag in _FIXED:
            at += _FIXED[tag]
        elif tag in _COUNTED:
            head, each, more = _COUNTED[tag]
            count = struct.unpack_from(head, data, at)[0]
            at += struct.calcsize(head)
            if each:
                left += count * each + more
            else:
                at += count + more
        else:
            raise BadTerm(f"tag {tag} is unknown")
    return at


# Of each tag: how many bytes come after it.
_FIXED = {97: 1, 98: 4, 70: 8, 106: 0}
# Or how a count is written, how many values that is each (0: so many bytes), and how many more there are.
_COUNTED = {
    **{tag: (">B", 0, 0) for tag in (115, 119)},
    **{tag: (">H", 0, 0) for tag in (100, 107, 118)},
    **{109: (">I", 0, 0), 110: (">B", 0, 1), 111: (">I", 0, 1)},
    **{104: (">B", 1, 0), 105: (">I", 1, 0), 108: (">I", 1, 1), 116: (">I", 2, 0)},
}


def _decode(data: bytes, at: int, depth: int, levels: int | None) -> tuple[Any, int]:
    if levels is not None and depth > levels:
        return None, _end(data, at)
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
        values, at = _decode_many(data, at, head, 1, depth, levels)
        return tuple(values), at
    if tag == 108:  # LIST_EXT: the elements, then a tail which is [] in a proper list
        values, at = _decode_many(data, at, ">I", 1, depth, levels)
        tail, at = _decode(data, at, 0, 0)
        if tail != []:
            raise BadTerm("a list has an improper tail")
        return values, at
    if tag == 116:  # MAP_EXT
        values, at = _decode_many(data, at, ">I", 2, depth, levels)
        return dict(zip(values[::2], values[1::2])), at
    raise BadTerm(f"tag {tag} is unknown")


def _decode_many(
    data: bytes, at: int, head: str, each: int, depth: int, levels: int | None
) -> tuple[list[Any], int]:
    count = struct.unpack_from(head, data, at)[0] * each
    at += struct.calcsize(head)
    if count > len(data) - at:  # every element needs a byte: an absurd count ends here, not in memory
        raise BadTerm("it ends too early")
    values = []
    for _ in range(count):
        value, at = _decode(data, at, depth + 1, levels)
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
        raise Empty(f"{path}: empty file, a CouchDB file has a header of at least {BLOCK} bytes")
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
    return term if _is_checksum(checksum, term) else None


def _is_checksum(checksum: bytes, data: bytes) -> bool:
    # XXH3 since CouchDB 3.4, MD5 before; a database that was upgraded may hold both.
    return checksum in (xxhash.xxh3_128_digest(data), hashlib.md5(data, usedforsecurity=False).digest())


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


def listed_databases(path: str) -> list[str]:
    """The databases that a `_dbs.couch` lists. Raises Unreadable, OSError."""
    return [name for name in document_names(path) if not name.startswith("_design/")]


def document_names(path: str) -> list[str]:
    """The documents of a database file that aren't deleted. Raises Unreadable, OSError."""
    return [name for name, deleted in _documents(path) if not deleted]


def _documents(path: str) -> list[tuple[str, bool]]:
    """The documents of a database file, with whether each is deleted."""
    tree = newest_header(path).term[4]
    found: list[tuple[str, bool]] = []
    with open(path, "rb") as file:
        left = [] if tree == Atom("nil") else [tree[0]]
        read = 0
        while left:
            read += 1
            if read > LARGEST_TREE:
                raise Unreadable(f"{path}: its tree of documents has no end")
            try:
                # A document that was changed often has a tree of revisions that is as deep.
                kind, entries = stored_term(read_chunk(file, left.pop()), levels=LEVELS)
                if kind == "kp_node":
                    left += [pointer[0] for _key, pointer in reversed(entries)]
                elif kind == "kv_node":
                    found += [(key.decode(), value[1] != 0) for key, value in entries]
                else:
                    raise BadTerm("unknown kind of node")
            except (BadTerm, LookupError, TypeError, ValueError, AttributeError, struct.error) as error:
                raise Unreadable(f"{path}: its tree of documents can't be read: {error}") from error
    return found


def read_chunk(file: BinaryIO, position: int, largest: int = LARGEST_HEADER) -> bytes:
    """What `couch_file` has written at a place of a file: its length, perhaps a checksum, and so many bytes.
    Raises BadTerm when it isn't there as it was written, or has more than `largest` bytes."""

    def take(size: int) -> bytes:
        nonlocal position
        parts = []
        while size:
            # Every block spends its first byte as a mark.
            if position % BLOCK == 0:
                position += 1
            part = min(size, BLOCK - position % BLOCK)
            file.seek(position)
            parts.append(file.read(part))
            position += part
            size -= part
        return b"".join(parts)

    head = take(4)
    if len(head) < 4:
        raise BadTerm("it ends too early")
    (word,) = struct.unpack(">I", head)
    length = word & 0x7FFFFFFF
    if length > largest:
        raise BadTerm("it is too large")
    checksum = take(CHECKSUM) if word >> 31 else None
    data = take(length)
    if len(data) < length:
        raise BadTerm("it ends too early")
    if checksum is not None and not _is_checksum(checksum, data):
        raise BadTerm("its checksum is another one")
    return data


def stored_term(data: bytes, largest: int = LARGEST_HEADER, levels: int | None = None) -> Any:
    """A term as CouchDB stores it: packed by snappy, by Erlang itself, or not at all. Raises BadTerm, also
    for one of more than `largest` bytes. `levels`: see `decode_term`."""
    if data[:1] == b"\x01":
        data = unpack_snappy(data[1:], largest)
    if data[:2] == b"\x83P":
        try:
            data = b"\x83" + zlib.decompressobj().decompress(data[6:], largest)
        except zlib.error as error:
            raise BadTerm("its compression is garbled") from error
    return decode_term(data, levels)


def unpack_snappy(data: bytes, largest: int = LARGEST_HEADER) -> bytes:
    """Undo snappy's compression (google/snappy, `format_description.txt`). Raises BadTerm, also for more than
    `largest` bytes."""
    size, at, shift = 0, 0, 0
    try:
        while True:
            size |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not data[at - 1] & 0x80:
                break
        if size > largest:
            raise BadTerm("it is too large")
        out = bytearray()
        while at < len(data):
            tag = data[at]
            at += 1
            if tag & 3 == 0:
                length = tag >> 2
                if length >= 60:  # that many bytes more hold it
                    wide = length - 59
                    length = int.from_bytes(data[at : at + wide], "little")
                    at += wide
                out += _take(data, at, length + 1)
                at += length + 1
            else:
                if tag & 3 == 1:
                    length, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at]
                    at += 1
                else:
                    wide = 2 if tag & 3 == 2 else 4
                    length, offset = (tag >> 2) + 1, int.from_bytes(data[at : at + wide], "little")
                    at += wide
                if not 0 < offset <= len(out):
                    raise BadTerm("its compression is garbled")
                # What it repeats may be shorter than what it makes of it.
                start = len(out) - offset
                piece = out[start : start + length]
                out += (piece * (length // offset + 1))[:length]
            if len(out) > size:
                raise BadTerm("its compression is garbled")
    except IndexError as error:
        raise BadTerm("it ends too early") from error
    if len(out) != size:
        raise BadTerm("its compression is garbled")
    return bytes(out)


def view_sequence(path: str) -> int:
    """The update sequence of its shard up to which a `.view` file is built; 0 for one that CouchDB has made
    and not begun to build: without a byte, or with only its signature in its header. Raises Unreadable,
    OSError."""
    try:
        term = newest_header(path).term
    except Empty:
        return 0
    try:
        _signature, header = term
        if header == Atom("nil"):
            return 0
        if header[0] != "mrheader" or not isinstance(header[1], int):
            raise Unreadable(f"{path}: its header is not that of a view")
        return header[1]
    except (IndexError, TypeError, ValueError) as error:
        raise Unreadable(f"{path}: its header is not that of a view") from error


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
        lines[0]
        + (f" (and so are {len(lines) - 1} more of {database})" if database and len(lines) > 1 else "")
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
            for name, deleted in _documents(path) if counts[prefix + "_dbs.couch"]["size"] else ():
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
            notes.append(
                f"{name}: CouchDB has deleted this database, and {number} of its files are left over"
            )
            continue
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
        gaps = missing_ranges(ranges) if whole else []
        if name in unsteady and gaps:
            notes.append(
                f"{name}: was made or deleted meanwhile, so it is not whole (no shard for {', '.join(gaps)})"
            )
        else:
            problems += [
                f"{name}: no shard for {gap}; CouchDB would silently recreate it empty" for gap in gaps
            ]

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
            complain(f"couch_files.py: {directory}: not a directory")
            return 2
    try:
        result = scan(*options.directory)
    except OSError as error:
        complain(f"couch_files.py: {error}")
        return 2
    try:
        print(json.dumps(result, indent=2) if options.json else plain_lines(table(result)))
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # the reader (head, less) has gone
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    exit_with(main)
