"""Upload what the bucket doesn't have."""

from __future__ import annotations

import os
import time
from typing import Any

from chtbackup.base.text import megabytes, say
from chtbackup.bucket.client import Bucket, put_arguments
from chtbackup.bucket.errors import BucketError, ObjectRefused
from chtbackup.bucket.locks import Locks
from chtbackup.bucket.multipart import put_in_parts
from chtbackup.bucket.pace import Outgoing, Pace
from chtbackup.bucket.parallel import in_parallel
from chtbackup.bucket.plan import FOLDER, WHOLE, Held, Known, NoCopy, batches
from chtbackup.bucket.present import look_up
from chtbackup.bucket.report import Progress
from chtbackup.bucket.snapshot_files import still_here

PAUSE = 5  # seconds before what didn't arrive is tried again
MANY_FAILURES = 5  # files that didn't arrive, after which an upload is begun anew


class Upload:
    """The uploads of one run."""

    def __init__(self, settings: dict[str, Any], snapshot: str, locks: Locks) -> None:
        self.settings, self.snapshot, self.locks = settings, snapshot, locks
        self.takes_locks: bool | None = None
        """Whether the bucket lets this key set the lock with the upload; None: not known yet."""
        self.files = self.bytes = 0

    def run(
        self, there: Bucket, files: dict[str, Known], missing: list[str], before: dict[str, Held]
    ) -> dict[str, Held]:
        """Upload what is missing, and return what the bucket has of it then; `before` is the last copy. Raises NoCopy
        when something never arrives."""
        say(f"{len(missing)} of {len(files)} files are new: {megabytes(sum(files[path].size for path in missing))}")
        held: dict[str, Held] = {}
        while True:
            reasons = self.send_all(there, {path: files[path] for path in missing}, held)
            wanted, missing = missing, [path for path in missing if path not in held]
            if missing:
                # What arrived although the answer didn't.
                found, _missing = look_up(there, {path: files[path] for path in missing}, before)
                held |= {path: Held(of.id, of.size, files[path].sha256, None) for path, of in found.items()}
                missing = [path for path in missing if path not in held]
            arrived = [path for path in wanted if path in held]
            self.files += len(arrived)
            self.bytes += sum(files[path].size for path in arrived)
            if not missing:
                return held
            reason = reasons[0].removeprefix(f"the bucket {there.where}: ")
            if not arrived:
                raise NoCopy(
                    f"the bucket {there.where}: {len(missing)} files didn't arrive, {missing[0]} for one: {reason}."
                    " What arrived is kept; the next run goes on"
                )
            say(f"{len(missing)} files haven't arrived yet ({reason}); going on")
            time.sleep(PAUSE)

    def send_all(self, there: Bucket, files: dict[str, Known], held: dict[str, Held]) -> list[str]:
        """Upload files, and note in `held` what the bucket has taken. Returns why it didn't take others. Raises
        NoCopy when the snapshot has lost one."""
        pace = Pace(self.settings["uploadRate"], Progress("uploaded", sum(of.size for of in files.values())))
        large, small, rest = batches(files, files)
        reasons: list[str] = []

        def send(path: str) -> None:
            # Each of the others would be tried as often, which takes hours where the network is cut.
            if len(reasons) >= MANY_FAILURES:
                return
            try:
                rare = self.settings["storageClass"] if path in segments else None
                held[path] = self.send(there, path, files[path], rare, pace)
            except BucketError as error:
                reasons.append(str(error))

        segments, ordered = set(large), [*large, *small, *rest]
        # The parts of one go side by side.
        for path in [path for path in ordered if files[path].size >= WHOLE]:
            send(path)
        in_parallel(send, [path for path in ordered if files[path].size < WHOLE], pace.stop.set)
        return reasons

    def send(self, there: Bucket, path: str, of: Known, storage_class: str | None, pace: Pace) -> Held:
        """Upload one file with a lock of its own: the answer names the version, so nothing has to be looked up. Raises
        BucketError, NoCopy."""
        lock = None if self.takes_locks is False else self.locks.of_upload()
        with still_here(path), open(os.path.join(self.snapshot, path), "rb") as file:

            def put(lock: tuple[str, float] | None) -> str:
                file.seek(0)
                how = put_arguments(lock, storage_class)
                if of.size >= WHOLE:
                    return put_in_parts(there, FOLDER + path, file, of, how, pace)
                return there.send(FOLDER + path, Outgoing(file, pace), bytes.fromhex(of.etag), how)

            try:
                version = put(lock)
                self.takes_locks = lock is not None
            except ObjectRefused:
                if lock is None or self.takes_locks:
                    raise
                # Such as by a policy that doesn't allow locks as long: the bucket's own default is what counts.
                version, lock = put(None), None
                self.takes_locks = False
        mode, until = lock or (None, None)
        return Held(version, of.size, of.sha256, until, mode)
