"""What retention has to know of a bucket: every copy in it, and every version of a file.

It may be looked at several times; what was read of an index is kept in between, as versions don't change. A copy in
memory is a bit for each file that it names, so thousands of copies of a large repository are some megabytes.
"""

from __future__ import annotations

import dataclasses
import email.utils
from collections.abc import Callable, Iterable

from chtbackup.base.errors import Refused
from chtbackup.bucket.client import Bucket
from chtbackup.bucket.copies import packed_index
from chtbackup.bucket.errors import ObjectRefused
from chtbackup.bucket.index import INDEX_KEY, Index, Version, made_at, unpack_index
from chtbackup.bucket.keeping import Copy, Piece
from chtbackup.bucket.parallel import THREADS, in_parallel
from chtbackup.bucket.plan import FOLDER

INDEXES = "index/"


class Inventory:
    """`copies` and `pieces` as of the last look, and `now` by the bucket's clock then. `progress` gets lines for the
    operator."""

    def __init__(self, there: Bucket, progress: Callable[[str], None]) -> None:
        self.there, self.progress = there, progress
        self.copies: list[Copy] = []
        self.pieces: list[Piece] = []
        self.now = 0.0
        self._places: dict[tuple[str, str, int], int] = {}
        self._read: dict[tuple[str, str], Copy] = {}

    def look(self) -> None:
        """Raises BucketError, and Refused where the bucket doesn't say what time it is."""
        self.pieces = []
        # Indexes first: all that one names was there before it.
        indexes = [of for of in self._listed(INDEXES) if INDEX_KEY.fullmatch(INDEXES + of.path)]
        self._listed(FOLDER)
        there = sum_of_bits(of.place for of in self.pieces)
        new = [of for of in indexes if (INDEXES + of.path, of.id) not in self._read]
        for start in range(0, len(new), THREADS):
            if start:
                self.progress(f"{start} of {len(new)} copies looked into")
            some = new[start : start + THREADS]
            for of, packed in zip(some, in_parallel(self._fetched, some), strict=True):
                copy = self._copy(of, packed)
                self._read[copy.id] = copy
        known = [self._read[INDEXES + of.path, of.id] for of in indexes]
        self.copies = [dataclasses.replace(of, lacks=of.lacks + bin(of.names & ~there).count("1")) for of in known]

    def _listed(self, folder: str) -> list[Version]:
        """What is under a folder; all but indexes is noted as pieces."""
        found = []
        root = self.there.prefix + folder
        for page in self.there.pages(folder):
            date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
            try:
                self.now = email.utils.parsedate_to_datetime(date).timestamp()
            except (TypeError, ValueError):
                raise Refused(f"the bucket {self.there.where} doesn't say what time it is") from None
            for of in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                path, marker = of["Key"].removeprefix(root), "Size" not in of
                size, at = 0 if marker else of["Size"], of["LastModified"].timestamp()
                if folder == INDEXES and not marker and INDEX_KEY.fullmatch(INDEXES + path):
                    found.append(Version(path, of["VersionId"], size, of["ETag"].strip('"'), at, of["IsLatest"]))
                    continue
                name = (folder + path, of["VersionId"], size)
                place = self._places.setdefault(name, len(self._places))
                self.pieces.append(Piece(place, *name, at))
        return found

    def _fetched(self, of: Version) -> bytes | str:
        """An index as it is stored, or why it can't be read."""
        try:
            return packed_index(self.there, of)
        except (ValueError, ObjectRefused) as error:
            return str(error)

    def _copy(self, of: Version, packed: bytes | str) -> Copy:
        key = INDEXES + of.path
        try:
            index = unpack_index(packed) if isinstance(packed, bytes) else packed
        except ValueError as error:
            index = str(error)
        if not isinstance(index, Index):
            return Copy(key, of.id, of.modified, of.etag, index)
        named = [(FOLDER + path, each.version, each.size) for path, each in index.objects.items()]
        places = [self._places[name] for name in named if name in self._places]
        return Copy(
            key, of.id, of.modified, of.etag, None, index.deployment, index.repository, index.number, index.transaction,
            made_at(index.made), index.size, len(named) - len(places), sum_of_bits(places),
        )  # fmt: skip


def sum_of_bits(places: Iterable[int]) -> int:
    """A number in which the bits at these places are set."""
    places = list(places)
    bits = bytearray(max(places, default=0) // 8 + 1)
    for place in places:
        bits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(bits, "little")
