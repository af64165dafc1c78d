"""What the bucket has already, by its own list."""

from __future__ import annotations

import functools
from collections.abc import Callable

from chtbackup.bucket.client import Bucket
from chtbackup.bucket.errors import ObjectRefused
from chtbackup.bucket.index import Listing, Version
from chtbackup.bucket.plan import FOLDER, Held, Known, is_md5, match


def look_up(there: Bucket, files: dict[str, Known], held: dict[str, Held]) -> tuple[dict[str, Version], list[str]]:
    """The bucket's version of each file, and the files that it doesn't have; `held` is the last copy."""
    listing = there.versions(FOLDER, lambda of: of.path in files and of.size == files[of.path].size)
    return match(files, held, listing, reader_back(there, files, held, listing))


def reader_back(
    there: Bucket, files: dict[str, Known], held: dict[str, Held], listing: Listing
) -> Callable[[Version], str] | None:
    """Where the bucket doesn't show md5 (encryption by a KMS key), how to tell by reading. None where it does. The last
    copy's own versions (`held`) tell, the newest first; without one, others of the right size, which somebody may have
    made unreadable."""

    def read(of: Version) -> str:
        try:
            return there.checksum(FOLDER + of.path, of.id)
        except ObjectRefused:
            return "unreadable"  # so it isn't the same

    if any(
        path in held and of.id == held[path].version and of.etag == files[path].etag
        for path in files
        for of in listing.versions.get(path, [])
    ):
        return None
    candidates = sorted(
        (of for path in files for of in listing.versions.get(path, [])),
        key=lambda of: (of.path in held and held[of.path].version == of.id, of.modified),
        reverse=True,
    )
    for newest in candidates[:5]:
        try:
            encryption = there.head(FOLDER + newest.path, newest.id)["encryption"] or ""
        except ObjectRefused:
            continue
        if not encryption.startswith("aws:kms") and is_md5(newest.etag):
            return None
        return functools.cache(read)
    return functools.cache(read) if candidates else None
