"""Upload a large file in parts, some at a time."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from typing import Any, BinaryIO

from chtbackup.bucket.client import Bucket, content_md5
from chtbackup.bucket.errors import BucketError
from chtbackup.bucket.pace import Outgoing, Pace
from chtbackup.bucket.parallel import in_parallel
from chtbackup.bucket.plan import PART, Known, etag_of_parts


def put_in_parts(there: Bucket, path: str, file: BinaryIO, of: Known, how: dict[str, Any], pace: Pace) -> str:
    """Upload a file and return its version; `how` are arguments of boto3 such as the lock. As many parts as there are
    threads are in memory. Whatever keeps it from its end, the parts so far are removed: no list of the bucket shows
    them, and they are paid for. Raises BucketError."""
    key = {"Key": there.prefix + path}
    upload = {**key, "UploadId": there.ask("create_multipart_upload", **key, **how)["UploadId"]}

    def send(number: int) -> tuple[str, bytes]:
        block = os.pread(file.fileno(), PART, (number - 1) * PART)
        md5 = hashlib.md5(block, usedforsecurity=False).digest()
        body = Outgoing(io.BytesIO(block), pace)
        done = there.ask("upload_part", **upload, PartNumber=number, Body=body, ContentMD5=content_md5(md5))
        return done["ETag"], md5

    try:
        numbers = range(1, -(-of.size // PART) + 1)
        sent = in_parallel(send, numbers, pace.stop.set)
        # Each part arrived as it was sent, by its md5; together they must be what was read before.
        if etag_of_parts([md5 for _etag, md5 in sent]) != of.etag:
            raise BucketError(f"{path} reads otherwise than a moment ago: look at the server's disk and memory")
        parts = [{"PartNumber": number, "ETag": etag} for number, (etag, _md5) in zip(numbers, sent, strict=True)]
        return there.version_of(
            path, there.ask("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        )
    except BaseException:
        # A policy of before has no such right: the bucket's own rule for unfinished uploads removes them then.
        with contextlib.suppress(BucketError):
            there.ask("abort_multipart_upload", **upload)
        raise
    finally:
        pace.stop.clear()
