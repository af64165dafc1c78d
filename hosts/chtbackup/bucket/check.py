"""Compare the bucket with the newest copy, and read some of it back."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from typing import Any

from chtbackup.base.text import moment, say
from chtbackup.bucket.access import connect
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.copies import copies_in, read_index
from chtbackup.bucket.index import LARGEST_INDEX, Index, Stored, Version, absent
from chtbackup.bucket.memory import Memory
from chtbackup.bucket.parallel import in_parallel
from chtbackup.bucket.plan import DAY, FOLDER, NoCopy, bucket_problems
from chtbackup.bucket.report import RIGHT, Progress, heading, megabytes
from chtbackup.bucket.snapshot import transaction_of

LOOKS = 10  # that a check takes at the bucket until no copy finishes meanwhile


def is_written(there: Bucket, of: Version, written: dict[str, str] | None) -> bool:
    """Whether an index in the bucket is what this machine was about to write."""
    if written is None or written["key"] != f"index/{of.path}" or of.size > LARGEST_INDEX:
        return False
    return there.checksum(f"index/{of.path}", of.id) == written["sha256"]


def differing(there: Bucket, objects: dict[str, Stored], step: Callable[[int], None]) -> list[str]:
    """Read objects back: the paths of those that aren't what an index says. `step` gets the bytes read. Raises
    BucketError."""
    wrong = []
    for path, of in objects.items():
        digest = hashlib.sha256()
        for block in there.read(FOLDER + path, of.version):
            digest.update(block)
            step(len(block))
        if digest.hexdigest() != of.sha256:
            wrong.append(path)
    return wrong


class Check:
    """One run of `check`: the bucket against the newest index in it."""

    def __init__(self, settings: dict[str, Any], everything: bool) -> None:
        self.settings = settings
        self.read_back: int | str = "all" if everything else settings["readBack"]
        self.started = time.time()
        self.problems: list[str] = []
        self.protection: list[str] = []
        """Those of the problems by which the bucket protects the copies less than it should."""
        self.notes: list[str] = []
        self.bucket: Bucket | None = None
        self.checked: dict[str, Any] = {}

    def run(self) -> None:
        """Raises NoCopy or BucketError where nothing can be checked."""
        self.bucket = there = connect(self.settings)
        found = there.describe()
        if not found["versioning"]:
            self.protection.append(f"the bucket {self.settings['bucket']} has no versioning")
        self.protection += bucket_problems(found, self.settings)
        self.problems += self.protection
        key, version, index = self.newest(there)
        named = {(path, of.version) for path, of in index.objects.items()}
        listing = there.versions(FOLDER, lambda of: (of.path, of.id) in named)
        lost = absent(index, listing)
        if lost:
            self.problems.append(f"{len(lost)} files of the copy are not in the bucket any more, {lost[0]} for one")
        hidden = sorted(listing.hidden & index.objects.keys())
        if hidden:
            self.problems.append(
                f"{len(hidden)} files of the copy are hidden by delete markers, {hidden[0]} for one: somebody has"
                " deleted them by name. They are still there, and a restore finds them"
            )
        there_still = {path: of for path, of in index.objects.items() if path not in set(lost)}
        if found["lock"] is not None:
            self.check_locks(there, key, version, there_still)
        self.check_content(there, there_still)
        say(
            f"{key}: {len(index.objects)} files, {megabytes(index.size)}, in the bucket;"
            f" {self.checked['readBack']} of them read back, {megabytes(self.checked['readBackBytes'])}"
        )

    def newest(self, there: Bucket) -> tuple[str, str, Index]:
        """The newest index in the bucket, by the bucket's clock, which must be this machine's own last one."""
        copies, memory = self.copies(there)
        if not copies:
            raise NoCopy(f"the bucket {there.where} holds no finished copy of {self.settings['deployment']}")
        newest, own = copies[0], memory.copy
        if own is None:
            self.notes.append("this machine doesn't remember its last copy, so the bucket's newest is taken for it")
        elif (own["key"], own["version"]) == (f"index/{newest.path}", newest.id):
            pass
        elif is_written(there, newest, memory.written):
            self.notes.append("a copy was finishing, or was killed then; its index is this machine's")
        else:
            self.problems.append(
                f"the bucket's newest index, index/{newest.path} of {moment(newest.modified)}, was not written by this"
                f" machine, whose last is {own['key']}: somebody else has the writer's key"
            )
            newest = next((of for of in copies if (f"index/{of.path}", of.id) == (own["key"], own["version"])), None)
            if newest is None:
                raise NoCopy(f"the index {own['key']} of this machine's last copy is not in the bucket any more")
        hours = (time.time() - newest.modified) / 3600
        repository_moved = own is None or transaction_of(self.settings["repository"]) != own["settled"]
        if hours > self.settings["maxAge"] and repository_moved:
            self.problems.append(f"the newest copy is {hours:.0f} hours old, and the repository has changed since")
        key = f"index/{newest.path}"
        try:
            index = read_index(there, newest)
        except ValueError as error:
            raise NoCopy(f"the index {key} is no index: {error}") from error
        self.checked = {"copy": key, "version": newest.id, "number": index.number, "transaction": index.transaction}
        return key, newest.id, index

    def copies(self, there: Bucket) -> tuple[list[Version], Memory]:
        """What is in the bucket, and what this machine remembers of it: of one moment, while copies go on."""
        memory = Memory(self.settings)
        for _ in range(LOOKS):
            before, copies, memory = memory, copies_in(there), Memory(self.settings)
            if (before.copy, before.written) == (memory.copy, memory.written):
                break
        return copies, memory

    def check_locks(self, there: Bucket, key: str, version: str, objects: dict[str, Stored]) -> None:
        """The locks of a sample, or of all."""
        chosen = self.sample(objects)
        heads = in_parallel(lambda path: there.head(FOLDER + path, objects[path].version), chosen)
        heads.append(there.head(key, version))
        # `copy` has a day to lengthen what has come due since.
        limit = time.time() + (self.settings["keepDays"] - 1) * DAY
        short = [
            path
            for path, of in zip([*chosen, key], heads, strict=True)
            if of["until"] is None
            or of["until"] < limit
            or (of["mode"], self.settings["mode"]) == ("GOVERNANCE", "COMPLIANCE")
        ]
        self.checked["locks"] = len(heads)
        if short:
            text = (
                f"{len(short)} of {len(heads)} files looked at aren't locked in {self.settings['mode']} mode for"
                f" {self.settings['keepDays']} days more, {short[0]} for one"
            )
            self.problems.append(text)
            self.protection.append(text)

    def check_content(self, there: Bucket, objects: dict[str, Stored]) -> None:
        chosen = self.sample(objects)
        progress = Progress("read back", sum(objects[path].size for path in chosen))
        wrong = differing(there, {path: objects[path] for path in chosen}, progress.step)
        if wrong:
            self.problems.append(f"{len(wrong)} files in the bucket aren't what was copied, {wrong[0]} for one")
        self.checked |= {"readBack": len(chosen), "readBackBytes": sum(objects[path].size for path in chosen)}

    def sample(self, objects: dict[str, Stored]) -> list[str]:
        """What to look at closely: all, or the files that a restore needs first and some of the segments."""
        segments = [path for path in objects if path.startswith("data/")]
        rest = [path for path in objects if not path.startswith("data/")]
        if self.read_back != "all":
            segments = random.sample(segments, min(int(self.read_back), len(segments)))
        return [*rest, *segments]

    def result(self, exit_code: int) -> dict[str, Any]:
        return {
            **heading(self.settings, self.started),
            "ok": exit_code == RIGHT,
            "exitCode": exit_code,
            **self.checked,
            "requests": self.bucket.requests if self.bucket else 0,
            "problems": self.problems,
            "protection": self.protection,
            "notes": self.notes,
        }
