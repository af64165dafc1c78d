"""A bucket that holds copies of a borg repository: the way to it, what it holds, and the index of a copy.

Used by bucket_copy.py on the offsite server and by bucket_fetch.py on a machine that restores. It works with the
boto3 of Debian 12 and Ubuntu 24.04 and newer. Nothing in here deletes anything.

Under the bucket's prefix there are `repository/PATH`, the repository's files, and `index/TIME-TRANSACTION.json.gz`,
an index for each finished copy. Names can be written over in a bucket with versioning, versions can't: an index
names the version, size and checksum of every file, so it keeps its meaning whatever comes after it.
"""

from __future__ import annotations

import base64
import concurrent.futures
import configparser
import datetime
import gzip
import hashlib
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1
# What borg has in a repository. Names of an index come from the bucket, so nothing else may become a path.
PATH = re.compile(
    r"data/\d{1,10}/\d{1,10}|(?:index|hints|integrity)\.\d{1,10}|config|nonce|README|transactions", re.ASCII
)
INDEX_KEY = re.compile(r"index/\d{8}T\d{6}Z-\d{1,10}\.json\.gz", re.ASCII)
# Bytes, packed and unpacked: 200,000 files. What somebody else puts there takes 25 times as much memory at most.
LARGEST_INDEX = 32 * 1024 * 1024
LARGEST_NUMBER = 2**63
# What of an index isn't paths and versions, in bytes: of each entry, with a size of up to a terabyte, and of the rest.
LARGEST_ENTRY, LARGEST_HEAD = 124, 400
THREADS = 8
ATTEMPTS = 8
CONNECT_TIMEOUT, READ_TIMEOUT = 15, 60  # seconds
BLOCK = 1024 * 1024


class BucketError(Exception):
    """The bucket can't be used. The text is one line for the operator."""


class ObjectRefused(BucketError):
    """The bucket answers, but doesn't give this one object: it is gone, archived, or encrypted by a foreign key. The
    others may be all right."""


def moment(time_: float) -> str:
    return datetime.datetime.fromtimestamp(time_, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- what a bucket holds ------------------------------------------------------------------------------


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


PRINTED = {
    "deployment": re.compile(r"[a-z][a-z0-9-]{0,30}"),
    "repository": re.compile(r"[0-9a-f]{64}"),
    "made": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII),
}


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


# ---- the way to it ------------------------------------------------------------------------------------


def read_credentials(path: str) -> dict[str, str]:
    """Arguments for boto3 from a file as the AWS command line tool has it (`[default]`, `aws_access_key_id = …`).
    Raises BucketError, without a word of the file's content."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
        section = parser["default"]
        found = {name: section[name] for name in ("aws_access_key_id", "aws_secret_access_key")}
        if section.get("aws_session_token"):
            found["aws_session_token"] = section["aws_session_token"]
        return found
    except OSError as error:
        raise BucketError(f"the bucket's credentials {path} can't be read: {error.strerror}") from error
    except (KeyError, configparser.Error, UnicodeDecodeError):
        raise BucketError(
            f"{path}: must have [default] with aws_access_key_id and aws_secret_access_key"
        ) from None  # the parser's error quotes the line


def _session_of_the_machine() -> Any:
    """Requests as the machine's role, whose keys change every few hours and lie in no file. Whatever else boto3 looks
    for, in variables and in somebody's home, is passed over."""
    import boto3
    import botocore.session
    from botocore.credentials import CredentialResolver

    session = botocore.session.Session()
    # Soon after a start the machine's metadata may not be there yet.
    session.set_config_variable("metadata_service_num_attempts", 5)
    role = session.get_component("credential_provider").get_provider("iam-role")
    session.register_component("credential_provider", CredentialResolver([role]))
    return boto3.Session(botocore_session=session)


