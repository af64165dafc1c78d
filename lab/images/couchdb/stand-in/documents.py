"""Read documents and attachments out of CouchDB's database files, without a CouchDB.

A file is a row of chunks, each with its length and mostly a checksum before it; B-trees of chunks lead from the header
to the documents (CouchDB 3.5, `couch_file.erl`, `couch_btree.erl`, `couch_bt_engine.erl`). Only the current revisions
that a client is given are read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from chtbackup.couchdb import files as couch_files
from chtbackup.couchdb.term import Atom, BadTerm

LARGEST_CHUNK = 1 << 30


class Corrupt(Exception):
    """What CouchDB calls file_corruption: a chunk isn't what was written."""


def term(data: bytes) -> Any:
    """Raises Corrupt."""
    try:
        return couch_files.stored_term(data, LARGEST_CHUNK)
    except BadTerm as error:
        raise Corrupt(f"a term can't be read: {error}") from None


def chunk(file: BinaryIO, position: int) -> bytes:
    """Raises Corrupt."""
    try:
        return couch_files.read_chunk(file, position, LARGEST_CHUNK)
    except BadTerm as error:
        raise Corrupt(f"a chunk can't be read: {error}") from None


def plain(value: Any) -> Any:
    """A body as JSON has it."""
    if isinstance(value, tuple):  # an object: a list of pairs in a tuple
        return {plain(key): plain(of) for key, of in value[0]}
    if isinstance(value, list):
        return [plain(of) for of in value]
    if isinstance(value, Atom):
        return {"null": None, "true": True, "false": False}[value]
    return value.decode() if isinstance(value, bytes) else value


class File:
    """One shard."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            tree = couch_files.newest_header(path).term[4]
        except couch_files.Empty:
            tree = Atom("nil")
        self.root = None if tree == "nil" else tree[0]

    def documents(self) -> Iterator[tuple[str, Any]]:
        """Ids of what isn't deleted, in their order, each with what `Document` needs. Raises Corrupt."""
        with open(self.path, "rb") as file:
            yield from self._below(file, self.root)

    def _below(self, file: BinaryIO, position: int | None) -> Iterator[tuple[str, Any]]:
        if position is None:
            return
        kind, entries = term(chunk(file, position))
        for key, value in entries:
            if kind == "kp_node":
                yield from self._below(file, value[0])
            elif not value[1]:
                yield key.decode(), value[3]


class Document:
    """The revision of a document that wins."""

    def __init__(self, path: str, id: str, trees: Any) -> None:
        self.path, self.id = path, id
        leaves: list[tuple[bool, int, bytes, Any]] = []

        def visit(depth: int, node: Any) -> None:
            revision, value, children = node
            for child in children:
                visit(depth + 1, child)
            if not children and value:
                leaves.append((not value[0], depth, bytes(revision), value))

        for depth, tree in trees:
            visit(depth, tree)
        _alive, depth, revision, self.value = max(leaves, key=lambda of: of[:3])
        self.revision = f"{depth}-{revision.hex()}"

    def _stored(self, file: BinaryIO) -> tuple[Any, list[Any]]:
        body, attachments = term(chunk(file, self.value[1]))
        unpacked = [term(of) if isinstance(of, bytes) else of for of in (body, attachments)]
        return unpacked[0], unpacked[1]

    def json(self, encodings: bool = False) -> dict[str, Any]:
        """As a client gets it, attachments as stubs; `encodings` is the query's att_encoding_info. Raises Corrupt."""
        with open(self.path, "rb") as file:
            body, attachments = self._stored(file)
        stubs: dict[str, Any] = {}
        for name, kind, _at, packed, length, _since, md5, encoding in attachments:
            digest = f"md5-{base64.b64encode(md5).decode()}"
            stub = {"content_type": kind.decode(), "digest": digest, "length": length, "stub": True}
            if encodings and encoding != "identity":
                stub.update(encoding=str(encoding), encoded_length=packed)
            stubs[name.decode()] = stub
        own = {"_id": self.id, "_rev": self.revision, **plain((body[0] if isinstance(body, tuple) else body,))}
        return {**own, **({"_attachments": stubs} if stubs else {})}

    def attachment(self, wanted: str) -> tuple[str, str, bytes] | None:
        """Kind, encoding and content as it is stored. Raises Corrupt."""
        with open(self.path, "rb") as file:
            for name, kind, at, _packed, _length, _since, md5, encoding in self._stored(file)[1]:
                if name.decode() == wanted:
                    content = b"".join(chunk(file, of[0] if isinstance(of, tuple) else of) for of in at)
                    if hashlib.md5(content, usedforsecurity=False).digest() != md5:
                        raise Corrupt("an attachment's checksum is another one")
                    return kind.decode(), str(encoding), content
        return None
