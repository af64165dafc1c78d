#!/usr/bin/env python3
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
import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any

import keeping
from audit import Audit, seconds_of
from keeping import Archive, Facts, Policy, Taken
from plain import complain, exit_with, plain
from seal import CannotSeal, Repository, read, write
from seal import act as seal
from segment_log import Damaged

DONE, DOUBTED, REFUSED, STOPPED = 0, 1, 2, 130
LOCK_WAIT = 3600  # seconds that a backup or a copy may still hold the repository
# Percent of a segment that must be free until compaction writes the rest anew, which goes up to the bucket once more.
THRESHOLD = 25
LONGEST_MANIFEST = 256 << 20
MANIFEST = r"re:^run/cht-backup/[^/]+/collect/manifest-after\.json\Z"
FOLDER = "retention-"  # how directories for borg begin
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
BECAUSE = "retention"
# What borg's `delete` leaves in the log, as the audit tells it.
OURS = ("objects were marked as deleted", "the list of archives (the manifest) was written without a new archive")


class Refused(Exception):
    """The text says why, for the operator."""


class Stopped(Exception):
    """By a signal, or by the operator's side, which has gone."""


progress = complain  # the standard output is for the plan


# ---- what is said and read --------------------------------------------------------------------------------


def begin_of(listed: dict[str, Any]) -> int | None:
    """When an archive that borg lists began, as it says of itself; None where it says no time."""
    try:
        return seconds_of(str(listed.get("start") or listed.get("time")))
    except ValueError:
        return None


