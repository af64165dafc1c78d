"""Damage a CouchDB file as copies get damaged. Needs the package chtbackup, and xxhash, in the Python path.

Arguments: `cut` FILE: its end is cut off up to an older header, which CouchDB takes without a word.
           `later` FILE: it gets a header with one change more, as the same file has that was copied later.
"""

import struct
import sys

import xxhash
from chtbackup.couchdb import files as couch_files

BLOCK = couch_files.BLOCK
# What stands before the update sequence in a header: for a database its name and disk version.
BEFORE = {".couch": len(b"db_header") + 2, ".view": len(b"mrheader")}


def sequence_of(path: str) -> int:
    if path.endswith(".view"):
        return couch_files.view_sequence(path)
    return couch_files.database_counts(path)["updateSequence"]


def cut(path: str) -> None:
    whole = sequence_of(path)
    with open(path, "r+b") as file:
        size = file.seek(0, 2)
        while sequence_of(path) == whole:
            size = (size - 1) // BLOCK * BLOCK
            if size <= 0:
                sys.exit(f"{path} has no older header")
            file.truncate(size)


def later(path: str) -> None:
    sequence, at = sequence_of(path), couch_files.newest_header(path).position
    with open(path, "r+b") as file:
        content = file.read()
        blocks = b"".join(content[begin + 1 : begin + BLOCK] for begin in range(at, len(content), BLOCK))
        term = bytearray(blocks[4 + couch_files.CHECKSUM : 4 + struct.unpack_from(">I", blocks)[0]])
        suffix = path[path.rindex(".") :]
        number = term.index(b"mrheader" if suffix == ".view" else b"db_header") + BEFORE[suffix]
        # SMALL_INTEGER_EXT or INTEGER_EXT.
        struct.pack_into({97: ">B", 98: ">i"}[term[number]], term, number + 1, sequence + 1)
        header = struct.pack(">I", len(term) + couch_files.CHECKSUM) + xxhash.xxh3_128_digest(bytes(term)) + term
        file.write(bytes(-len(content) % BLOCK))
        for begin in range(0, len(header), BLOCK - 1):
            file.write((b"\1" if begin == 0 else b"\0") + header[begin : begin + BLOCK - 1])
    if sequence_of(path) != sequence + 1:
        sys.exit(f"{path}: the new header isn't the newest")


{"cut": cut, "later": later}[sys.argv[1]](sys.argv[2])
