#!/usr/bin/env python3
"""Read what backups have written into a borg repository's log, without its key, and raise the alarm on what an honest
client never writes.

A backup adds objects, writes the manifest (which lists the archives) anew, and may take back the checkpoint that it
has made in the transaction before. So a DELETE of anything else, an id that is written twice, or a manifest that goes
and doesn't come back was done by a person or an attacker: borg's `delete`, `prune` and the like only write notes, and
whatever was there is still there until somebody compacts. What is found stays a problem, every day, until somebody who
has looked says `approve`.

What was stored before a repository was adopted (`adopted.json`, which the stack writes where it takes one over that
others made) isn't judged: somebody has pruned and compacted it by hand, and what is gone since then is gone.

The audit also keeps a ledger of archives by their ids: names prove nothing, as one can be deleted and made again.

Run as root, without a right to change the repository, by `cht-repository-audit-DEPLOYMENT.service`. See `--help`.
"""

from __future__ import annotations

import argparse
import calendar
import contextlib
import functools
import json
import os
import sqlite3
import time
from dataclasses import dataclass, field
from typing import Any

import segment_log
from plain import complain, exit_with, plain, say
from seal import CannotSeal, Repository, counter_of, read, write
from segment_log import COMMIT, MANIFEST, PUT, Damaged, Entry

RIGHT, WRONG, FAILED = 0, 1, 2
DAY = 86400
BLOCKS_PER_SECOND = 1 << 31  # as in guard.py
MAX_NOTES = 1000  # refusals that are read in a run
NAMED = 5
ALARM_AGAIN = 20 * 3600  # seconds

TABLES = """
CREATE TABLE IF NOT EXISTS objects (id BLOB PRIMARY KEY, written INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS archives (
    id BLOB PRIMARY KEY, written INTEGER NOT NULL, at INTEGER NOT NULL, gone INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS findings (
    at INTEGER NOT NULL, what TEXT NOT NULL, count INTEGER NOT NULL, transaction_ INTEGER
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


# ---- decisions --------------------------------------------------------------------------------------------


@dataclass
class Transaction:
    """What one transaction of the log did."""

    number: int
    """The segment that holds its COMMIT."""
    added: dict[bytes, None] = field(default_factory=dict)
    """Ids written and still there at its end, in the order of writing; never the manifest's."""
    taken: list[bytes] = field(default_factory=list)
    """Ids deleted that were there before it."""
    twice: list[bytes] = field(default_factory=list)
    """Ids written though they were there."""
    archive: bytes | None = None
    """The object written just before the manifest: the archive's, where this is a backup."""
    manifest: bool | None = None
    """Whether the manifest is there at its end; None where it wasn't touched."""
    content: str | None = None
    """A digest of the manifest that it has written."""


class Log:
    """Takes the log's entries in their order and makes transactions of them. `known` says in which transaction an
    object was written that is there, None where there is none; `digest` gives that of what a segment's entry stores."""

    def __init__(self, known: Any, digest: Any) -> None:
        self.known, self.digest = known, digest
        self.now = Transaction(0)
        self.last: bytes | None = None

    def take(self, entry: Entry, segment: int) -> Transaction | None:
        """The transaction that ends with this entry, if one does."""
        now, id = self.now, entry.id
        if entry.tag == COMMIT:
            now.number = segment
            self.now, self.last = Transaction(0), None
            return now
        if id == MANIFEST:
            now.manifest = entry.tag == PUT
            if now.manifest:
                now.archive, now.content = self.last, self.digest(segment, entry)
        elif entry.tag == PUT:
            if id in now.added or (id not in now.taken and self.known(id) is not None):
                now.twice.append(id)
            now.added[id] = None
            self.last = id
        elif id in now.added:
            del now.added[id]
        else:
            now.taken.append(id)
        return None


