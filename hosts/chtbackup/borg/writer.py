"""borg, run to add an archive to a deployment's repository."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from chtbackup.base.errors import NoBackup
from chtbackup.base.process import descendants, end
from chtbackup.base.text import say
from chtbackup.borg import start
from chtbackup.borg.deployment import Repository
from chtbackup.borg.idle import Idle
from chtbackup.borg.json_log import Message, read_all
from chtbackup.borg.meaning import broken_cache, lacks_cause

STOP_TIMEOUT = 60  # seconds that borg gets to end after a signal

Give = Callable[[IO[str], threading.Event], None]
"""Writes what borg reads, until the event tells that borg has ended."""


@dataclass(frozen=True)
class Ended:
    """How borg ended."""

    code: int
    """Its exit code; less than nothing for the signal that killed it."""
    messages: list[Message]
    """Its warnings and errors."""
    output: str


class Writer:
    """borg with one repository. One run at a time."""

    def __init__(self, repository: Repository, note: Callable[[str], object]) -> None:
        self.repository = repository
        self.note = note
        """Takes what the operator should hear though nothing is wrong."""
        self.child: subprocess.Popen[str] | None = None
        self.broken: Exception | None = None
        """Why borg can't be given what it reads."""

    def run(self, *words: str, give: Give | None = None, tick: Callable[[list[int]], None] | None = None) -> Ended:
        """Run borg. `give` writes its standard input; `tick` is called about once a second with the numbers of its
        processes. Raises NoBackup when nothing happens for too long, and what kept borg from being given its input.

        What borg keeps on this machine to be faster may be lost or damaged (a full disk, a crash). It can be
        made anew from the repository, so it is removed then, and borg gets a second try. What protects
        against a replaced repository isn't there, but in borg's security directory, and stays.
        """
        ended = self._once(words, give, tick)
        broken = broken_cache(ended.code, ended.messages)
        if broken is None:
            return ended
        cache = f"{self.repository.base_directory}/.cache/borg"
        say(f"borg's cache {cache} is unusable, so it is removed and made anew ({broken})")
        shutil.rmtree(cache, ignore_errors=True)
        self.note(f"borg's cache was unusable and was made anew ({broken})")
        return self._once(words, give, tick)

    def _once(self, words: tuple[str, ...], give: Give | None, tick: Callable[[list[int]], None] | None) -> Ended:
        if give is None:
            self.start(*words)
            output, errors = self._wait(None)
        else:
            output, errors = self._feed(words, give, tick)
        assert self.child is not None
        messages = read_all(errors)
        if lacks_cause(self.child.returncode, messages):
            messages += start.ask_ssh(self.repository.ssh_config)
        return Ended(self.child.returncode, messages, output)

    def start(self, *words: str, stdin: Any = subprocess.DEVNULL) -> None:
        command = ["borg", "--log-json", "--lock-wait", str(self.repository.lock_wait), *words]
        own = self.repository.environment()
        passphrase = self.repository.passphrase()
        self.child = start.start(command, own, passphrase, stdin=stdin, errors="replace", cwd="/")

    def _feed(self, words: tuple[str, ...], give: Give, tick: Callable[[list[int]], None] | None) -> tuple[str, str]:
        reader, writer = os.pipe()
        ended = threading.Event()
        # Paths may be no UTF-8.
        given = os.fdopen(writer, "w", encoding="utf-8", errors="surrogateescape")

        def write() -> None:
            try:
                give(given, ended)
            except BrokenPipeError:
                pass  # borg has ended; its exit code says more
            except Exception as error:
                self.broken = error

        giver = threading.Thread(target=write, daemon=True)
        try:
            try:
                self.start(*words, stdin=reader)
            finally:
                os.close(reader)
            giver.start()
            return self._wait(tick)
        finally:
            ended.set()
            if giver.ident is not None:
                giver.join(STOP_TIMEOUT)
            # borg has ended, and what wasn't read is of no use; a borg that can't be killed isn't waited for.
            with contextlib.suppress(OSError):
                if not giver.is_alive():
                    given.close()

    def _wait(self, tick: Callable[[list[int]], None] | None) -> tuple[str, str]:
        assert self.child is not None
        idle = Idle()
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self.child.communicate(timeout=1)
                if self.broken is not None:
                    raise self.broken
                processes = [self.child.pid, *descendants(self.child.pid)]
                stalled = idle.look(processes, time.monotonic())
                if stalled is not None:
                    raise NoBackup(stalled)
                if tick is not None:
                    tick(processes)
        except BaseException:
            end(self.child, STOP_TIMEOUT)  # gently first, so that it gives its locks back
            raise
