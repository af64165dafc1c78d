"""A bucket that holds copies of a borg repository, by boto3.

Used by the copy on the offsite server, by the fetch on a machine that restores, and by retention on the operator's
computer. It works with the boto3 of Debian 12 and Ubuntu 24.04 and newer. Nothing in here deletes anything: removal.py
does, with another key.

Under the bucket's prefix there are `repository/PATH`, the repository's files, and `index/TIME-TRANSACTION.json.gz`,
an index for each finished copy. Names can be written over in a bucket with versioning, versions can't: an index
names the version, size and checksum of every file, so it keeps its meaning whatever comes after it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from chtbackup.bucket.credentials import session_of_the_machine
from chtbackup.bucket.errors import BucketError, Gone, ObjectRefused
from chtbackup.bucket.index import Listing, Version
from chtbackup.bucket.pace import Outgoing
from chtbackup.bucket.parallel import THREADS
from chtbackup.bucket.reasons import code_of, explain, first_line, is_about_object, is_gone

ATTEMPTS = 8
CONNECT_TIMEOUT, READ_TIMEOUT = 15, 60  # seconds
BLOCK = 1024 * 1024


def content_md5(digest: bytes) -> str:
    """A checksum as a request has it: a bucket with a lock takes nothing without."""
    return base64.b64encode(digest).decode()


def put_arguments(lock: tuple[str, float] | None, storage_class: str | None) -> dict[str, Any]:
    """boto3's arguments for an upload: `lock` is a mode and an end; None for either: the bucket's default."""
    locked = {} if lock is None else {"ObjectLockMode": lock[0], "ObjectLockRetainUntilDate": _date(lock[1])}
    return {**locked, **({} if storage_class is None else {"StorageClass": storage_class})}


def _date(time_: float) -> datetime.datetime:
    # Whole seconds: the end of a day at AWS is compared with what was asked for.
    return datetime.datetime.fromtimestamp(int(time_), datetime.timezone.utc)


class Bucket:
    """A bucket under one prefix.

    `place` has `bucket`, `prefix` (empty or ending in `/`), `region`, `endpoint` (None: AWS) and `pathStyle`;
    `credentials` are boto3's own arguments (empty: the machine's role; None: whatever boto3 finds, for an operator with
    an account of his own at AWS). Every method raises BucketError.
    """

    def __init__(self, place: dict[str, Any], credentials: dict[str, str] | None) -> None:
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
            session = session_of_the_machine() if credentials == {} else boto3.Session()
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
                **(credentials or {}),
            )
        except (*self._errors, ValueError) as error:
            raise BucketError(f"the bucket {self.where}: {error}") from error
        self._client.meta.events.register("before-send.s3", self._count)

    def _count(self, request: Any, **_event: Any) -> None:
        with self._counting:
            self.requests += 1
        if isinstance(request.body, Outgoing):
            request.body.begin()

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request of boto3's. Raises Gone, ObjectRefused, BucketError."""
        try:
            return getattr(self._client, operation)(Bucket=self.name, **arguments)
        except self._errors as error:
            about = (Gone if is_gone(error) else ObjectRefused) if is_about_object(error) else BucketError
            kind = about if "Key" in arguments else BucketError
            raise kind(f"the bucket {self.where}: {explain(error)}") from error

    def describe(self) -> dict[str, Any]:
        """The settings that protect what is in it: `versioning` (bool), `lock` (None, or `mode` and `days`, None
        where there is no default), `publicAccessBlock` (the four switches; None where the server has none)."""
        versioning = self.ask("get_bucket_versioning").get("Status") == "Enabled"
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

    def pages(self, folder: str) -> Iterator[dict[str, Any]]:
        """boto3's list of all versions and delete markers under a folder, a thousand with each request."""
        position: dict[str, str] = {}
        while True:
            page = self.ask("list_object_versions", Prefix=f"{self.prefix}{folder}", **position)
            yield page
            if not page.get("IsTruncated"):
                return
            position = {"KeyMarker": page["NextKeyMarker"]}
            if page.get("NextVersionIdMarker"):
                position["VersionIdMarker"] = page["NextVersionIdMarker"]

    def versions(self, folder: str, keep: Callable[[Version], bool] = lambda _of: True) -> Listing:
        """What to `keep` of everything under a folder such as `repository/`: one request for a thousand versions.
        Whoever has the writer's key can put any number there, so it should be no more than is needed."""
        versions: dict[str, list[Version]] = {}
        hidden: set[str] = set()
        root = f"{self.prefix}{folder}"
        for page in self.pages(folder):
            for of in page.get("Versions", []):
                path = of["Key"].removeprefix(root)
                version = Version(
                    path, of["VersionId"], of["Size"], of["ETag"].strip('"'), of["LastModified"].timestamp(),
                    of["IsLatest"],
                )  # fmt: skip
                if keep(version):
                    versions.setdefault(path, []).append(version)
            hidden |= {of["Key"].removeprefix(root) for of in page.get("DeleteMarkers", []) if of["IsLatest"]}
        for found in versions.values():
            # Seconds are all that some servers keep: within one, the order of the answer decides.
            found.sort(key=lambda of: (not of.latest, -of.modified))
        return Listing(versions, hidden)

    def head(self, path: str, version: str) -> dict[str, Any]:
        """`mode` and `until` (seconds since 1970) of a version's lock, None without; `encryption`."""
        of = self.ask("head_object", Key=self.prefix + path, VersionId=version)
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
            answer = self.ask("get_object", Key=self.prefix + path, VersionId=version, **rest)
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
        """Write a small object, and return its version; `lock` as `put_arguments` takes it."""
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        return self.send(path, content, md5, put_arguments(lock, None))

    def send(self, path: str, body: bytes | Outgoing, md5: bytes, how: dict[str, Any]) -> str:
        """Write an object of which the md5 is known, and return its version; `how` is what `put_arguments` gives."""
        key = self.prefix + path
        return self.version_of(path, self.ask("put_object", Key=key, Body=body, ContentMD5=content_md5(md5), **how))

    def version_of(self, path: str, done: dict[str, Any]) -> str:
        """The version that an answer names."""
        if not done.get("VersionId"):
            raise BucketError(f"the bucket {self.where} gave {path} no version: its versioning is off")
        return done["VersionId"]

    def lengthen(self, path: str, version: str, mode: str, until: float) -> None:
        """Lock a version until a time. A lock that is longer already stays: the bucket refuses then."""
        self.ask(
            "put_object_retention", Key=self.prefix + path, VersionId=version,
            Retention={"Mode": mode, "RetainUntilDate": _date(until)},
        )  # fmt: skip
