"""Finish a copy: write its index, and remember it."""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import Any

from chtbackup.base.text import megabytes, moment, say
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.copies import copies_in, read_index
from chtbackup.bucket.errors import ObjectRefused
from chtbackup.bucket.index import LARGEST_NUMBER, Index, Stored, index_key, pack_index
from chtbackup.bucket.locks import Locks
from chtbackup.bucket.memory import Memory
from chtbackup.bucket.plan import Held


def write_index(
    there: Bucket, memory: Memory, locks: Locks, settings: dict[str, Any], held: dict[str, Held],
    taken: dict[str, Any], repository: str,
) -> None:  # fmt: skip
    """Write the index of what is `held`, a snapshot `taken` of the `repository` with this id. Raises BucketError."""
    now = time.time()
    index = Index(
        settings["deployment"],
        repository,
        taken["transaction"],
        next_number(there, memory),
        moment(now),
        {path: Stored(of.version, of.size, of.sha256) for path, of in held.items()},
    )
    begun_anew = of_another(there, memory, repository, settings["keepDays"])
    if begun_anew is not None:
        locks.problems.append(begun_anew)
    key = index_key(index.made, index.transaction)
    packed = pack_index(index)
    # Before it is there: whoever looks at the bucket meanwhile, or after a kill, must know it for this machine's.
    memory.written = {"key": key, "sha256": hashlib.sha256(packed).hexdigest()}
    memory.save()
    version = there.put(key, packed)
    lock = there.head(key, version)
    memory.held = held
    memory.copy = {
        "key": key,
        "version": version,
        "until": locks.end_of(lock),
        "mode": lock["mode"],
        "number": index.number,
        "transaction": index.transaction,
        "settled": taken["settled"],
        "fingerprint": held["config"].sha256,
        "repository": index.repository,
        "madeAt": round(now),
        "size": index.size,
    }
    memory.written = None
    memory.save()
    if locks.default is not None and locks.default["days"] and lock["until"] is None:
        locks.problems.append(f"the bucket {settings['bucket']} doesn't lock what is written to it")
    locks.keep(there, memory)
    say(f"copy {index.number} is finished: {key}, {len(held)} files, {megabytes(index.size)}")


def next_number(there: Bucket, memory: Memory) -> int:
    """The number of the copy that comes now. None is given twice: an index of a run that was killed may be there with
    the number after the last one's."""
    if memory.copy is not None:
        return memory.copy["number"] + (1 if memory.written is None else 2)
    copies = copies_in(there)
    last = 0
    with contextlib.suppress(ValueError, ObjectRefused):
        for newest in copies[:1]:
            last = read_index(there, newest).number
    # Whoever has the key can put any number there. And of those that were, retention has removed some.
    return 1 + max(len(copies), last if last < LARGEST_NUMBER - 1 else 0)


def of_another(there: Bucket, memory: Memory, repository: str, keep_days: int) -> str | None:
    """What to tell when the copies so far are of another repository: nothing lengthens their locks any more."""
    if memory.copy is not None:
        before = memory.copy["repository"]
    else:
        before = repository
        with contextlib.suppress(ValueError, ObjectRefused):
            for newest in copies_in(there)[:1]:
                before = read_index(there, newest).repository
    if before == repository:
        return None
    return (
        f"the newest copies in the bucket are of another repository ({before[:16]}…) than what is here now: it"
        " was begun anew, or another was put in its place. Those copies stay, but nothing lengthens their locks"
        f" any more, and the first of them end in {keep_days} days. To put that repository"
        " back: docs/restore.md, 8"
    )