def _date(time_: float) -> datetime.datetime:
    # Whole seconds: the end of a day at AWS is compared with what was asked for.
    return datetime.datetime.fromtimestamp(int(time_), datetime.timezone.utc)


class Bucket:
    """A bucket under one prefix.

    `place` has `bucket`, `prefix` (empty or ending in `/`), `region`, `endpoint` (None: AWS) and `pathStyle`;
    `credentials` are boto3's own arguments (empty: the machine's role). Every method raises BucketError.
    """

    def __init__(self, place: dict[str, Any], credentials: dict[str, str]) -> None:
        # Servers other than AWS don't know the checksums that newer versions of boto3 add to every request.
        # A boto3 that is older than these options passes over the variables.
        os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
        os.environ["AWS_RESPONSE_CHECKSUM_VALIDATION"] = "when_required"
        # Here, so that what needs no bucket, such as the moment under borg's lock, doesn't wait for it.
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        self._errors = (BotoCoreError, ClientError)
        self.name: str = place["bucket"]
        self.prefix: str = place["prefix"]
        self.where = f"{self.name} at {place['endpoint'] or 'AWS ' + place['region']}"
        self.requests = 0
        self._counting = threading.Lock()
        try:
            session = boto3.Session() if credentials else _session_of_the_machine()
            self._client = session.client(
                "s3",
                endpoint_url=place["endpoint"],
                region_name=place["region"],
                config=Config(
                    connect_timeout=CONNECT_TIMEOUT,
                    read_timeout=READ_TIMEOUT,
                    max_pool_connections=THREADS,
                    retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                    s3={"addressing_style": "path" if place["pathStyle"] else "auto"},
                ),
                **credentials,
            )
        except (*self._errors, ValueError) as error:
            raise BucketError(f"the bucket {self.where}: {error}") from error
        self._client.meta.events.register("before-send.s3", self._count)

    def _count(self, **_event: Any) -> None:
        with self._counting:
            self.requests += 1

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            return getattr(self._client, operation)(Bucket=self.name, **arguments)
        except self._errors as error:
            kind = ObjectRefused if "Key" in arguments and is_about_object(error) else BucketError
            raise kind(f"the bucket {self.where}: {explain(error)}") from error

    def describe(self) -> dict[str, Any]:
        """The settings that protect what is in it: `versioning` (bool), `lock` (None, or `mode` and `days`, None
        where there is no default), `publicAccessBlock` (the four switches; None where the server has none)."""
        versioning = self._ask("get_bucket_versioning").get("Status") == "Enabled"
        return {"versioning": versioning, "lock": self._lock(), "publicAccessBlock": self._public_access_block()}

    def _lock(self) -> dict[str, Any] | None:
        try:
            found = self._client.get_object_lock_configuration(Bucket=self.name)["ObjectLockConfiguration"]
        except self._errors as error:
            if code_of(error) in ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"):
                return None
            raise BucketError(f"the bucket {self.where}: {explain(error)}") from error
        if found.get("ObjectLockEnabled") != "Enabled":
            return None
        default = found.get("Rule", {}).get("DefaultRetention", {})
        days = default.get("Days") or (default["Years"] * 365 if default.get("Years") else None)
        return {"mode": default.get("Mode"), "days": days}

    def _public_access_block(self) -> dict[str, bool] | None:
        try:
            found = self._client.get_public_access_block(Bucket=self.name)["PublicAccessBlockConfiguration"]
        except self._errors as error:
            code = code_of(error)
            if code in ("NotImplemented", "MethodNotAllowed"):
                return None
            if code != "NoSuchPublicAccessBlockConfiguration":
                raise BucketError(f"the bucket {self.where}: {explain(error)}") from error
            found = {}
        names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        return {name: bool(found.get(name)) for name in names}

    def versions(self, folder: str, keep: Callable[[Version], bool] = lambda _of: True) -> Listing:
        """What to `keep` of everything under a folder such as `repository/`: one request for a thousand versions.
        Whoever has the writer's key can put any number there, so it should be no more than is needed."""
        versions: dict[str, list[Version]] = {}
        hidden: set[str] = set()
        root = f"{self.prefix}{folder}"
        position: dict[str, str] = {}
        while True:
            page = self._ask("list_object_versions", Prefix=root, **position)
            for of in page.get("Versions", []):
                path = of["Key"].removeprefix(root)
                version = Version(
                    path, of["VersionId"], of["Size"], of["ETag"].strip('"'), of["LastModified"].timestamp(),
                    of["IsLatest"],
                )  # fmt: skip
                if keep(version):
                    versions.setdefault(path, []).append(version)
            hidden |= {of["Key"].removeprefix(root) for of in page.get("DeleteMarkers", []) if of["IsLatest"]}
            if not page.get("IsTruncated"):
                break
            position = {"KeyMarker": page["NextKeyMarker"]}
            if page.get("NextVersionIdMarker"):
                position["VersionIdMarker"] = page["NextVersionIdMarker"]
        for found in versions.values():
            # Seconds are all that some servers keep: within one, the order of the answer decides.
            found.sort(key=lambda of: (not of.latest, -of.modified))
        return Listing(versions, hidden)

    def head(self, path: str, version: str) -> dict[str, Any]:
        """`mode` and `until` (seconds since 1970) of a version's lock, None without; `encryption`."""
        of = self._ask("head_object", Key=self.prefix + path, VersionId=version)
        until = of.get("ObjectLockRetainUntilDate")
        return {
            "mode": of.get("ObjectLockMode"),
            "until": until.timestamp() if until else None,
            "encryption": of.get("ServerSideEncryption"),
        }

    def read(self, path: str, version: str) -> Iterator[bytes]:
        """The content of a version, in blocks. Where the connection breaks it goes on from there, as a version
        doesn't change; `ATTEMPTS` times at most."""
        done = broken = 0
        while True:
            rest = {"Range": f"bytes={done}-"} if done else {}
            answer = self._ask("get_object", Key=self.prefix + path, VersionId=version, **rest)
            # A server that doesn't know ranges sends all of it again.
            skip = 0 if "ContentRange" in answer else done
            body = answer["Body"]
            try:
                for block in body.iter_chunks(BLOCK):
                    new = block[skip:]
                    skip -= len(block) - len(new)
                    if new:
                        done += len(new)
                        yield new
                return
            except Exception as error:  # botocore's, urllib3's and the system's: the connection broke
                broken += 1
                if broken == ATTEMPTS:
                    raise BucketError(f"the bucket {self.where}: {path} broke off: {first_line(error)}") from error
            finally:
                body.close()
            time.sleep(broken)

    def checksum(self, path: str, version: str) -> str:
        """sha256 of a version's content, read back."""
        digest = hashlib.sha256()
        for block in self.read(path, version):
            digest.update(block)
        return digest.hexdigest()

    def put(self, path: str, content: bytes, lock: tuple[str, float] | None = None) -> str:
        """Write a small object and return its version; `lock` is a mode and an end, None: the bucket's default."""
        # A bucket with a lock takes nothing without a checksum.
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        locked = {} if lock is None else {"ObjectLockMode": lock[0], "ObjectLockRetainUntilDate": _date(lock[1])}
        done = self._ask(
            "put_object", Key=self.prefix + path, Body=content, ContentMD5=base64.b64encode(digest).decode(), **locked
        )
        if not done.get("VersionId"):
            raise BucketError(f"the bucket {self.where} gave {path} no version: its versioning is off")
        return done["VersionId"]

    def lengthen(self, path: str, version: str, mode: str, until: float) -> None:
        """Lock a version until a time. A lock that is longer already stays: the bucket refuses then."""
        self._ask(
            "put_object_retention", Key=self.prefix + path, VersionId=version,
            Retention={"Mode": mode, "RetainUntilDate": _date(until)},
        )  # fmt: skip


