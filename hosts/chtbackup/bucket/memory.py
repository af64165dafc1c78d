"""What a copy remembers until the next, and that only one runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.bucket.plan import Held, Known, NoCopy


class Busy(Exception):
    """The repository is in use."""


class Memory:
    """What earlier runs found out, in bucket-state.json. It only saves work: without it everything is read and looked
    up again. It is this machine's own, so what others put into the bucket can't change it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.path = os.path.join(settings["state"], "bucket-state.json")
        self.place = {name: settings[name] for name in ("repository", "endpoint", "bucket", "prefix")}
        self.files: dict[str, Known] = {}
        self.copy: dict[str, Any] | None = None
        """The newest finished copy: `key`, `version`, `until` and `mode` (of the lock) of its index, `number`,
        `transaction`, `settled`, `fingerprint`, `repository`, `madeAt`, `size`."""
        self.held: dict[str, Held] = {}
        """The files of that copy."""
        self.written: dict[str, str] | None = None
        """`key` and `sha256` of the index that is about to be written, or was when a run was killed."""
        self.programs: dict[str, dict[str, Any]] = {}
        """The programs for a recovery that were put there, by name: `version`, `until` and `mode` (of the lock)."""
        self.mode: str = settings["mode"]
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            with open(self.path, encoding="utf-8") as file:
                read = json.load(file)
            # Of another bucket or repository: nothing in it holds.
            if read["place"] == self.place:
                self.files = {path: Known(**of) for path, of in read["files"].items()}
                self.held = {path: Held(**of) for path, of in read["held"].items()}
                self.copy = read["copy"]
                self.written = read.get("written")
                self.programs = read.get("programs", {})
                # A lock that counted may not do so in another mode: each is looked up again.
                if read.get("mode") != self.mode:
                    for of in self.held.values():
                        of.until = of.mode = None
                    for lock in [*self.programs.values(), *([self.copy] if self.copy else [])]:
                        lock |= {"until": None, "mode": None}

    def save(self) -> None:
        content = {
            "place": self.place,
            "mode": self.mode,
            "copy": self.copy,
            "written": self.written,
            "programs": self.programs,
            "held": {path: vars(of) for path, of in sorted(self.held.items())},
            "files": {path: vars(of) for path, of in sorted(self.files.items())},
        }
        write_atomically(self.path, json.dumps(content, indent=0) + "\n")


class OnlyOne:
    """As a context: no other run of the same kind. A check may take hours, and must not keep a copy from being made.
    Whoever compacts the repository takes the copy's lock as well. It is waited for as long as for borg's; raises NoCopy
    then."""

    def __init__(self, settings: dict[str, Any], action: str) -> None:
        name = "bucket-check.lock" if action == "check" else "bucket-copy.lock"
        self.path = os.path.join(settings["state"], name)
        self.wait: int = settings["lockWait"]
        self.taken = f"another {action} for {settings['deployment']} is running"

    def __enter__(self) -> OnlyOne:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self.take()
        except BaseException:
            os.close(self.descriptor)
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.descriptor)

    def take(self) -> None:
        deadline = time.monotonic() + self.wait
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NoCopy(self.taken) from None
            time.sleep(0.5)

    @contextlib.contextmanager
    def let_go(self) -> Iterator[None]:
        """Let others run meanwhile."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        yield
        self.take()