def documents_of(manifest: str) -> dict[str, int] | None:
    """Documents by database as an archive's manifest says; None where it doesn't. A client has written it."""
    try:
        return {str(name): int(of["documents"]) for name, of in json.loads(manifest)["databases"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def strangers_in(findings: list[tuple[int, str, int, int | None]], since: int) -> list[str]:
    """What the audit found that isn't the deletion by this program, which began after the transaction `since`."""
    return [what for _at, what, _count, number in findings if what not in OURS or number is None or number <= since]


# ---- borg -------------------------------------------------------------------------------------------------


class Borg:
    """borg on this machine, as the repository's account, with files of its own that go afterwards: what somebody put
    into a cache that stays would decide which chunks are removed."""

    def __init__(self, repository: Repository, passphrase: str) -> None:
        self.repository, self.passphrase = repository, passphrase
        self.folder = tempfile.mkdtemp(prefix=FOLDER, dir=repository.state)
        os.chown(self.folder, repository.uid, repository.gid)
        self.child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Borg:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *words: str, limit: int = 1 << 30) -> str:
        """What borg prints. Raises Refused with its last words."""
        built = os.path.join(os.path.dirname(os.path.abspath(__file__)), "borg", "bin")
        reader, writer = os.pipe()
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            try:
                self.child = subprocess.Popen(
                    ["borg", "--lock-wait", str(LOCK_WAIT), *words],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace",
                    cwd="/", pass_fds=[reader], start_new_session=True, umask=0o077,
                    user=self.repository.uid, group=self.repository.gid, extra_groups=[],
                    env={
                        "PATH": f"{built}:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TZ": "UTC",
                        "HOME": self.folder, "BORG_BASE_DIR": self.folder, "BORG_PASSPHRASE_FD": str(reader),
                        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes", "BORG_SELFTEST": "disabled",
                        "BORG_CHECK_I_KNOW_WHAT_I_AM_DOING": "NO", "BORG_DELETE_I_KNOW_WHAT_I_AM_DOING": "NO",
                    },
                )  # fmt: skip
            finally:
                os.close(reader)
            try:
                with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as pipe:
                    pipe.write(self.passphrase)
                printed = self._read(self.child.stdout, limit)
                code = self.child.wait()
            except BaseException:
                self.stop()
                raise
            errors.seek(0)
            said = " ".join(errors.read().split("\n\nPlatform:")[0].strip().splitlines()[-3:])
        if code != 0:
            raise Refused(f"borg {words[0]} failed (exit code {code}): {plain(said)}")
        return printed

    @staticmethod
    def _read(stream: IO[str] | None, limit: int) -> str:
        assert stream is not None
        printed = stream.read(limit)
        if stream.read(1):
            raise Refused("borg printed more than can be meant")
        return printed

    def stop(self) -> None:
        """Ends borg, in order first, so that it gives its lock back."""
        if self.child is None or self.child.poll() is not None:
            return
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def listed(self) -> tuple[str, list[dict[str, Any]]]:
        """The repository's id, and all archives with what interrupted backups have left."""
        of = json.loads(self.run("list", "--consider-checkpoints", "--json", self.repository.path))
        return of["repository"]["id"], of["archives"]

    def documents(self, name: str) -> dict[str, int] | None:
        try:
            location = f"{self.repository.path}::{name}"
            return documents_of(self.run("extract", "--stdout", location, MANIFEST, limit=LONGEST_MANIFEST))
        except Refused:
            return None  # by hand, or of another program


# ---- the run ----------------------------------------------------------------------------------------------


class Retention:
    def __init__(self, settings: dict[str, Any], request: dict[str, Any]) -> None:
        self.settings, self.request = settings, request
        self.repository = Repository(settings)
        self.policy = Policy(**request["policy"])
        self.journal = f"{self.repository.state}/retention.json"
        self.removed = f"{self.repository.state}/removed.json"

    # ---- what is known ----------------------------------------------------------------------------------

    def removed_before(self) -> dict[str, str]:
        """Names by ids of all that retention has removed."""
        try:
            return dict(json.loads(read(self.removed) or "{}"))
        except (ValueError, TypeError):
            return {}

    def ledger(self) -> list[Taken]:
        rows = Audit(self.settings).database.execute("SELECT id, at, gone FROM archives ORDER BY written")
        return [Taken(id.hex(), at, gone is not None) for id, at, gone in rows.fetchall()]

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
            dataclasses.replace(of, documents=borg.documents(of.name)) if of.id in some else of for of in archives
        ]
        removed = self.removed_before()
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
        with Borg(self.repository, self.request["passphrase"]) as borg:
            if os.path.exists(self.journal):
                if self.request.get("dryRun"):
                    raise Refused("a run before broke off: one that isn't dry finishes it first")
                self.finish_what_broke_off(borg)
            facts = self.facts(borg)
            result: dict[str, Any] = {**self.plan(facts), "doubts": self.doubts(facts), "done": None}
            if apply:
                result["done"] = self.apply(borg, facts, result)
        return {**result, "removedBefore": self.removed_before()}

    def apply(self, borg: Borg, facts: Facts, planned: dict[str, Any]) -> dict[str, Any] | None:
        """Removes what both goes now and was shown. None where there is nothing to remove, or a doubt."""
        despite, shown = set(self.request.get("despite", [])), set(self.request["shown"])
        names = {of["id"]: of["name"] for of in planned["archives"] if not of["why"] and of["id"] in shown}
        if set(planned["doubts"]) - despite or not names:
            return None
        size = self.size()
        self.note("begun", [], names)
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
            self.note("deleting", stay, names, since)
            progress(f"removing {len(names)} archives")
            location = f"{self.repository.path}::{next(iter(names.values()))}"
            borg.run("delete", "--", location, *list(names.values())[1:])
            self.free(borg, stay, names, since)
        finally:
            self.close(names)
        progress("done")
        return {"removed": sorted(names.values()), "freed": size - self.size()}

    def free(self, borg: Borg, stay: list[str], names: dict[str, str], since: int) -> None:
        """After the deletion: look whether it was right, and free the space. Raises Refused."""
        self.judge(names, stay, since)
        progress("checking what stays")
        borg.run("check", "--archives-only", self.repository.path)
        self.note("deleted", stay, names, since)
        self.compact(borg, stay)

    def finish_what_broke_off(self, borg: Borg) -> None:
        """A run before was killed: finish what it had begun to delete, and seal again. Raises Refused."""
        try:
            of = json.loads(read(self.journal))
            stage, stay, names, since = str(of["stage"]), list(of["stay"]), dict(of["names"]), int(of["since"])
        except (ValueError, TypeError, KeyError):
            raise Refused(f"{self.journal} isn't in order: docs/retention.md says what to do") from None
        progress(f"finishing the run of {keeping.moment(os.stat(self.journal).st_mtime)}, which broke off")
        try:
            self.open()
            # borg itself goes back to its last transaction.
            borg.run("check", "--repository-only", self.repository.path)
            if stage == "deleted":
                self.compact(borg, stay)
            elif stage == "deleting" and Audit(self.settings).review():
                self.free(borg, stay, names, since)
        finally:
            self.close(names)

    def judge(self, names: dict[str, str], stay: list[str], since: int) -> None:
        """That the log shows this deletion and nothing else. Raises Refused."""
        audit = Audit(self.settings)
        strangers = strangers_in(audit.review(), since)
        there = audit.reviewed_archives
        lost = [id for id in stay if there.get(id, True) is False]
        left = [id for id in names if there.get(id) is not False]
        if lost or left or (strangers and "audit" not in self.request.get("despite", [])):
            what = strangers[0] if strangers else f"{len(lost)} archives too many and {len(left)} too few are gone"
            raise Refused(f"after the deletion the log isn't as it should be: {what}. Nothing was freed")

    def compact(self, borg: Borg, stay: list[str]) -> None:
        """Raises Refused, also where afterwards something isn't there that should have stayed."""
        progress("freeing the space")
        borg.run("config", self.repository.path, "append_only", "0")
        borg.run("compact", "--threshold", str(THRESHOLD), self.repository.path)
        there = {of["id"] for of in borg.listed()[1]}
        if lost := [id for id in stay if id not in there]:
            self.note("lost", lost, {})
            raise Refused(f"{len(lost)} archives that should stay are no longer listed: docs/restore.md, 8")

    def open(self) -> None:
        if seal("open", self.settings) != 0:
            raise Refused("the seals can't be broken")

    def close(self, names: dict[str, str]) -> None:
        """All that must hold after a run, wherever it ended: append-only, sealed, and what the audit goes by from now
        on. Where the deletion wasn't found right, the audit tells everybody of it."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        with Borg(self.repository, "") as borg:
            borg.run("config", self.repository.path, "append_only", "1")
        if json.loads(read(self.journal))["stage"] == "deleted":
            Audit(self.settings).approve(BECAUSE, archives=False)
            write(self.removed, json.dumps({**self.removed_before(), **names}, indent=0) + "\n", 0o600, 0)
        seal("close", self.settings)
        os.remove(self.journal)

    def note(self, stage: str, stay: list[str], names: dict[str, str], since: int = -1) -> None:
        """Stages: `begun`, nothing has been changed; `deleting`, it may have been; `deleted`, and found right, so that
        only space is to be freed; `lost`, it wasn't."""
        text = json.dumps({"stage": stage, "stay": stay, "names": names, "since": since})
        write(self.journal, text + "\n", 0o600, 0)

    def size(self) -> int:
        """Bytes that the repository takes."""
        total = 0
        for folder, _folders, files in os.walk(self.repository.path):
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total