def copies_in(there: Bucket) -> list[Version]:
    """Every version of every index, the newest first by the bucket's clock."""
    listed = [
        of
        for path, found in there.versions("index/").versions.items()
        if INDEX_KEY.fullmatch(f"index/{path}")
        for of in found
    ]
    return sorted(listed, key=lambda of: (of.modified, of.path), reverse=True)


def read_index(there: Bucket, of: Version) -> Index:
    """Raises ValueError for what is no index, ObjectRefused, BucketError."""
    if of.size > LARGEST_INDEX:
        raise ValueError(f"it is too large: {of.size} bytes")
    return unpack_index(b"".join(there.read(f"index/{of.path}", of.id)))


def in_parallel(
    action: Callable[[Any], Any], items: Iterable[Any], on_end: Callable[[], None] | None = None
) -> list[Any]:
    """The results of an action on each item, in order. The first error ends it, as does a signal: what has begun is
    waited for then, and `on_end` is called before, to tell it."""
    pool = concurrent.futures.ThreadPoolExecutor(THREADS)
    try:
        futures = [pool.submit(action, item) for item in items]
        return [future.result() for future in futures]
    except BaseException:
        if on_end is not None:
            on_end()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# ---- what went wrong ----------------------------------------------------------------------------------


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def code_of(error: Any) -> str:
    """The server's own code, such as `NoSuchBucket`; of others the exception's name."""
    response = getattr(error, "response", None)
    return str(response["Error"].get("Code", "")) if isinstance(response, dict) else type(error).__name__


