"""The finished copies in a bucket: their indexes."""

from __future__ import annotations

from chtbackup.bucket.client import Bucket
from chtbackup.bucket.index import INDEX_KEY, LARGEST_INDEX, Index, Version, unpack_index


def copies_in(there: Bucket) -> list[Version]:
    """Every version of every index, the newest first by the bucket's clock."""
    listed = [
        of
        for path, found in there.versions("index/").versions.items()
        if INDEX_KEY.fullmatch(f"index/{path}")
        for of in found
    ]
    return sorted(listed, key=lambda of: (of.modified, of.path), reverse=True)


def packed_index(there: Bucket, of: Version) -> bytes:
    """An index as it is stored. Raises ValueError for what is too large to be one, ObjectRefused, BucketError."""
    if of.size > LARGEST_INDEX:
        raise ValueError(f"it is too large: {of.size} bytes")
    return b"".join(there.read(f"index/{of.path}", of.id))


def read_index(there: Bucket, of: Version) -> Index:
    """Raises ValueError for what is no index, ObjectRefused, BucketError."""
    return unpack_index(packed_index(there, of))
