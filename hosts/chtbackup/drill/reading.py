"""Read documents and attachments from the CouchDB of a drill, as its users would: damage inside a file shows only then.

Each drill reads a portion, the next one goes on from there, so that each document is read once in so many drills.
Read is the current revision of what isn't deleted; old revisions and conflicts are not.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from chtbackup.base.text import megabytes
from chtbackup.couchdb.http import Server, quoted
from chtbackup.drill.findings import Findings

DRILLS = 8
"""In how many drills each document is read once, unless that is too much for the time."""
LEAST = 5000  # documents that a drill reads at least
LONGEST = 20 * 60  # seconds that it takes for that
BATCH = 500  # documents that are asked for at once
LONGEST_LINE = 64 * 1024**2  # bytes of a document; CouchDB takes 8 MB by default
BLOCK = 1024**2
NAMED = 10  # documents that are named
LAST = "\U0010ffff"  # behind every document
MOST = 100  # failures after which the rest of a database isn't tried

NOT_FOUND = 404

FAILURES = (OSError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException)


class Died(Exception):
    """The server can't answer any more. The text says why."""


def path_of(name: str, id: str) -> str:
    design = "_design/" if id.startswith("_design/") else ""
    return f"/{quoted(name)}/{design}{quoted(id.removeprefix(design))}"


