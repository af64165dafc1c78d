"""The index of a copy: which version of which object holds which file."""

from __future__ import annotations

import datetime
import gzip
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from chtbackup.bucket.errors import BucketError

# What of an index isn't paths and versions, in bytes: of each entry, with a size of up to a terabyte, and of the rest.
LARGEST_ENTRY, LARGEST_HEAD = 124, 400

PRINTED = {
    "deployment": re.compile(r"[a-z][a-z0-9-]{0,30}"),
    "repository": re.compile(r"[0-9a-f]{64}"),
    "made": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII),
}

FORMAT = 1
# What borg has in a repository. Names of an index come from the bucket, so nothing else may become a path.
PATH = re.compile(
    r"data/\d{1,10}/\d{1,10}|(?:index|hints|integrity)\.\d{1,10}|config|nonce|README|transactions", re.ASCII
)
INDEX_KEY = re.compile(r"index/\d{8}T\d{6}Z-\d{1,10}\.json\.gz", re.ASCII)
# Bytes, packed and unpacked: 200,000 files. What somebody else puts there takes 25 times as much memory at most.
LARGEST_INDEX = 32 * 1024 * 1024
LARGEST_NUMBER = 2**63


@dataclass(frozen=True)
class Stored:
    """A file of the repository as an index names it. `size` is in bytes, `sha256` in hexadecimal."""

    version: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """A finished copy."""

    deployment: str
    repository: str
    """borg's id of the repository."""
    transaction: int
    """borg's number of the state that was copied."""
    number: int
    """Counts the copies of a deployment, from 1."""
    made: str
    """When, by the server's clock, `2026-11-22T03:00:00Z`. A restore goes by the bucket's clock."""
    objects: dict[str, Stored] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(of.size for of in self.objects.values())


def index_size(paths: Iterable[str], version: int) -> int:
    """How many bytes an index of these paths takes unpacked at most; `version` is the length of a version's name."""
    return sum(len(path) + version + LARGEST_ENTRY for path in paths) + LARGEST_HEAD


def pack_index(index: Index) -> bytes:
    """Raises BucketError for an index that would be too large to be read again."""
    content = {
        "format": FORMAT,
        "deployment": index.deployment,
        "repository": index.repository,
        "transaction": index.transaction,
        "number": index.number,
        "made": index.made,
        "objects": {
            path: {"version": of.version, "size": of.size, "sha256": of.sha256}
            for path, of in sorted(index.objects.items())
        },
    }
    text = json.dumps(content, indent=0).encode()
    if len(text) > LARGEST_INDEX:
        raise BucketError(
            f"the repository has {len(index.objects)} files, more than an index of a copy may name: run borg compact"
        )
    return gzip.compress(text, mtime=0)


def made_at(made: str) -> float:
    """An index's `made` in seconds since 1970. Raises ValueError for what is no time."""
    time_ = datetime.datetime.strptime(made, "%Y-%m-%dT%H:%M:%SZ")
    return time_.replace(tzinfo=datetime.timezone.utc).timestamp()


def unpack_index(packed: bytes) -> Index:
    """Read an index. It may be forged, so every field is looked at. Raises ValueError with the reason."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(packed, LARGEST_INDEX)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise ValueError("it is cut off or too large")
        content = json.loads(text)
    except (zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it can't be unpacked: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it is not an index of format {FORMAT}")
    for name, kind in (("deployment", str), ("repository", str), ("made", str), ("transaction", int), ("number", int)):
        if type(content.get(name)) is not kind:
            raise ValueError(f"its {name} is missing or of another kind")
    # These are printed, and text from the bucket may be anything, such as a terminal's commands.
    for name, right in PRINTED.items():
        if not right.fullmatch(content[name]):
            raise ValueError(f"its {name} is {content[name][:80]!r}")
    for name in ("transaction", "number"):
        if not 0 <= content[name] < LARGEST_NUMBER:
            raise ValueError(f"its {name} is out of range")
    made_at(content["made"])
    listed = content.get("objects")
    if not isinstance(listed, dict):
        raise ValueError("its objects are missing")
    objects = {}
    for path, of in listed.items():
        if not PATH.fullmatch(path):
            raise ValueError(f"it names {path[:80]!r}, which is no file of a repository")
        stored = Stored(**of) if isinstance(of, dict) and set(of) == {"version", "size", "sha256"} else None
        if (
            stored is None
            or not isinstance(stored.version, str)
            or type(stored.size) is not int
            or not 0 <= stored.size < LARGEST_NUMBER
            or not re.fullmatch(r"[0-9a-f]{64}", str(stored.sha256))
        ):
            raise ValueError(f"its entry for {path} is wrong")
        objects[path] = stored
    transaction = content["transaction"]
    needed = {"config", f"index.{transaction}"}
    if not needed <= objects.keys() or not any(path.startswith("data/") for path in objects):
        raise ValueError("it lacks files that every repository has")
    return Index(content["deployment"], content["repository"], transaction, content["number"], content["made"], objects)


def index_key(made: str, transaction: int) -> str:
    return f"index/{re.sub('[-:]', '', made)}-{transaction}.json.gz"


def absent(index: Index, listing: Listing) -> list[str]:
    """Paths of an index whose version isn't in the bucket, or has another size there."""
    return [
        path
        for path, of in index.objects.items()
        if (version := listing.find(path, of.version)) is None or version.size != of.size
    ]


@dataclass(frozen=True)
class Version:
    """One version of one object."""

    path: str
    """Below the prefix that was listed."""
    id: str
    size: int
    etag: str
    modified: float
    """When the bucket received it, by the bucket's clock, in seconds since 1970."""
    latest: bool


@dataclass(frozen=True)
class Listing:
    """All versions under a prefix, by path, the newest first; and the paths that a delete marker hides."""

    versions: dict[str, list[Version]]
    hidden: set[str]

    def find(self, path: str, version: str) -> Version | None:
        return next((of for of in self.versions.get(path, []) if of.id == version), None)