def findings_of(
    transaction: Transaction, previous: int | None, known: Any, content: str | None
) -> list[tuple[str, int]]:
    """What an honest client doesn't do, with how often it was done. `previous` is the transaction before, `content` the
    digest of the manifest before; None where there is none."""
    odd = [id for id in transaction.taken if known(id) != previous]
    found = []
    if odd:
        found.append(("objects were marked as deleted", len(odd)))
    if transaction.twice:
        found.append(("objects were written over", len(transaction.twice)))
    # A backup writes it after the archive that it has made. Alone it is another list of what was there before, unless
    # it is the same one: borg's `with-lock` writes it again.
    alone = transaction.manifest and previous is not None and transaction.archive not in transaction.added
    if alone and transaction.content != content:
        found.append(("the list of archives (the manifest) was written without a new archive", 1))
    if transaction.manifest is False:
        found.append(("the list of archives (the manifest) was deleted", 1))
    return found


def wrong_counter(before: int, now: int, at: float) -> str | None:
    """What is wrong with the counter for encryption; None where nothing is. `before` is the highest seen."""
    if now < before:
        return "the counter for encryption went back: a client that trusted it would use counters twice"
    if now > int(at + 2 * DAY) * BLOCKS_PER_SECOND:
        return "the counter for encryption is near its end, at which no client can make a backup any more"
    return None


def alarm_due(findings: list[tuple[int, str, int, int | None]], alarmed: dict[str, Any], now: float) -> bool:
    """Whether somebody must be told: of what is new at once, of the rest once a day. Whoever can make findings, as
    often as he likes, must not be able to hide one among a thousand mails. `alarmed` says what was told last, when."""
    kinds = {what for _at, what, _count, _transaction in findings}
    return bool(kinds) and (not kinds <= set(alarmed.get("kinds", [])) or now - alarmed.get("at", 0) > ALARM_AGAIN)


def told(findings: list[tuple[int, str, int, int | None]]) -> list[str]:
    """Findings as lines for the operator: what, how often, since when."""
    groups: dict[str, list[tuple[int, int, int | None]]] = {}
    for at, what, count, transaction in findings:
        groups.setdefault(what, []).append((at, count, transaction))
    lines = []
    for what, of in groups.items():
        numbers = sorted({number for _at, _count, number in of if number is not None})
        where = f", in transaction {', '.join(map(str, numbers[:NAMED]))}" if numbers else ""
        more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
        total = sum(count for _at, count, _number in of)
        first, last = min(at for at, *_ in of), max(at for at, *_ in of)
        when = moment(first) if first == last else f"{moment(first)} to {moment(last)}"
        lines.append(f"{what} ({total} ×{where}{more}; {when})")
    return lines


def seconds_of(text: str) -> int:
    """borg's time, UTC (`2026-11-28T02:00:07.123456`), as seconds since 1970. Raises ValueError where it is none."""
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