def stopped(number: int, _frame: object) -> None:
    raise Stopped(signal.Signals(number).name)


def end_with_input() -> None:
    """Stop when the operator's side is gone: its end of the standard input is closed then."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def act(apply: bool, settings: dict[str, Any]) -> int:
    request = json.loads(sys.stdin.readline())
    for number in SIGNALS:
        signal.signal(number, stopped)
    threading.Thread(target=end_with_input, daemon=True).start()
    for name in os.listdir(settings["state"]):
        if name.startswith(FOLDER):
            shutil.rmtree(os.path.join(settings["state"], name), ignore_errors=True)  # of a run that was killed
    result = Retention(settings, request).run(apply)
    print(json.dumps(result), flush=True)
    refused = apply and set(result["doubts"]) - set(request.get("despite", []))
    return DOUBTED if refused else DONE


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="retention.py",
        description="Say which archives of a borg repository a policy keeps, and remove the others. Started by"
        " `npm run retention`, which writes what it needs to the standard input and keeps that open.",
        epilog="Exit codes: 0 done; 1 there are doubts, and nothing was changed; 2 not possible, the reason is named;"
        " 130 stopped.",
    )
    parser.add_argument("action", choices=("plan", "apply"), metavar="ACTION", help="plan or apply")
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup-server/DEPLOYMENT/repository.json")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        with open(options.settings, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused("another run of it goes on") from None
            return act(options.action == "apply", json.load(file))
    except (Refused, CannotSeal, OSError, sqlite3.Error, Damaged) as error:
        complain(error)
        return REFUSED
    except Stopped as error:
        complain(f"stopped by {error}; run it again to finish")
        return STOPPED


if __name__ == "__main__":
    exit_with(main)
