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
import contextlib
import functools
import json
import os
import sqlite3
import time
from typing import Any

from chtbackup.base.text import complain, moment, plain, say
from chtbackup.repository import segment_log
from chtbackup.repository.files import last_success, read, read_lines, write
from chtbackup.repository.findings import DAY, alarm_due, told, wrong_counter
from chtbackup.repository.ledger import Finding, Ledger
from chtbackup.repository.seals import CannotSeal, Repository, counter_of
from chtbackup.repository.segment_log import Damaged
from chtbackup.repository.transactions import Log, Transaction, findings_of, seconds_of

RIGHT, WRONG, FAILED = 0, 1, 2
MAX_NOTES = 1000  # refusals that are read in a run


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
        self.ledger = Ledger(f"{self.state}/audit.sqlite")

    # ---- what is known ------------------------------------------------------------------------------------

    def find(self, what: str, count: int = 1, transaction: int | None = None) -> None:
        at = round(self.started) if transaction is None else self.times.get(transaction, round(self.started))
        self.ledger.find(at, what, count, transaction)

    @functools.cached_property
    def adopted(self) -> int:
        """The last transaction of those who made the repository by hand; -1 where nobody did."""
        try:
            note = json.loads(read(f"{self.state}/adopted.json"))
            return int(note["transaction"]) if note["repository"] == self.ledger.fact("repository") else -1
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
        """Raises CannotSeal, OSError or Damaged where the repository can't be read; then nothing is stored."""
        with self.ledger.changes():
            self.take_refusals()
            if not self.repository.exists():
                if self.ledger.fact("transaction") is not None:
                    self.find("the repository is gone")
            else:
                self.look_at_config()
                self.look_at_counter()
                self.look_at_maintenance()
                self.read_log(judge=True)
        self.forget_refusals()

    def review(self) -> list[Finding]:
        """What a run would find, and has found before; nothing is stored. Raises as `run` does."""
        try:
            with self.ledger.changes(keep=False):
                self.take_refusals()
                self.look_at_config()
                self.look_at_counter()
                self.read_log(judge=True)
                self.reviewed = int(self.ledger.fact("transaction") or -1)
                self.reviewed_archives = {id: gone is None for id, _number, _at, gone in self.ledger.archives()}
                return self.ledger.findings()
        finally:
            self.files = []

    def approve(self, because: str, archives: bool = True) -> list[str]:
        """Take what is there for right, and begin anew from it. Returns what was approved. `archives`: whether the log
        also tells which archives there are; not after a compaction, which writes anew what it moves."""
        self.takes_archives = archives
        lines = told(self.ledger.findings())
        with self.ledger.changes():
            self.take_refusals()
            self.ledger.forget()
            if self.repository.exists():
                self.look_at_config()
                self.read_log(judge=False)
        self.forget_refusals()
        with open(f"{self.state}/approved.log", "a", encoding="utf-8") as file:
            for line in lines or ["nothing was found"]:
                file.write(f"{moment(self.started)} {plain(because)}: {line}\n")
        return lines

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
                    self.ledger.find(at, what)

    def forget_refusals(self) -> None:
        for path in self.files:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.remove(path)

    def look_at_config(self) -> None:
        lines = read(os.path.join(self.repository.path, "config")).splitlines()
        id = next((line[5:].strip() for line in lines if line.startswith("id = ")), "")
        before = self.ledger.fact("repository")
        if before is not None and before != id:
            self.find("another repository is in its place")
        self.ledger.set_fact("repository", id)

    def look_at_counter(self) -> None:
        now = counter_of(read(os.path.join(self.repository.path, "nonce")))
        why = wrong_counter(int(self.ledger.fact("counter") or 0), now, self.started)
        if why is not None:
            self.find(why)
        self.ledger.set_fact("counter", now)

    def look_at_maintenance(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.started - os.stat(f"{self.state}/open").st_mtime > DAY:
                why = "the seals have been open for maintenance for more than a day: close them (chtbackup seal close)"
                self.find(why)

    def in_retention(self) -> bool:
        """Whether retention is at work, or was killed not long ago."""
        try:
            return self.started - os.stat(f"{self.state}/retention.json").st_mtime < DAY
        except FileNotFoundError:
            return False

    def read_log(self, judge: bool) -> None:
        finished = self.repository.finished()
        there = {} if finished is None else segment_log.segments(self.repository.path)
        sizes = {number: os.path.getsize(path) for number, path in there.items() if number <= finished}
        if lost := self.ledger.take_segments(sizes):
            self.find("parts of the repository (segments) have gone or were changed", lost)
        before = self.ledger.fact("transaction")
        previous, content = int(before) if before is not None else None, self.ledger.fact("manifest")
        since = -1 if previous is None else previous
        log = Log(self.ledger.known, lambda number, entry: segment_log.digest(there[number], entry))
        for number in [number for number in sizes if number > since]:
            for entry in segment_log.entries(there[number]):
                transaction = log.take(entry, number)
                if transaction is not None:
                    if judge and transaction.number > self.adopted:
                        for what, count in findings_of(transaction, previous, self.ledger.known, content):
                            self.find(what, count, transaction.number)
                    self.store(transaction)
                    previous, content = transaction.number, transaction.content or content
        if previous is not None:
            self.ledger.set_fact("transaction", previous)
            self.ledger.mark_gone()
        if content is not None:
            self.ledger.set_fact("manifest", content)

    def store(self, of: Transaction) -> None:
        # What a compaction by hand has moved looks like archives.
        takes_archive = self.takes_archives and of.number > self.adopted
        self.ledger.store(of, self.times.get(of.number, round(self.started)), takes_archive)

    def alarm(self) -> bool:
        """Whether this run must raise the alarm; then it is noted that it did."""
        findings = self.ledger.findings()
        due = alarm_due(findings, json.loads(self.ledger.fact("alarmed") or "{}"), self.started)
        if due:
            kinds = sorted({what for _at, what, _count, _transaction in findings})
            self.ledger.set_fact("alarmed", json.dumps({"at": self.started, "kinds": kinds}))
        return due

    # ---- the result ---------------------------------------------------------------------------------------

    def report(self, problems: list[str], exit_code: int) -> None:
        path = f"{self.state}/last-audit.json"
        finished = round(time.time())
        result = {
            "deployment": self.settings["deployment"],
            "ok": exit_code == RIGHT,
            "exitCode": exit_code,
            "startedAt": round(self.started),
            "finishedAt": finished,
            "finished": moment(finished),
            "lastSuccessAt": finished if exit_code == RIGHT else last_success(path),
            "transaction": self.ledger.fact("transaction"),
            "archives": sum(gone is None for *_, gone in self.ledger.archives()),
            "problems": problems,
        }
        write(f"{self.state}/ledger.json", json.dumps(self.ledger.listed(), indent=0) + "\n", 0o640, 0)
        write(path, json.dumps(result, indent=2) + "\n", 0o640, 0)


def act(options: argparse.Namespace, settings: dict[str, Any]) -> int:
    audit = Audit(settings)
    if options.action == "ledger":
        say(json.dumps(audit.ledger.listed()))
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
        problems.append(f"the repository's log can't be read: {error}")
        code = FAILED
    findings = audit.ledger.findings()
    problems += told(findings)
    if findings:
        problems[-1] += ". What to do: docs/restore.md, “When the audit raises the alarm”. Don't compact before"
    result = WRONG if findings and code == RIGHT else code
    audit.report(problems, result)
    for line in problems:
        complain(line)
    if result == RIGHT:
        say(f"nothing odd up to transaction {audit.ledger.fact('transaction')}")
    if result == WRONG and not audit.alarm():
        complain("somebody was told of this within the last day")
        return RIGHT
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
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
