"""What is sent to a bucket, at the pace that the settings allow."""

from __future__ import annotations

import threading
import time
from typing import BinaryIO

from chtbackup.base.errors import Stopped
from chtbackup.bucket.errors import BucketError
from chtbackup.bucket.report import Progress

STANDSTILL = 300  # seconds without a further byte, after which an upload is given up


class Pace:
    """What all uploads share: their rate in KiB/s, 0 for none, their progress, and whether they are to stop."""

    def __init__(self, rate: int, progress: Progress) -> None:
        self.rate, self.progress = rate * 1024, progress
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.free_at = 0.0
        """From when on more may be sent."""

    def step(self, size: int) -> None:
        """So many bytes go out now; of those of an attempt that failed, the negative of it. Waits as long as the rate
        asks for. Raises Stopped, which is no error that boto3 would try again."""
        with self.lock:
            self.progress.step(size)
            now = time.monotonic()
            wait = 0.0
            if self.rate and size > 0:
                self.free_at = max(self.free_at, now) + size / self.rate
                wait = self.free_at - now
        if self.stop.wait(wait):
            raise Stopped("another upload's end")


class Outgoing:
    """A file as the body of a request. boto3 reads it to sign it, too, and begins again at its start when an attempt
    has failed: only what is read between `begin` and the next `seek` is sent."""

    def __init__(self, file: BinaryIO, pace: Pace) -> None:
        self.file, self.pace = file, pace
        self.sending = False
        self.sent = self.most = 0
        self.moved: float | None = None

    def begin(self) -> None:
        """An attempt to send it begins. Raises BucketError when those before got no further for long."""
        now = time.monotonic()
        if self.moved is None:
            self.moved = now
        if now - self.moved > STANDSTILL:
            raise BucketError(f"nothing has moved for {now - self.moved:.0f} s")
        self.sending = True

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        if self.sending and block:
            self.sent += len(block)
            if self.sent > self.most:
                self.most, self.moved = self.sent, time.monotonic()
            self.pace.step(len(block))
        return block

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        self.pace.step(-self.sent)
        self.sending, self.sent = False, 0
        return self.file.seek(offset, whence)
