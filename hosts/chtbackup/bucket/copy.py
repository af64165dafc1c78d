"""Copy the borg repository on this machine to a bucket, and keep the copy locked there.

No passphrase and no key of the repository is needed. How a copy comes about:
1. Under borg's own lock, for seconds, a snapshot is taken beside the repository (with_lock.py, snapshot.py).
2. Without a lock, what the bucket doesn't have yet is uploaded from there (upload.py). What it has is found by size and
   checksum in the bucket's own list, whatever happened to earlier runs (present.py).
3. Every version that belongs to the copy is locked for at least `keepDays` more (locks.py).
4. Last of all an index is written, which names each file's version, size and sha256 (write_index.py). Without it there
   is no copy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import Any

from chtbackup.base.errors import Stopped
from chtbackup.base.text import moment, say
from chtbackup.bucket.access import connect
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.errors import Gone
from chtbackup.bucket.locks import Locks
from chtbackup.bucket.memory import Busy, Memory, OnlyOne
from chtbackup.bucket.plan import NoCopy, bucket_problems, check_count, wait_for
from chtbackup.bucket.present import look_up
from chtbackup.bucket.recover_program import keep_program
from chtbackup.bucket.report import FAILED, RIGHT, WRONG, heading
from chtbackup.bucket.snapshot import fingerprint, newest_segment, repository_id, transaction_of
from chtbackup.bucket.snapshot_files import files_of, read_all
from chtbackup.bucket.upload import Upload
from chtbackup.bucket.with_lock import take, wait_until_settled
from chtbackup.bucket.write_index import write_index

ROUNDS = 3  # copies in a run, of what came in meanwhile


class Postponed(Exception):
    """The run was told to end while it only waited."""


class Copy:
    """One run of `copy` or `extend`."""

    def __init__(self, settings: dict[str, Any], settle: int = 0, alone: OnlyOne | None = None) -> None:
        self.settings = settings
        self.settle = settle
        self.alone = alone
        """Keeps other copies from running; let go while this one waits."""
        self.repository: str = settings["repository"]
        self.snapshot = os.path.join(settings["snapshot"], "repository")
        self.started = time.time()
        self.problems: list[str] = []
        self.protection: list[str] = []
        """Those of the problems by which the bucket protects the copies less than it should."""
        self.notes: list[str] = []
        self.bucket: Bucket | None = None
        self.memory = Memory(settings)
        self.locks = Locks(settings, self.problems)
        self.upload = Upload(settings, self.snapshot, self.locks)
        self.outcome = "failed"
        """`copied`, `unchanged`, `busy`, `waiting`, `extended` or `failed`."""

    def run(self) -> None:
        """Copy what is new, until nothing is. Raises NoCopy, BucketError, OSError."""
        try:
            self.copy_what_is_new()
            assert self.bucket is not None
            keep_program(self.bucket, self.memory, self.locks)
        except Postponed as error:
            # Nothing was in progress, so it is no failure; what was copied before stays what happened.
            if self.outcome != "copied":
                self.outcome = "waiting"
            self.notes.append(f"{error}; the next run copies what is new")

    def extend(self) -> None:
        """Only lengthen locks. Raises NoCopy, BucketError, OSError."""
        self.locks.keep(self.look(), self.memory)
        self.outcome = "extended"

    def look(self) -> Bucket:
        """Reach the bucket and look at its settings. Raises NoCopy or BucketError where a copy makes no sense."""
        self.bucket = connect(self.settings)
        found = self.bucket.describe()
        if not found["versioning"]:
            raise NoCopy(
                f"the bucket {self.settings['bucket']} has no versioning: what is overwritten there is lost."
                " Switch versioning on (object lock needs it, too)"
            )
        self.protection = bucket_problems(found, self.settings)
        self.problems += self.protection
        self.locks.default = found["lock"]
        return self.bucket

    def copy_what_is_new(self) -> None:
        there = self.look()
        # First, so that the last copy stays locked even when no new one can be made.
        self.locks.keep(there, self.memory)
        if not self.still_there(there):
            self.memory.copy = None
        for _ in range(ROUNDS):
            if not self.unchanged():
                self.wait_for_interval()
            if self.unchanged():
                if self.outcome != "copied":
                    self.outcome = "unchanged"
                    say(f"nothing new since the copy {self.memory.copy['key']}")  # type: ignore[index]
                return
            wait_until_settled(self.settings, self.settle)
            try:
                self.copy(there, take(self.settings, self.snapshot, self.notes))
            except Busy as error:
                self.wait_for_another_time(error)
                return
            finally:
                shutil.rmtree(self.snapshot, ignore_errors=True)
            self.outcome = "copied"

    def still_there(self, there: Bucket) -> bool:
        """Whether the newest copy's index, if there is a copy, is in the bucket; one request."""
        of = self.memory.copy
        if of is None:
            return True
        try:
            there.head(of["key"], of["version"])
        except Gone:
            self.problems.append(f"the index {of['key']} of the newest copy is no longer in the bucket; copying again")
            return False
        return True

    def unchanged(self) -> bool:
        """Whether the newest copy holds what the repository holds: only with-lock's own transaction came since.
        Segments after it are of a client that writes or has crashed; with-lock waits for it, or clears them up."""
        of, transaction = self.memory.copy, transaction_of(self.repository)
        return (
            of is not None
            and transaction == newest_segment(self.repository) == of["settled"]
            and fingerprint(self.repository) == of["fingerprint"]
        )

    def wait_for_interval(self) -> None:
        """Wait until the last copy is `leastInterval` old: whoever stores something all the time would have a copy made
        of each, all of them locked. Waiting here, and not for another run, the newest state is copied in the end.
        Others may copy or compact meanwhile. Raises Postponed when it is told to stop, or another runs then."""
        of = self.memory.copy
        seconds = wait_for(of and of["madeAt"], time.time(), self.settings["leastInterval"])
        if seconds == 0:
            return
        say(f"the last copy is recent: this one begins at {moment(time.time() + seconds)}")
        try:
            with self.alone.let_go() if self.alone else contextlib.nullcontext():
                time.sleep(seconds)
        except Stopped as error:
            raise Postponed(f"stopped by {error} while it waited, as the last copy is recent") from None
        except NoCopy as error:  # another run has begun meanwhile, which copies the same
            raise Postponed(str(error)) from None
        self.memory = Memory(self.settings)

    def wait_for_another_time(self, busy: Busy) -> None:
        """The repository is in use, by a long backup as a rule. That is a failure only when it lasts."""
        if self.outcome == "copied":
            self.notes.append(f"something new came in meanwhile, and {busy}; the next run copies it")
            return
        last = self.memory.copy["madeAt"] if self.memory.copy else os.stat(f"{self.repository}/README").st_mtime
        hours = (time.time() - last) / 3600
        if hours > self.settings["maxAge"]:
            raise NoCopy(
                f"{busy}, and there has been no copy for {hours:.0f} hours (a lock that nobody holds any more?)"
            )
        self.outcome = "busy"
        self.notes.append(f"{busy}; the next run copies it")

    def copy(self, there: Bucket, taken: dict[str, Any]) -> None:
        """Copy a snapshot. Raises NoCopy, BucketError."""
        paths = files_of(self.snapshot)
        many = check_count(paths, self.memory.held)
        if many is not None and many not in self.problems:
            self.problems.append(many)
        files = read_all(self.snapshot, paths, self.memory)
        found, missing = look_up(there, files, self.memory.held)
        uploaded = self.upload.run(there, files, missing, self.memory.held) if missing else {}
        held = self.locks.hold(there, files, found, self.memory.held, uploaded)
        repository = repository_id(os.path.join(self.snapshot, "config"))
        write_index(there, self.memory, self.locks, self.settings, held, taken, repository)

    def result(self) -> dict[str, Any]:
        good = self.outcome != "failed"
        of = self.memory.copy
        named = ("key", "version", "number", "transaction", "repository", "size")
        return {
            **heading(self.settings, self.started),
            "ok": good and not self.problems,
            "outcome": self.outcome,
            "exitCode": FAILED if not good else WRONG if self.problems else RIGHT,
            "copy": of and {name: of[name] for name in named},
            "copyAt": of and of["madeAt"],
            "files": len(self.memory.held) if of else None,
            "uploadedFiles": self.upload.files,
            "uploadedBytes": self.upload.bytes,
            "extended": self.locks.extended,
            "requests": self.bucket.requests if self.bucket else 0,
            "problems": self.problems,
            "protection": self.protection,
            "notes": self.notes,
        }  # fmt: skip
