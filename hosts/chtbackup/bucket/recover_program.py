"""The programs for a recovery, kept in the bucket: a recovery kit on paper fetches them from there."""

from __future__ import annotations

from chtbackup.base import pack
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.errors import BucketError, ObjectRefused
from chtbackup.bucket.locks import Locks
from chtbackup.bucket.memory import Memory


def keep_program(there: Bucket, memory: Memory, locks: Locks) -> None:
    """Put these programs into the bucket as one file, once. Its name carries its sum, so an earlier one stays for the
    kit that was printed for it. What can't be put there is a problem of its own."""
    try:
        wanted = pack.program()
        if wanted.name in memory.programs:
            return
        lock = locks.of_upload()
        try:
            version = there.put(wanted.name, wanted.content, lock)
        except ObjectRefused:
            # A policy may not allow locks as long: then the bucket's default, which is looked up and lengthened.
            lock = None
            version = there.put(wanted.name, wanted.content)
    except (OSError, BucketError) as error:
        locks.problems.append(f"the program for a recovery can't be put into the bucket: {error}")
        return
    mode, until = lock or (None, None)
    memory.programs[wanted.name] = {"version": version, "until": until, "mode": mode}
    memory.save()
