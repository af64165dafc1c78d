"""Have borg store what was collected, and find out what came of it."""

from __future__ import annotations

import glob
import json
import os
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from chtbackup.backup.run import Run
from chtbackup.base.errors import NoBackup, reason_of
from chtbackup.base.files import write_atomically
from chtbackup.base.process import open_files, unread
from chtbackup.base.text import complain_of_bug, megabytes, say
from chtbackup.borg.meaning import created, explain, first_counter, is_counter, listed, read_answer, repository_id
from chtbackup.borg.writer import Writer
from chtbackup.couchdb.scan import grouped

PROGRESS_INTERVAL = 60
# borg 1.2 and 1.4 read their list 4,096 characters at a time, after a buffer of 8,192; this is ample.
LIST_BLOCK = 64 * 1024
LOOK_UP_PAUSE = 10  # seconds before the new archive is looked up once more


class Store:
    """One archive in the repository."""

    def __init__(self, run: Run, borg: Writer) -> None:
        self.run = run
        self.borg = borg
        self.created: dict[str, Any] | None = None
        """The archive, once borg has said that it made it."""
        self.figures: dict[str, Any] = {}
        self.exit_code: int | None = None

    def begin_counter(self) -> None:
        """Where this machine has never written to the repository, or has lost or damaged its count, let borg
        count from the time: see `first_counter`. `pulumi up` does the same; this is for a machine that
        has lost its state since. Raises NoBackup."""
        security = f"{self.run.state}/borg/.config/borg/security"
        counters = glob.glob(f"{glob.escape(security)}/*/nonce")
        for path in counters:
            with open(path, "rb") as file:
                if is_counter(file.read(100)):
                    continue
            write_atomically(path, first_counter(time.time()), 0o600)
            self.run.notes.append(f"{path} was damaged; borg counts on from the time, beyond all that it used")
        if counters:
            return
        ended = self.borg.run("list", "--json", "--last", "1")
        repository = repository_id(ended.output)
        if repository is None:
            raise NoBackup(explain(ended.code, ended.messages))
        os.makedirs(f"{security}/{repository}", mode=0o700, exist_ok=True)
        write_atomically(f"{security}/{repository}/nonce", first_counter(time.time()), 0o600)

    def store(self, paths: list[str], sizes: dict[str, int], last: tuple[str, Callable[[], Any]]) -> None:
        """Make the archive of the paths, in their order, and at its end of the file `last`, which holds what its
        function returns when everything else is stored. What is missing in the archive becomes a problem. Raises
        NoBackup."""
        self.begin_counter()
        last_path, make_last = last

        def give(list_: IO[str], ended: threading.Event) -> None:
            give_list(list_, ended, paths, unfinished(self.run))
            if not ended.is_set():
                self._end_list(list_, last_path, make_last)

        ended = self.borg.run(*self._words(), give=give, tick=progress(paths, sizes))
        self.exit_code = ended.code
        answer = read_answer(ended.code, ended.messages)
        if not answer.may_have_archive:
            raise NoBackup(answer.problems[0])
        made = created(ended.output)
        self.figures = made.get("stats") or {}
        if made.get("name") == self.run.archive:
            self.created = {"id": made.get("id"), "time": made.get("start")}
        archives = self.look_up()
        if archives is not None:
            found = self.among(archives)
            self.created = found and {"id": found["id"], "time": found.get("start") or found.get("time")}
        if self.created is None:
            why = explain(ended.code, ended.messages)
            raise NoBackup(f"borg ended with {ended.code}, but there is no archive {self.run.archive}: {why}")
        self.run.problems += answer.problems
        vanished = [path if path.startswith("/") else f"/{path}" for path in answer.vanished]
        self._tell_missing([path for path in vanished if path != unfinished(self.run)], len(sizes) + 2)

    def _words(self) -> list[str]:
        """borg's words to make the archive of a list of paths on its standard input: so each path is copied once and in
        our order. (With directories as roots, borg would store a file again that a compaction swapped meanwhile.)"""
        settings = self.run.settings
        return [
            "create", "--json", "--paths-from-stdin", "--paths-delimiter", "\\0",
            "--compression", settings["compression"],
            # Another chunker makes the next backup store everything once more.
            "--chunker-params", settings["chunker"],
            "--checkpoint-interval", str(settings["checkpointInterval"]),
            *(["--upload-ratelimit", str(settings["uploadRate"])] if settings["uploadRate"] else []),
            f"{settings['repository']}::{self.run.archive}",
        ]  # fmt: skip

    def _end_list(self, list_: IO[str], path: str, make: Callable[[], Any]) -> None:
        """Make the last file, and end borg's list with its path."""
        try:
            write_atomically(path, json.dumps(make(), indent=1) + "\n", 0o600)
        except Exception as error:  # the rest is stored, and is worth more than nothing
            if not isinstance(error, OSError):
                complain_of_bug()
            self.run.problem(f"the manifest's second part can't be made: {reason_of(error)}")
        else:
            list_.write(f"../{os.path.basename(path)}\0")
        list_.close()

    def _tell_missing(self, vanished: list[str], expected: int) -> None:
        gone = []
        for path in vanished:
            if os.path.exists(path) and not path.endswith(".view"):  # which CouchDB builds anew
                self.run.problem(f"{path} is not in the archive: it was being replaced when borg came to it")
            else:
                gone.append(("gone", f"{path}: went away during the backup"))
        self.run.notes += grouped(gone)
        stored = self.figures.get("nfiles")
        if stored is not None and stored < expected - len(vanished):
            self.run.problem(f"the archive holds {stored} files instead of {expected - len(vanished)}")

    def look_up(self) -> list[dict[str, Any]] | None:
        """The archives that borg lists; None, with a note, when they can't be listed. Then borg's word that
        it made the archive must do: it says so only when the server has it."""
        for pause in (0, LOOK_UP_PAUSE):
            time.sleep(pause)
            ended = self.borg.run("list", "--json")
            archives = listed(ended.output)
            if archives is not None:
                return archives
            why = explain(ended.code, ended.messages)
        self.run.notes.append(f"borg made the archive, but it couldn't be looked up afterwards: {why}")
        return None

    def among(self, archives: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The archive of this run among those that borg lists."""
        return next((of for of in archives if of["name"] == self.run.archive), None)


def give_list(list_: IO[str], ended: threading.Event, paths: list[str], last: str) -> None:
    """Write the list of paths for borg, and return when it has stored all of them, or has ended.

    borg takes the list in blocks, and takes the next one only when it has stored all paths of those
    before. So the path `last` is begun with more slashes (one means the same) than a few blocks hold: when
    borg has taken them all out of the pipe, it has stored everything before. Now what belongs at the archive's end
    can be made, and its path be ended. A list that ends early ends in the path of a file that isn't there,
    never in one that is.

    Whatever goes wrong before all is given is the run's failure at once: the list must not just end, or borg would make
    an archive of what it has been given so far.

    (A named pipe as the last path would need borg's read_special, with which its chunker `fixed` fails:
    "Illegal seek".)
    """
    for path in paths:
        list_.write(f"{path}\0")
    list_.write(f"{last}{'/' * LIST_BLOCK}")
    list_.flush()
    while unread(list_):
        if ended.wait(0.1):
            return


def unfinished(run: Run) -> str:
    """The path that ends borg's list when the manifest's second part couldn't be made."""
    return f"{run.scratch}/unfinished"


def progress(paths: list[str], sizes: dict[str, int]) -> Callable[[list[int]], None]:
    """A function that says once a minute how far borg is, by the file that it has open."""
    reached: dict[str, int] = {}
    total = 0
    for path in paths:
        reached[path] = total
        total += sizes.get(path, 0)
    said = time.monotonic()

    def tell(processes: list[int]) -> None:
        nonlocal said
        if time.monotonic() - said < PROGRESS_INTERVAL:
            return
        said = time.monotonic()
        opened = (path for process in processes for path in open_files(process))
        path = next((path for path in opened if path in reached), None)
        if path is not None and total:
            read = reached[path]
            say(f"{read / total:.0%} read: {megabytes(read)} of {megabytes(total)}, now {path}")

    return tell
