"""Remove archives that the policy no longer keeps from a borg repository, and free their space.

Run as root on the offsite server by `npm run retention`, which sends one line of JSON to the standard input: the
policy, what the operator's computer and the machine that drills know, and the passphrase, which goes on to borg through
a pipe and is in no file, argument or environment. borg runs as the account that receives the backups.

While it removes, all seals are broken, so the guard lets no client write (a backup waits). The journal says what goes
on, so that a run that was killed is finished by the next one. Where keeping.py has doubts, nothing is changed.

The last line of the output is JSON: the plan, and what was done of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from typing import Any

from chtbackup.base.errors import Stopped
from chtbackup.base.files import size_of
from chtbackup.base.process import SIGNALS, end_with_input, stop_on_signals
from chtbackup.base.text import complain
from chtbackup.repository.audit import Audit
from chtbackup.repository.seal import act as seal
from chtbackup.repository.seals import CannotSeal, Repository
from chtbackup.repository.segment_log import Damaged
from chtbackup.retention import keeping, room
from chtbackup.retention.borg import Borg, Refused, begin_of, remove_left
from chtbackup.retention.journal import Journal
from chtbackup.retention.keeping import Archive, Facts, Policy, Taken
from chtbackup.retention.report import remember
from chtbackup.retention.request import asked_by_operator, asked_on_schedule

DONE, DOUBTED, REFUSED, STOPPED = 0, 1, 2, 130
# Percent of a segment that must be free until compaction writes the rest anew, which goes up to the bucket once more.
THRESHOLD = 25
BECAUSE = "retention"


progress = complain  # the standard output is for the plan


class Retention:
    def __init__(self, settings: dict[str, Any], request: dict[str, Any]) -> None:
        self.settings, self.request = settings, request
        self.repository = Repository(settings)
        self.policy = Policy(**request["policy"])
        self.journal = Journal(self.repository.state)
        self.compacted = False

    # ---- what is known ----------------------------------------------------------------------------------

    def ledger(self) -> list[Taken]:
        return [Taken(id, at, gone is not None) for id, _number, at, gone in Audit(self.settings).ledger.archives()]

    def facts(self, borg: Borg) -> Facts:
        """Raises Refused where the repository can't be listed."""
        progress("reading which archives there are")
        id, listed = borg.listed()
        ledger = self.ledger()
        times = {of.id: of.at for of in ledger}
        archives = [Archive(of["name"], of["id"], begin_of(of), times.get(of["id"])) for of in listed]
        some = {of.id for of in keeping.worth_looking_into(archives)}
        progress(f"looking into {len(some)} of {len(archives)} archives")
        archives = [
            dataclasses.replace(of, documents=borg.documents(of.name)) if of.id in some and of.namable else of
            for of in archives
        ]
        removed = self.journal.removed()
        drill = self.request.get("drill") or {}
        return Facts(
            now=time.time(),
            archives=archives,
            ledger=ledger,
            repository=id,
            expected=self.request["repository"],
            seen={id: name for id, name in self.request.get("seen", {}).items() if id not in removed},
            drilled=drill.get("succeeded"),
            drill_failed=bool(drill.get("failed")),
            drill_days=drill.get("overdueAfterDays"),
            session_days=self.settings["sessionDays"],
            asked=self.request.get("now"),
        )

    def doubts(self, facts: Facts) -> dict[str, str]:
        found = keeping.doubts(facts)
        audit = Audit(self.settings)
        try:
            findings = audit.review()
        except (OSError, Damaged) as error:
            raise Refused(f"the repository's log can't be read: {error}") from error
        if findings:
            found["audit"] = "the audit has found what no backup does: docs/restore.md, 9"
        return found

    def plan(self, facts: Facts) -> dict[str, Any]:
        """What stays with the reasons, and what goes; the newest first."""
        why = keeping.reasons(facts.archives, self.policy, facts.now)
        order = sorted(facts.archives, key=lambda of: of.at or 0, reverse=True)
        return {
            "archives": [{"name": of.name, "id": of.id, "at": of.at, "why": why[of.id]} for of in order],
            "repository": facts.repository,
        }

    # ---- acting -------------------------------------------------------------------------------------------

    def run(self, apply: bool) -> dict[str, Any]:
        """Raises Refused or Stopped; then nothing that is needed is lost, and the next run goes on."""
        room.check(self.repository)
        with Borg(self.repository, self.request["passphrase"]) as borg:
            if self.journal.exists():
                if self.request.get("dryRun"):
                    raise Refused("a run before broke off: one that isn't dry finishes it first")
                self.finish_what_broke_off(borg)
            facts = self.facts(borg)
            result: dict[str, Any] = {**self.plan(facts), "doubts": self.doubts(facts), "done": None}
            if apply:
                result["done"] = self.apply(borg, facts, result)
        return {**result, "removedBefore": self.journal.removed()}

    def apply(self, borg: Borg, facts: Facts, planned: dict[str, Any]) -> dict[str, Any] | None:
        """Removes what both goes now and was shown. None where there is nothing to remove, or a doubt."""
        despite, shown = set(self.request.get("despite", [])), self.request["shown"]
        going = {of["id"]: of["name"] for of in planned["archives"] if not of["why"]}
        # On a schedule nobody looks at a plan first.
        names = going if shown is None else {id: name for id, name in going.items() if id in shown}
        if set(planned["doubts"]) - despite or not names:
            return None
        size = size_of(self.repository.path)
        self.journal.note("begun", [], names)
        try:
            self.open()
            progress("checking the repository (a backup or a copy that is at work is waited for)")
            borg.run("check", "--repository-only", self.repository.path)
            # From here on nobody but this program writes. What came before is seen now.
            again, listed = borg.listed()
            ids = {of["id"]: of["name"] for of in listed}
            if again != facts.repository or any(ids.get(id) != name for id, name in names.items()):
                raise Refused("the archives have changed meanwhile: run it again")
            audit = Audit(self.settings)
            if audit.review() and "audit" not in despite:
                raise Refused("the audit has found what no backup does: docs/restore.md, 9")
            stay, since = [id for id in ids if id not in names], audit.reviewed
            self.journal.note("deleting", stay, names, since)
            room.make(borg, self.repository)
            progress(f"removing {len(names)} archives")
            location = f"{self.repository.path}::{next(iter(names.values()))}"
            borg.run("delete", "--", location, *list(names.values())[1:])
            self.free(borg, stay, names, since)
        finally:
            self.close(names)
        progress("done")
        return {"removed": sorted(names.values()), "freed": size - size_of(self.repository.path)}

    def free(self, borg: Borg, stay: list[str], names: dict[str, str], since: int) -> None:
        """After the deletion: look whether it was right, and free the space. Raises Refused."""
        self.judge(names, stay, since)
        progress("checking what stays")
        borg.run("check", "--archives-only", self.repository.path)
        self.journal.note("deleted", stay, names, since)
        self.compact(borg, stay)

    def finish_what_broke_off(self, borg: Borg) -> None:
        """A run before was killed: finish what it had begun to delete, and seal again. Raises Refused."""
        of = self.journal.read()
        progress(f"finishing the run of {keeping.moment(self.journal.began())}, which broke off")
        try:
            self.open()
            # borg itself goes back to its last transaction.
            borg.run("check", "--repository-only", self.repository.path)
            if of.stage == "deleted":
                self.compact(borg, of.stay)
            elif of.stage == "deleting":
                if Audit(self.settings).review():
                    self.free(borg, of.stay, of.names, of.since)
                else:  # nothing was deleted
                    self.journal.note("begun", [], of.names)
        finally:
            self.close(of.names)

    def judge(self, names: dict[str, str], stay: list[str], since: int) -> None:
        """That the log shows this deletion and nothing else. Raises Refused."""
        audit = Audit(self.settings)
        strangers = keeping.strangers_in(audit.review(), since)
        there = audit.reviewed_archives
        lost = [id for id in stay if there.get(id, True) is False]
        left = [id for id in names if there.get(id) is not False]
        if lost or left or (strangers and "audit" not in self.request.get("despite", [])):
            self.journal.note("lost", lost, {})
            what = strangers[0] if strangers else f"{len(lost)} archives too many and {len(left)} too few are gone"
            raise Refused(f"after the deletion the log isn't as it should be: {what}. Nothing was freed")

    def compact(self, borg: Borg, stay: list[str]) -> None:
        """Raises Refused, also where afterwards something isn't there that should have stayed."""
        progress("freeing the space")
        room.make(borg, self.repository)
        borg.run("config", self.repository.path, "append_only", "0")
        if room.is_scarce(self.repository):
            borg.run("compact", "--threshold", str(room.FREE_ALREADY), self.repository.path)
        if room.is_scarce(self.repository):
            progress("little room: what is partly free is freed by a later run")
        else:
            borg.run("compact", "--threshold", str(THRESHOLD), self.repository.path)
        self.compacted = True
        there = {of["id"] for of in borg.listed()[1]}
        if lost := [id for id in stay if id not in there]:
            self.journal.note("lost", lost, {})
            raise Refused(f"{len(lost)} archives that should stay are no longer listed: docs/restore.md, 8")

    def open(self) -> None:
        if seal("open", self.settings) != 0:
            raise Refused("the seals can't be broken")

    def close(self, names: dict[str, str]) -> None:
        """All that must hold after a run, wherever it ended: append-only, sealed, and what the audit goes by from now
        on. Where the deletion wasn't found right, the audit tells everybody of it."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        # A signal may have come while the seals were being broken, and borg changes no `config` that is root's.
        self.open()
        with Borg(self.repository, "") as borg:
            borg.run("config", self.repository.path, "append_only", "1")
            room.give_back(borg, self.repository)
            stage = self.journal.read().stage
            if stage == "deleted" and not self.compacted:
                # What a compaction that broke off has moved is borg's only when it has looked, and the audit's then.
                borg.run("check", "--repository-only", self.repository.path)
        if stage == "deleted":
            Audit(self.settings).approve(BECAUSE, archives=False)
            self.journal.add_removed(names)
        seal("close", self.settings)
        # One that ended while it deleted, and perhaps had, is finished by the next, like one that was killed.
        if stage != "deleting":
            self.journal.end()


def act(action: str, path: str, settings: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    line = sys.stdin.readline()
    request = asked_on_schedule(line, path) if action == "scheduled" else asked_by_operator(line)
    stop_on_signals()
    threading.Thread(target=end_with_input, daemon=True).start()
    remove_left(settings["state"])
    result = Retention(settings, request).run(action != "plan")
    print(json.dumps(result), flush=True)
    refused = action != "plan" and set(result["doubts"]) - set(request.get("despite", []))
    return DOUBTED if refused else DONE, result


def run(action: str, path: str, settings: dict[str, Any]) -> int:
    """Do it, and remember what came of it where it was to change something."""
    started, problems, done, code = time.time(), [], None, REFUSED
    try:
        code, result = act(action, path, settings)
        done = result["done"]
        problems = [f"doubt ({name}): {why}" for name, why in result["doubts"].items()] if code == DOUBTED else []
    except (Refused, CannotSeal, OSError, sqlite3.Error, Damaged) as error:
        problems = [str(error)]
        complain(error)
    except Stopped as error:
        code, problems = STOPPED, [f"stopped by {error}"]
        complain(f"stopped by {error}; run it again to finish")
    if action != "plan":
        try:
            remember(settings["state"], started, problems, done)
        except OSError as error:
            complain(f"what came of it can't be noted: {error}")
    return code


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Say which archives of a borg repository a policy keeps, and remove the others. Started by"
        " `npm run retention`, or as `scheduled` by the machine that drills; either writes what it needs to the"
        " standard input and keeps that open.",
        epilog="Exit codes: 0 done; 1 there are doubts, and nothing was changed; 2 not possible, the reason is named;"
        " 130 stopped.",
    )
    parser.add_argument("action", choices=("plan", "apply", "scheduled"), help="plan, apply or scheduled")
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup-server/DEPLOYMENT/repository.json")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        with open(options.settings, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return run(options.action, options.settings, json.load(file))
    except BlockingIOError:
        complain("another run of it goes on")
    except OSError as error:
        complain(error)
    return REFUSED