REASONS = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key doesn't belong to the access key",
    "ExpiredToken": "the credentials have expired",
    "NoCredentialsError": "there are no credentials, and this machine has no role that gives some",
    "AccessDenied": "the key is refused: it lacks this right, or the bucket's name is wrong",
    "403": "the key is refused: it lacks this right, or the bucket's name is wrong",
    "404": "it isn't there",
    "NoSuchKey": "it isn't there",
    "NoSuchVersion": "this version isn't there",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it (timedatectl)",
    "PermanentRedirect": "the bucket is in another region",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
    "IllegalLocationConstraintException": "the bucket is in another region",
    "SlowDown": "it asks to slow down, and still does after several attempts",
    "ServiceUnavailable": "it is out of service, and still is after several attempts",
    "InternalError": "it has an error of its own, and still has after several attempts",
    "InvalidObjectState": "an object is in an archive class, and must be brought back from there first",
    "InvalidRequest": "it refuses the request",
    "EndpointConnectionError": "it can't be reached",
    "ConnectTimeoutError": "it can't be reached: no answer",
    "ReadTimeoutError": "it doesn't answer in time",
    "ConnectionClosedError": "it breaks off the connection",
    "SSLError": "its certificate isn't trusted",
    "ProxyConnectionError": "the proxy can't be reached",
    "QuotaExceeded": "its quota is used up",
}


# What the bucket would answer for any other object, too.
GENERAL = {
    "NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "TokenRefreshRequired", "RequestTimeTooSkewed", "RequestTimeout", "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException", "SlowDown", "Throttling", "ThrottlingException", "QuotaExceeded",
}  # fmt: skip


def is_about_object(error: Any) -> bool:
    """Whether a request for an object was refused for a reason that need not hold for others."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return False
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return 400 <= status < 500 and status not in (408, 429) and code_of(error) not in GENERAL


def explain(error: Any) -> str:
    """Why a request failed, in words for the operator, with the server's own code or words."""
    code = code_of(error)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        operation = getattr(error, "operation_name", "")
        said = f"{operation}: {code}, HTTP {status}"
        return f"{REASONS.get(code) or response['Error'].get('Message') or 'it refuses'} ({said})"
    return f"{REASONS[code]} ({first_line(error)})" if code in REASONS else first_line(error)
