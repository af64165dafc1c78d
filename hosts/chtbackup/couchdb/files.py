"""Read the headers of CouchDB's database and view files, without a CouchDB.

The newest header of a `.couch` file says how many documents it holds and at which update sequence it
stands. That is enough to count a data directory, a mounted archive or a restore in well under a second,
and to see a missing shard, a damaged file, or a view that is ahead of its shard. Only headers are read:
damage inside a file's data is not seen (a drill reads that through CouchDB, a portion each time).

Format (CouchDB 3.5, `src/couch/src/couch_file.erl`, `couch_bt_engine_header.erl`): a file is a row of
4,096-byte blocks; a block whose first byte is 1 begins a header; the newest header that checks out wins.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import xxhash

from chtbackup.couchdb.snappy import LARGEST_HEADER, unpack_snappy
from chtbackup.couchdb.term import Atom, BadTerm, decode_term

BLOCK = 4096
# Nearly always the newest header is in the last blocks of a file; there may be thousands of files.
FIRST_CHUNK = 16 * BLOCK
CHUNK = 256 * BLOCK
CHECKSUM = 16
LARGEST_TREE = 1_000_000  # nodes of a tree of documents
LEVELS = 4  # of a node of it: itself, its list, a key with its value, the value's parts
LAST_KEY = 0xFFFFFFFF


class Unreadable(Exception):
    """A file that is no intact CouchDB file. The text is one line and begins with the file's path."""


class Empty(Unreadable):
    """A file without a byte: CouchDB has made it and not yet written its first header."""


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
                raise Unreadable(f"{path}: the header at byte {position} is no Erlang term: {error}") from error
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
    return [name for name, deleted in documents_of(path) if not deleted]


def documents_of(path: str) -> list[tuple[str, bool]]:
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