def moment(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


# ---- acting -----------------------------------------------------------------------------------------------


class Audit:
    """One run."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.state: str = settings["state"]
        self.repository = Repository(settings)
        self.started = time.time()
        self.files: list[str] = []
        """Refusals that were read, to be removed when they are stored."""
        self.takes_archives = True
        self.reviewed = -1
        """The last transaction that `review` saw."""
        self.reviewed_archives: dict[str, bool] = {}
        """Whether each archive was there then, by its id."""
        self.database = sqlite3.connect(f"{self.state}/audit.sqlite", isolation_level=None)
        self.database.executescript(TABLES)

    # ---- what is known ------------------------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        row = self.database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row and row[0]

    def set_fact(self, name: str, value: Any) -> None:
        self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, str(value)))

    def known(self, id: bytes) -> int | None:
        row = self.database.execute("SELECT written FROM objects WHERE id = ?", (id,)).fetchone()
        return row and row[0]

    def find(self, what: str, count: int = 1, transaction: int | None = None) -> None:
        at = round(self.started) if transaction is None else self.times.get(transaction, round(self.started))
        self.database.execute("INSERT INTO findings VALUES (?, ?, ?, ?)", (at, what, count, transaction))

    @functools.cached_property
    def adopted(self) -> int:
        """The last transaction of those who made the repository by hand; -1 where nobody did."""
        try:
            note = json.loads(read(f"{self.state}/adopted.json"))
            return int(note["transaction"]) if note["repository"] == self.fact("repository") else -1
        except (ValueError, TypeError, KeyError):
            return -1

    @functools.cached_property
    def times(self) -> dict[int, int]:
        """When each transaction was finished, by borg's own log, which has this machine's clock."""
        times = {}
        for line in read_lines(os.path.join(self.repository.path, "transactions")):
            with contextlib.suppress(ValueError, IndexError):
                words = line.split()
                times[int(words[1].rstrip(","))] = seconds_of(words[4])
        return times

    # ---- the run ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises CannotSeal, OSError or Damaged where the repository can't be read."""
        self.database.execute("BEGIN IMMEDIATE")
        self.take_refusals()
        if not self.repository.exists():
            if self.fact("transaction") is not None:
                self.find("the repository is gone")
        else:
            self.look_at_config()
            self.look_at_counter()
            self.look_at_maintenance()
            self.read_log(judge=True)
        self.database.execute("COMMIT")
        self.forget_refusals()

    def review(self) -> list[tuple[int, str, int, int | None]]:
        """What a run would find, and has found before; nothing is stored. Raises as `run` does."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            self.take_refusals()
            self.look_at_config()
            self.look_at_counter()
            self.read_log(judge=True)
            self.reviewed = int(self.fact("transaction") or -1)
            rows = self.database.execute("SELECT id, gone IS NULL FROM archives").fetchall()
            self.reviewed_archives = {id.hex(): bool(there) for id, there in rows}
            return self.findings()
        finally:
            self.files = []
            self.database.execute("ROLLBACK")

    def approve(self, because: str, archives: bool = True) -> list[str]:
        """Take what is there for right, and begin anew from it. Returns what was approved. `archives`: whether the log
        also tells which archives there are; not after a compaction, which writes anew what it moves."""
        self.takes_archives = archives
        lines = told(self.findings())
        self.database.execute("BEGIN IMMEDIATE")
        self.take_refusals()
        for table in ("objects", "segments", "findings", "facts"):
            self.database.execute(f"DELETE FROM {table}")
        if self.repository.exists():
            self.look_at_config()
            self.read_log(judge=False)
            # A compaction leaves no note of what it took away.
            gone = "UPDATE archives SET gone = ? WHERE gone IS NULL AND id NOT IN (SELECT id FROM objects)"
            self.database.execute(gone, (self.fact("transaction"),))
        self.database.execute("COMMIT")
        self.forget_refusals()
        with open(f"{self.state}/approved.log", "a", encoding="utf-8") as file:
            for line in lines or ["nothing was found"]:
                file.write(f"{moment(self.started)} {plain(because)}: {line}\n")
        return lines

    def findings(self) -> list[tuple[int, str, int, int | None]]:
        return self.database.execute("SELECT at, what, count, transaction_ FROM findings ORDER BY at").fetchall()

    def take_refusals(self) -> None:
        """What the guard has refused, which no honest client asks for."""
        folder = f"{self.state}/spool/refused"
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(folder))[:MAX_NOTES]:
                path = os.path.join(folder, name)
                self.files.append(path)
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    of = json.loads(read(path))
                    at = min(int(of["at"]), round(self.started))
                    what = f"the guard refused a client: {plain(str(of['what']))[:200]}"
                    self.database.execute("INSERT INTO findings VALUES (?, ?, 1, NULL)", (at, what))

    def forget_refusals(self) -> None:
        for path in self.files:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.remove(path)

    def look_at_config(self) -> None:
        lines = read(os.path.join(self.repository.path, "config")).splitlines()
        id = next((line[5:].strip() for line in lines if line.startswith("id = ")), "")
        before = self.fact("repository")
        if before is not None and before != id:
            self.find("another repository is in its place")
        self.set_fact("repository", id)

    def look_at_counter(self) -> None:
        now = counter_of(read(os.path.join(self.repository.path, "nonce")))
        why = wrong_counter(int(self.fact("counter") or 0), now, self.started)
        if why is not None:
            self.find(why)
        self.set_fact("counter", now)

    def look_at_maintenance(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.started - os.stat(f"{self.state}/open").st_mtime > DAY:
                self.find("the seals have been open for maintenance for more than a day: close them (seal.py close)")

    def in_retention(self) -> bool:
        """Whether retention.py is at work, or was killed not long ago."""
        try:
            return self.started - os.stat(f"{self.state}/retention.json").st_mtime < DAY
        except FileNotFoundError:
            return False

    def read_log(self, judge: bool) -> None:
        finished = self.repository.finished()
        there = {} if finished is None else segment_log.segments(self.repository.path)
        sizes = {number: os.path.getsize(path) for number, path in there.items() if number <= finished}
        lost = [
            number
            for number, size in self.database.execute("SELECT number, size FROM segments").fetchall()
            if sizes.get(number) != size
        ]
        if lost:
            self.find("parts of the repository (segments) have gone or were changed", len(lost))
            self.database.executemany("DELETE FROM segments WHERE number = ?", [(number,) for number in lost])
        before = self.fact("transaction")
        previous, content = int(before) if before is not None else None, self.fact("manifest")
        since = -1 if previous is None else previous
        log = Log(self.known, lambda number, entry: segment_log.digest(there[number], entry))
        for number in [number for number in sizes if number > since]:
            for entry in segment_log.entries(there[number]):
                transaction = log.take(entry, number)
                if transaction is not None:
                    if judge and transaction.number > self.adopted:
                        for what, count in findings_of(transaction, previous, self.known, content):
                            self.find(what, count, transaction.number)
                    self.store(transaction)
                    previous, content = transaction.number, transaction.content or content
        self.database.executemany("INSERT OR REPLACE INTO segments VALUES (?, ?)", sizes.items())
        if previous is not None:
            self.set_fact("transaction", previous)
        if content is not None:
            self.set_fact("manifest", content)

    def store(self, of: Transaction) -> None:
        execute, many = self.database.execute, self.database.executemany
        many("DELETE FROM objects WHERE id = ?", [(id,) for id in of.taken])
        many("INSERT OR REPLACE INTO objects VALUES (?, ?)", [(id, of.number) for id in of.added])
        at = self.times.get(of.number, round(self.started))
        many("UPDATE archives SET gone = ? WHERE id = ? AND gone IS NULL", [(of.number, id) for id in of.taken])
        # What a compaction by hand has moved looks like archives.
        if self.takes_archives and of.number > self.adopted and of.archive is not None and of.archive in of.added:
            execute("INSERT OR REPLACE INTO archives VALUES (?, ?, ?, NULL)", (of.archive, of.number, at))

    def alarm(self) -> bool:
        """Whether this run must raise the alarm; then it is noted that it did."""
        findings = self.findings()
        due = alarm_due(findings, json.loads(self.fact("alarmed") or "{}"), self.started)
        if due:
            kinds = sorted({what for _at, what, _count, _transaction in findings})
            self.set_fact("alarmed", json.dumps({"at": self.started, "kinds": kinds}))
        return due

    # ---- the result ---------------------------------------------------------------------------------------

    def ledger(self) -> list[dict[str, Any]]:
        rows = self.database.execute("SELECT id, written, at, gone FROM archives ORDER BY written")
        return [
            {"id": id.hex(), "transaction": number, "at": moment(at), "gone": gone} for id, number, at, gone in rows
        ]

    def report(self, problems: list[str], exit_code: int) -> None:
        path = f"{self.state}/last-audit.json"
        finished = round(time.time())
        last = finished if exit_code == RIGHT else None
        if last is None:
            with contextlib.suppress(ValueError, AttributeError):
                last = json.loads(read(path) or "{}").get("lastSuccessAt")
        result = {
            "deployment": self.settings["deployment"],
            "ok": exit_code == RIGHT,
            "exitCode": exit_code,
            "startedAt": round(self.started),
            "finishedAt": finished,
            "finished": moment(finished),
            "lastSuccessAt": last,
            "transaction": self.fact("transaction"),
            "archives": self.database.execute("SELECT count(*) FROM archives WHERE gone IS NULL").fetchone()[0],
            "problems": problems,
        }
        write(f"{self.state}/ledger.json", json.dumps(self.ledger(), indent=0) + "\n", 0o640, 0)
        write(path, json.dumps(result, indent=2) + "\n", 0o640, 0)


def read_lines(path: str) -> list[str]:
    """The lines of a file of the account's, which may have put a link or a pipe there. Raises OSError for a link."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)

    try:
        with open(path, encoding="ascii", errors="replace", opener=opener) as file:
            return file.readlines()
    except FileNotFoundError:
        return []


def act(options: argparse.Namespace, settings: dict[str, Any]) -> int:
    audit = Audit(settings)
    if options.action == "ledger":
        say(json.dumps(audit.ledger()))
        return RIGHT
    if options.action == "approve":
        lines = audit.approve(options.because)
        for line in [f"approved: {line}" for line in lines] or ["nothing was found; what is there now counts as right"]:
            say(line)
        audit.report([], RIGHT)
        return RIGHT
    if audit.in_retention():
        say("retention goes on, which looks itself at what it has done")
        return RIGHT
    problems = []
    try:
        audit.run()
        code = RIGHT
    except (OSError, Damaged, CannotSeal) as error:
        with contextlib.suppress(sqlite3.OperationalError):
            audit.database.execute("ROLLBACK")
        problems.append(f"the repository's log can't be read: {error}")
        code = FAILED
    findings = audit.findings()
    problems += told(findings)
    if findings:
        problems[-1] += ". What to do: docs/restore.md, “When the audit raises the alarm”. Don't compact before"
    result = WRONG if findings and code == RIGHT else code
    audit.report(problems, result)
    for line in problems:
        complain(line)
    if result == RIGHT:
        say(f"nothing odd up to transaction {audit.fact('transaction')}")
    if result == WRONG and not audit.alarm():
        complain("somebody was told of this within the last day")
        return RIGHT
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="audit.py",
        description="Read a borg repository's log, without its key, and tell what no honest client writes. `audit`"
        " reads what is new; `approve` takes all that is there for right, after somebody has looked, or has deleted or"
        " compacted on purpose; `ledger` prints the archives by their ids.",
        epilog="Exit codes: 0 nothing odd, or nothing that wasn't told within the last day; 1 something was found;"
        " 2 the repository can't be read. The whole result is in last-audit.json.",
    )
    parser.add_argument(
        "action", choices=("audit", "approve", "ledger"), metavar="ACTION", help="audit, approve or ledger"
    )
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup-server/DEPLOYMENT/repository.json")
    parser.add_argument("--because", metavar="REASON", help="approve: who has looked, and why it is right; it is kept")
    options = parser.parse_args(arguments)
    if options.action == "approve" and not options.because:
        parser.error("approve needs --because REASON")
    os.umask(0o077)
    try:
        with open(options.settings, encoding="utf-8") as file:
            return act(options, json.load(file))
    except (OSError, ValueError, KeyError, CannotSeal, sqlite3.Error) as error:
        complain(f"{options.settings}: {error}")
        return FAILED


if __name__ == "__main__":
    exit_with(main)
