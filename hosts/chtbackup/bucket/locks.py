"""Keep every version that a copy names locked."""

from __future__ import annotations

import time
from typing import Any

from chtbackup.base.text import moment, say
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.errors import BucketError, Gone, ObjectRefused
from chtbackup.bucket.index import Version
from chtbackup.bucket.memory import Memory
from chtbackup.bucket.parallel import in_parallel
from chtbackup.bucket.plan import DAY, FOLDER, Held, Known, NoCopy, due, lock_mode


class Locks:
    """The locks of one run: set, looked up and lengthened."""

    def __init__(self, settings: dict[str, Any], problems: list[str]) -> None:
        self.settings, self.problems = settings, problems
        self.default: dict[str, Any] | None = None
        """The bucket's own, `mode` and `days`; None: the bucket has no locks."""
        self.extended = 0

    def of_upload(self) -> tuple[str, float] | None:
        """Mode and end of the lock with which something is uploaded now; None: the bucket has no locks."""
        if self.default is None:
            return None
        until = time.time() + self.settings["lockDays"] * DAY
        return lock_mode(self.settings["mode"], None, self.default["mode"]), until

    def end_of(self, lock: dict[str, Any]) -> float | None:
        """When a lock ends that counts as one: one in governance mode doesn't where compliance is wanted."""
        return None if (lock["mode"], self.settings["mode"]) == ("GOVERNANCE", "COMPLIANCE") else lock["until"]

    def hold(
        self, there: Bucket, files: dict[str, Known], found: dict[str, Version], known: dict[str, Held],
        uploaded: dict[str, Held],
    ) -> dict[str, Held]:  # fmt: skip
        """What the copy consists of, every version locked long enough: what was `found` in the bucket and what was
        `uploaded` now. The lock of a version that no earlier copy of this machine's names (`known`) is looked up:
        somebody else may have put it there, with a lock of his own. Raises NoCopy where one is no longer there."""
        held = {}
        for path, version in found.items():
            before = known.get(path)
            same = before is not None and before.version == version.id
            until, mode = (before.until, before.mode) if same else (None, None)
            held[path] = Held(version.id, version.size, files[path].sha256, until, mode)
        held |= uploaded
        if self.default is not None and (gone := self.lengthen(there, held)):
            # By retention, which can't know what this copy is about to name.
            raise NoCopy(f"{gone[0]} was removed from the bucket meanwhile; the next run copies it anew")
        return held

    def lengthened(
        self, there: Bucket, path: str, version: str, until: float | None, mode: str | None, now: float
    ) -> tuple[float, str]:
        """End and mode of a version's lock, which ends later than in `keepDays` then: it is looked up where it isn't
        known, and lengthened to `lockDays` from `now` where it must be. Raises BucketError."""
        assert self.default is not None
        if until is None and mode is None:
            lock = there.head(path, version)
            until, mode = self.end_of(lock), lock["mode"]
        if until is not None and mode is not None and not due(until, now, self.settings["keepDays"]):
            return until, mode
        wanted = lock_mode(self.settings["mode"], mode, self.default["mode"])
        end = now + self.settings["lockDays"] * DAY
        try:
            there.lengthen(path, version, wanted, end)
        except ObjectRefused as error:
            if (mode, wanted) != ("GOVERNANCE", "COMPLIANCE"):
                raise
            # Better than a lock that runs out.
            there.lengthen(path, version, mode, end)
            raise ObjectRefused(
                "they are in governance mode, in which they were lengthened, and the bucket doesn't let this key change"
                f" that. Give the deployment another prefix, or let an administrator lock them anew: {error}"
            ) from error
        return end, wanted

    def lengthen(self, there: Bucket, held: dict[str, Held]) -> list[str]:
        """Lengthen the locks that end within `keepDays`. A refusal is a problem, not the end: the others go on. Returns
        the paths of versions that aren't there any more."""
        now = time.time()
        end = now + self.settings["lockDays"] * DAY
        todo = [path for path, of in held.items() if due(of.until, now, self.settings["keepDays"])]
        refused: list[str] = []
        gone: list[str] = []

        def lengthen(path: str) -> None:
            of = held[path]
            try:
                of.until, of.mode = self.lengthened(there, FOLDER + path, of.version, of.until, of.mode, now)
            except BucketError as error:
                refused.append(str(error))
                if isinstance(error, Gone):
                    gone.append(path)

        in_parallel(lengthen, todo)
        done = sum(held[path].until == end for path in todo)
        self.extended += done
        if done:
            say(f"the locks of {done} files are lengthened until {moment(end)}")
        if refused:
            self.problems.append(f"the locks of {len(refused)} of {len(todo)} files can't be lengthened: {refused[0]}")
        return gone

    def keep(self, there: Bucket, memory: Memory) -> None:
        """Lengthen the locks of the newest finished copy, of its index, and of the programs for a recovery."""
        of = memory.copy
        if of is None or self.default is None:
            return
        self.lengthen(there, memory.held)
        now = time.time()
        programs = {f"the program {name}": (name, program) for name, program in memory.programs.items()}
        for what, (key, one) in {"the copy's index": (of["key"], of), **programs}.items():
            if due(one["until"], now, self.settings["keepDays"]):
                try:
                    until, mode = self.lengthened(there, key, one["version"], one["until"], one["mode"], now)
                    one["until"], one["mode"] = until, mode
                except BucketError as error:
                    self.problems.append(f"the lock of {what} can't be lengthened: {error}")
        memory.save()