def portion(total: int) -> int:
    """How many of so many documents one drill reads."""
    return min(total, max(LEAST, -(-total // DRILLS)))


def rotation(names: list[str], database: str, after: str) -> list[tuple[str, str, str | None]]:
    """What to read in which order, beginning behind a document: databases, each with the document behind which to
    begin ("" for the first) and the last one (None: to the end)."""
    names = sorted(names)
    if database not in names:
        later = [name for name in names if name > database]
        return [(name, "", None) for name in [*later, *(name for name in names if name not in later)]]
    at = names.index(database)
    others = [(name, "", None) for name in [*names[at + 1 :], *names[:at]]]
    return [(database, after, None), *others, *([(database, "", after)] if after else [])]


@dataclass
class Reading:
    """One portion."""

    server: Server
    counts: dict[str, int]
    """Documents by database."""
    position: dict[str, str]
    """Where the last portion ended: `database`, and the document `after` which to go on."""
    dead: Callable[[], str | None]
    """Why the server can't answer any more."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Databases and documents that couldn't be read: at first those of drills before, which are tried again."""
    seconds: float = LONGEST
    documents: int = 0
    attachments: int = 0
    size: int = 0
    bad: list[str] = field(default_factory=list)
    """What can't be read, one line each."""
    late: bool = False
    """Whether the time was over before the portion."""

    def run(self) -> None:
        """Read. Raises Died."""
        self.total = sum(self.counts.values())
        self.most, self.deadline = portion(self.total), time.monotonic() + self.seconds
        self._try_again()
        start = self.position.get("database", ""), self.position.get("after", "")
        for name, after, last in rotation(list(self.counts), *start):
            self._database(name, after, last)
            if self.documents >= self.most or self.late:
                return
            # Nothing of it is left: the next portion begins with the next database.
            self.position = {"database": name, "after": LAST}
        if not self.bad:
            self.bad.append(f"CouchDB lists only {self.documents:,} of {self.total:,} documents")

    def _try_again(self) -> None:
        known, self.failed = self.failed, []
        for name, id in known:
            if name not in self.counts:
                continue
            if self._over():
                self.failed.append((name, id))
                continue
            try:
                self._attachments(name, id, self._document(name, id))
            except FAILURES as error:
                if getattr(error, "code", None) != NOT_FOUND:  # it was deleted, and with that mended
                    self._wrong(name, id, f"the document {id}", error)

    def _database(self, name: str, after: str, last: str | None) -> None:
        before = len(self.bad)
        while self.documents < self.most and not self.late and len(self.bad) - before <= MOST:
            try:
                ids = self._batch(name, after, last)
            except FAILURES as error:
                behind = f" behind the document {after}" if after and after != LAST else ""
                self._wrong(name, "", f"its list of documents{behind}", error)
                return
            if not ids:
                return
            after = ids[-1]
            self.position = {"database": name, "after": after}

    def told(self) -> str:
        """What was read, for the report."""
        with_them = f" with {self.attachments:,} attachments" if self.attachments else ""
        text = (
            f"documents: {self.documents:,} of {self.total:,} were read by CouchDB{with_them}, {megabytes(self.size)}"
        )
        if self.documents < self.total:
            drills = -(-self.total // max(self.documents, 1))
            text += f"; the next drill goes on from there, and each is read once in {drills} drills"
        return text

    def problems(self) -> list[str]:
        if not self.bad:
            return []
        more = f"{len(self.bad) - NAMED} more can't be read either" if len(self.bad) > NAMED else ""
        meaning = (
            "the archive is what was backed up, so this was damaged before, most likely on the CHT's disk: look whether"
            " the CHT can still read it, and get it out of an older archive (docs/restore.md)"
        )
        return [*self.bad[:NAMED], *filter(None, [more]), meaning]

    def _wrong(self, name: str, id: str, what: str, error: BaseException) -> None:
        if why := self.dead():
            raise Died(why) from None
        if id:
            self.failed.append((name, id))
        self.bad.append(f"{name}: {what} can't be read ({_why(error)})")

    def _batch(self, name: str, after: str, last: str | None) -> list[str]:
        """Read the next documents of a database, up to the last one. Returns the ids of those that were tried."""
        count = min(BATCH, self.most - self.documents)
        ids: list[str] = []
        try:
            for id, document in self._rows(name, after, count, last):
                self._attachments(name, id, document)
                if self._count(ids, id):
                    return ids
            return ids
        except FAILURES as error:
            if why := self.dead():
                raise Died(why) from error
        # One that can't be read ends the list for all that come after it: one by one then.
        for id in self._ids(name, ids[-1] if ids else after, count - len(ids), last):
            try:
                if (name, id) not in self.failed:
                    self._attachments(name, id, self._document(name, id))
            except FAILURES as error:
                self._wrong(name, id, f"the document {id}", error)
            if self._count(ids, id):
                break
        return ids

    def _count(self, ids: list[str], id: str) -> bool:
        ids.append(id)
        self.documents += 1
        return self._over()

    def _over(self) -> bool:
        self.late = time.monotonic() > self.deadline
        return self.late

    def _rows(self, name: str, after: str, count: int, last: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Ids and documents, one after the other: CouchDB writes a line for each."""
        query = {"limit": count + 1, "include_docs": True, "att_encoding_info": True, **_range(after, last)}
        with self.server.open(f"/{quoted(name)}/_all_docs", **query) as response:
            given = 0
            while line := response.readline(LONGEST_LINE):
                self.size += len(line)
                text = line.strip().rstrip(b",")
                if text.startswith(b'{"id"'):
                    row = json.loads(text)
                    if row["doc"]["_id"] != row["id"]:
                        raise ValueError("it holds another document")
                    if row["id"] != after and given < count:
                        given += 1
                        yield row["id"], row["doc"]
                elif text.endswith(b"]}"):
                    return
                elif text and not text.startswith((b'{"total_rows"', b'{"rows"')):
                    raise ValueError("it ends with an error")
        raise ValueError("it ends too early")

    def _ids(self, name: str, after: str, count: int, last: str | None) -> list[str]:
        rows = self.server.json(f"/{quoted(name)}/_all_docs", limit=count + 1, **_range(after, last))["rows"]
        return [row["id"] for row in rows if row["id"] != after][:count]

    def _document(self, name: str, id: str) -> dict[str, Any]:
        with self.server.open(path_of(name, id), att_encoding_info=True) as response:
            text = response.read(LONGEST_LINE)
        self.size += len(text)
        return json.loads(text)

    def _attachments(self, name: str, id: str, document: dict[str, Any]) -> None:
        for attachment, stub in (document.get("_attachments") or {}).items():
            if (name, id) in self.failed or self._over():
                return
            self.attachments += 1
            try:
                self._attachment(f"{path_of(name, id)}/{quoted(attachment)}", stub)
            except FAILURES as error:
                self._wrong(name, id, f"the attachment {attachment} of the document {id}", error)

    def _attachment(self, path: str, stub: dict[str, Any]) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        with self.server.open(path) as response:
            packed = response.headers.get("Content-Encoding")
            while part := response.read(BLOCK):
                if self._over():
                    return
                digest.update(part)
                self.size += len(part)
            if response.length:
                raise ValueError("it ends too early")
        wanted = str(stub.get("digest", ""))
        # The checksum is that of what is stored; a server that unpacks it gives something else.
        same = (stub.get("encoding") or "identity") == (packed or "identity")
        known = same and wanted.startswith("md5-") and wanted != "md5-"
        if known and wanted != f"md5-{base64.b64encode(digest.digest()).decode()}":
            raise ValueError("its content is not what was stored")


def read_portion(
    server: Server, counts: dict[str, int], dead: Callable[[], str | None], repository: str, findings: Findings
) -> None:
    """Read the next portion of the documents of a repository's archives: what is damaged inside a file, CouchDB says
    only then. `counts` are the documents by database, `dead` says why CouchDB can't answer any more."""
    reports = findings.reports
    known = reports.reading(repository)
    failed = [(name, id) for name, id in known["failed"]]
    read = Reading(server, counts, known["position"], dead, failed)
    try:
        read.run()
    except Died as error:
        findings.wrong(f"CouchDB ended while its documents were read: {error}")
        return
    for text in read.problems():
        findings.wrong(text)
    if not read.bad:
        findings.right(read.told())
    reports.keep_reading(repository, read.position, read.failed)


def _range(after: str, last: str | None) -> dict[str, str]:
    return {**({"startkey": after} if after else {}), **({"endkey": last} if last is not None else {})}


def _why(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answers {error.code}"
    text = str(error).splitlines()
    return text[0] if text else type(error).__name__
