#!/usr/bin/env python3
"""Fetch a borg repository from its copy in a bucket, as one of the finished copies has it, or list the copies.

`npm run restore -- --from bucket` does this by way of restore.py; this file is a program for itself, too, which a
drill runs. What is asked for comes as one line of JSON on standard input, because it holds the key for reading:
`bucket`, `prefix`, `region`, `endpoint` (null: AWS), `pathStyle`, `accessKeyId`, `secretAccessKey`, perhaps
`sessionToken` (or, for these three, `credentials`: a file as the AWS command line tool has it); `asOf` (a time in UTC,
`2026-11-21T02:00:00Z`) or `copy` (a key that `list` shows, perhaps with the `version` of it that `newest` shows); and
perhaps `repositories`, borg's ids of those that it may be.

Every file is fetched by the version that the copy's index names and compared with its size and checksum, so what was
overwritten, deleted or half uploaded since doesn't matter. The bucket's clock says which copy is the newest: whoever
has the writer's key can add indexes, but can't date them back. borg then reads the directory as any repository; it
asks about one that has moved, so set BORG_RELOCATED_REPO_ACCESS_IS_OK=yes for that command.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import bucket
import plain
from bucket import Bucket, BucketError, Index, ObjectRefused, Stored, Version, moment

FETCHED, REFUSED = 0, 2
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ATTEMPTS = 3
AT_ONCE = 5  # indexes in memory
CLOCKS_APART = 3600  # seconds between the server's clock and the bucket's that are no wonder
DESCRIBED = 40  # an index of a large repository has some megabytes
PROGRESS_INTERVAL = 10  # seconds
SPARE = 200e6  # bytes that stay free
# Of borg's index.N: its magic, entries, buckets, size of a key and of a value; then the buckets.
INDEX_HEADER = struct.Struct("<8siibb")
KEY_SIZE, VALUE_SIZE = 32, 8
# What borg reads whole before it has looked at it, and which has some hundred bytes.
SMALL = re.compile(r"config|nonce|README|integrity\.\d+")
LARGEST_SMALL = 1024 * 1024
FORGED = "the copy is damaged, or its index forged. Take an earlier one (--copy-as-of)"


class Refused(Exception):
    """Nothing can be fetched. The text is one line for the operator."""


class Stopped(BaseException):
    """The run was told to end by a signal."""


def connect(request: dict[str, Any]) -> Bucket:
    """Raises Refused for a request that lacks something, BucketError for one that doesn't work."""
    place = {name: request.get(name) for name in ("bucket", "prefix", "region", "endpoint", "pathStyle")}
    file = request.get("credentials")
    keys = [file] if file else [request.get("accessKeyId"), request.get("secretAccessKey")]
    if not all(isinstance(of, str) and of for of in [place["bucket"], place["region"], *keys]):
        raise Refused("bucket, region, accessKeyId and secretAccessKey are needed to read a bucket")
    if file:
        credentials = bucket.read_credentials(file)
    else:
        credentials = {"aws_access_key_id": keys[0], "aws_secret_access_key": keys[1]}
    if request.get("sessionToken"):
        credentials["aws_session_token"] = request["sessionToken"]
    try:
        return Bucket({**place, "prefix": place["prefix"] or "", "pathStyle": bool(place["pathStyle"])}, credentials)
    except ImportError:
        raise Refused("boto3 is missing: apt-get install python3-boto3") from None


def eligible(copies: list[Version], as_of: str | None, key: str | None, version: str | None = None) -> list[Version]:
    """The indexes to try, of those given with the newest first. Raises Refused."""
    if not copies:
        raise Refused("the bucket holds no finished copy under this prefix")
    if key is not None:
        chosen = [of for of in copies if f"index/{of.path}" == key and version in (None, of.id)]
        if not chosen:
            raise Refused(f"there is no copy {key}; `list` shows those that there are")
        # By this name whoever writes it over comes later: the first one is the copy's.
        return chosen[::-1]
    if as_of is not None and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", as_of):
        raise Refused(f"{as_of} is no time such as 2026-11-21T02:00:00Z")
    chosen = [of for of in copies if as_of is None or moment(of.modified) <= as_of]
    if not chosen:
        raise Refused(f"no copy is as old as {as_of}: the oldest is of {moment(copies[-1].modified)}")
    return chosen


def examine(
    there: Bucket, copies: list[Version], repositories: list[str] | None = None
) -> Iterator[tuple[Version, Index | None, str | None]]:
    """Each of the copies with its index (None: it can't be read, or is of none of the `repositories`) and what is
    wrong with it. A few at a time: whatever somebody puts into the bucket takes little memory, and the bucket's list
    is read once for them all. Raises BucketError when the bucket itself fails."""

    def read(of: Version) -> tuple[Version, Index | None, str | None]:
        try:
            index = bucket.read_index(there, of)
        except ValueError as error:
            return of, None, f"it is no index of a copy: {error}"
        except ObjectRefused as error:
            return of, None, f"it can't be read: {error}"
        if repositories is not None and index.repository not in repositories:
            return of, None, f"it is of another repository: {index.repository}"
        return of, index, None

    for start in range(0, len(copies), AT_ONCE):
        found = [read(of) for of in copies[start : start + AT_ONCE]]
        named = {(path, of.version) for _, index, _ in found if index for path, of in index.objects.items()}
        listing = there.versions("repository/", lambda of, named=named: (of.path, of.id) in named) if named else None
        for of, index, problem in found:
            lost = bucket.absent(index, listing) if index and listing else []
            if lost:
                problem = f"{len(lost)} of its files are not in the bucket, {lost[0]} for one"
            yield of, index, problem


def doubts(of: Version, index: Index, earlier: list[tuple[Version, Index]]) -> list[str]:
    """What speaks for a copy's index being an old one that somebody put there again, as whoever has the writer's key
    can: one line for each sign. `earlier` are whole copies of the same repository that the bucket received before."""
    found = []
    name = f"the copy index/{of.path} of {moment(of.modified)}"
    apart = abs(of.modified - bucket.made_at(index.made))
    if apart > CLOCKS_APART:
        found.append(
            f"{name} says that it was made at {index.made}: the server's clock was wrong, or somebody put an old index"
            " there again"
            + (f". To take the one before it: --copy-as-of {moment(earlier[0][0].modified)}" if earlier else "")
        )
    for other, its in earlier:
        if its.number > index.number or its.transaction > index.transaction:
            found.append(
                f"{name} is number {index.number}, transaction {index.transaction}, and an earlier one is newer by"
                f" these: number {its.number}, transaction {its.transaction}. The repository was set back, or somebody"
                f" put an old index there again. To take the other: --copy-as-of {moment(other.modified)}"
            )
            break
    return found


def choose(there: Bucket, request: dict[str, Any], say: Callable[[str], None]) -> tuple[Version, Index]:
    """The newest copy that is asked for and whole. Raises Refused, BucketError."""
    as_of, key, version, repositories = (request.get(name) for name in ("asOf", "copy", "version", "repositories"))
    examined = examine(there, eligible(bucket.copies_in(there), as_of, key, version), repositories)
    for of, index, problem in examined:
        if index is not None and problem is None:
            if key is None:
                before = [
                    (other, its)
                    for other, its, wrong in itertools.islice(examined, AT_ONCE - 1)
                    if its is not None and wrong is None
                ]
                for doubt in doubts(of, index, [each for each in before if each[1].repository == index.repository]):
                    say(f"WARNING: {doubt}")
                former = next((other for other, its in before if its.repository != index.repository), None)
                if former is not None:
                    say(
                        "note: a repository was begun anew: earlier copies are of the one that was there before, and"
                        f" archives of it are only in those. To take the last of them: --copy-as-of"
                        f" {moment(former.modified)}"
                    )
            return of, index
        say(f"note: index/{of.path} of {moment(of.modified)} is passed over, {problem}")
    raise Refused("no copy that was asked for is whole")


def mistaken_header(header: bytes, size: int) -> str | None:
    """Why a file of so many bytes, which begins with this header, is no index of a repository; None: it may be one.
    These are the questions that borg asks itself since 1.4.5. Earlier ones believe the file, and end without a word, or
    read what isn't theirs, when it lies."""
    if len(header) < INDEX_HEADER.size:
        return "it is cut off"
    magic, entries, buckets, key, value = INDEX_HEADER.unpack(header)
    if magic != b"BORG_IDX":
        return "it doesn't begin as one"
    if (key, value) != (KEY_SIZE, VALUE_SIZE):
        return f"its keys have {key} bytes and its values {value}, not {KEY_SIZE} and {VALUE_SIZE}"
    if buckets < 1 or not 0 <= entries <= buckets:
        return f"it says that {entries} of {buckets} places are taken"
    if size != INDEX_HEADER.size + buckets * (KEY_SIZE + VALUE_SIZE):
        return f"it has {size} bytes, not those of {buckets} places"
    return None


class Fetch:
    """One repository into one directory. What an earlier run fetched is checked and kept."""

    def __init__(self, there: Bucket, index: Index, directory: str, say: Callable[[str], None]) -> None:
        self.there, self.index, self.directory, self.say = there, index, directory, say
        self.notes = f"{directory}.fetched.json"
        """Lies beside the directory, and says that it is ours to change."""
        self.first = f"index.{index.transaction}"
        self.stop = threading.Event()
        self.counting = threading.Lock()
        self.count_anew()

    def run(self, dry_run: bool = False) -> bool:
        """Whether the directory holds the copy at the end: always, but for a dry run, which changes nothing. Raises
        Refused, BucketError, OSError."""
        if os.path.isdir(self.directory) and os.listdir(self.directory) and not os.path.exists(self.notes):
            raise Refused(f"{self.directory} isn't empty; nothing was changed")
        todo = self.missing()
        size = sum(self.index.objects[path].size for path in todo)
        self.say(
            f"{len(self.index.objects)} files, {megabytes(self.index.size)}"
            + (f", of which {megabytes(self.index.size - size)} are here already" if size < self.index.size else "")
        )
        where = existing(self.directory)
        free = os.statvfs(where)
        self.say(
            f"space for the repository: {megabytes(size)} needed, {megabytes(free.f_bavail * free.f_frsize)} free in"
            f" {where}; what is extracted needs its own besides"
        )
        if size + SPARE > free.f_bavail * free.f_frsize:
            raise Refused(
                f"too little space in {where}: {megabytes(size + SPARE)} needed (with a little to spare),"
                f" {megabytes(free.f_bavail * free.f_frsize)} free. Fetch it to a larger disk"
            )
        if dry_run:
            return not todo and self.noted() == self.about()
        self.prepare()
        self.count_anew()
        # Before hours of fetching the rest.
        if self.first in todo:
            self.fetch(self.first, size)
            todo.remove(self.first)
        self.inspect()
        bucket.in_parallel(lambda path: self.fetch(path, size), sorted(todo), self.stop.set)
        self.say(f"fetched and compared in {time.monotonic() - self.began:.0f} s")
        return True

    def inspect(self) -> None:
        """Look at what borg would believe before it has looked. Raises Refused."""
        large = [path for path, of in self.index.objects.items() if SMALL.fullmatch(path) and of.size > LARGEST_SMALL]
        if large:
            raise Refused(f"{large[0]} of the copy is too large to be borg's: {FORGED}")
        path = os.path.join(self.directory, self.first)
        with open(path, "rb") as file:
            wrong = mistaken_header(file.read(INDEX_HEADER.size), os.path.getsize(path))
        if wrong is not None:
            os.remove(path)  # so that nobody opens the directory
            raise Refused(f"{self.first} of the copy is no index of borg's, {wrong}: {FORGED}")

    def missing(self) -> list[str]:
        """Paths of what isn't in the directory yet, or isn't right there."""
        size = sum(self._here(path) for path in self.index.objects)
        paths = sorted(self.index.objects)
        kept = bucket.in_parallel(lambda path: self.kept(path, size), paths, self.stop.set)
        return [path for path, right in zip(paths, kept, strict=True) if not right]

    def _here(self, path: str) -> int:
        try:
            return os.path.getsize(os.path.join(self.directory, path))
        except FileNotFoundError:
            return 0

    def about(self) -> dict[str, Any]:
        return {"repository": self.index.repository, "number": self.index.number}

    def noted(self) -> Any:
        """Of which copy the directory's content is, as the last run noted it."""
        try:
            with open(self.notes, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def prepare(self) -> None:
        """Make the directory ready: empty, or what an earlier run fetched, less what isn't in this copy."""
        os.makedirs(os.path.dirname(self.directory) or "/", exist_ok=True)
        with open(self.notes, "w", encoding="utf-8") as file:
            json.dump(self.about(), file)
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        for folder, _folders, names in os.walk(self.directory):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self.directory)
                if path not in self.index.objects:
                    os.remove(os.path.join(folder, name))

    def kept(self, path: str, total: int) -> bool:
        full, of = os.path.join(self.directory, path), self.index.objects[path]
        try:
            if os.path.getsize(full) != of.size:
                return False
        except FileNotFoundError:
            return False
        digest = hashlib.sha256()
        with open(full, "rb") as file:
            while block := file.read(bucket.BLOCK):
                if self.stop.is_set():
                    return False
                digest.update(block)
                self.count(len(block), total, "of what is here compared")
        return digest.hexdigest() == of.sha256

    def fetch(self, path: str, total: int) -> None:
        of = self.index.objects[path]
        full = os.path.join(self.directory, path)
        os.makedirs(os.path.dirname(full), mode=0o700, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                right = self.transfer(path, of, f"{full}.part", total)
            except BucketError:
                if attempt == ATTEMPTS or self.stop.is_set():
                    raise
                time.sleep(attempt)
                continue
            if right:
                os.replace(f"{full}.part", full)
                return
        os.remove(f"{full}.part")
        raise Refused(f"{path} in the bucket isn't what the copy's index says: {FORGED}")

    def transfer(self, path: str, of: Stored, part: str, total: int) -> bool:
        """Fetch into a file; whether it is what the index says."""
        digest, size = hashlib.sha256(), 0
        try:
            with open(part, "wb") as file:
                for block in self.there.read(f"repository/{path}", of.version):
                    if self.stop.is_set():
                        raise BucketError("stopped")
                    file.write(block)
                    digest.update(block)
                    size += len(block)
                    self.count(len(block), total)
                    if size > of.size:
                        break
        finally:
            if (size, digest.hexdigest()) != (of.size, of.sha256):
                self.count(-size, total)
        return (size, digest.hexdigest()) == (of.size, of.sha256)

    def count_anew(self) -> None:
        self.done = 0
        self.began = self.said = time.monotonic()

    def count(self, size: int, total: int, what: str = "fetched") -> None:
        with self.counting:
            self.done += size
            now = time.monotonic()
            if now - self.said < PROGRESS_INTERVAL or not total:
                return
            self.said = now
            left = (total - self.done) * (now - self.began) / max(self.done, 1)
            done = f"{self.done / total:.0%} {what}: {megabytes(self.done)} of {megabytes(total)}"
            self.say(f"{done}, {left / 60:.0f} min left")


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def existing(path: str) -> str:
    """The path, or the directory above it that there is."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def fetch(request: dict[str, Any], directory: str, say: Callable[[str], None], dry_run: bool = False) -> bool:
    """Fetch what the request asks for into a directory, which is then a repository. Returns whether it is one now:
    after a dry run it may not be. Raises Refused, BucketError and OSError; a run after that goes on from there."""
    there = connect(request)
    of, index = choose(there, request, say)
    say(
        f"copy {index.number}, index/{of.path}, finished {moment(of.modified)}: deployment {index.deployment},"
        f" repository {index.repository}, transaction {index.transaction}"
    )
    return Fetch(there, index, os.path.abspath(directory), say).run(dry_run)


def newest(request: dict[str, Any]) -> dict[str, Any]:
    """The copy that `fetch` would take, and in `remarks` what there is to say against it or against newer ones, which
    are passed over. Raises Refused, BucketError."""
    remarks: list[str] = []
    try:
        of, index = choose(connect(request), request, remarks.append)
    except Refused as error:
        raise Refused("; ".join([str(error), *remarks[:1]])) from None
    return {
        "copy": f"index/{of.path}",
        "version": of.id,
        "finished": moment(of.modified),
        "finishedAt": of.modified,
        "number": index.number,
        "transaction": index.transaction,
        "files": len(index.objects),
        "size": index.size,
        "remarks": remarks,
    }


def list_copies(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Every copy in the bucket, the newest first; what they hold only of the newest. Raises Refused, BucketError."""
    there = connect(request)
    copies = bucket.copies_in(there)
    lines = []
    for of, index, problem in examine(there, copies[:DESCRIBED]):
        line: dict[str, Any] = {"copy": f"index/{of.path}", "finished": moment(of.modified)}
        if index is not None:
            line |= {"number": index.number, "transaction": index.transaction}
            line |= {"files": len(index.objects), "size": index.size}
        lines.append({**line, "whole": problem is None, **({"problem": problem} if problem else {})})
    return lines + [{"copy": f"index/{of.path}", "finished": moment(of.modified)} for of in copies[DESCRIBED:]]


def stopped(number: int, _frame: Any) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bucket_fetch.py",
        description="Fetch a borg repository from a bucket, or list the copies in it. The request is read from standard"
        " input: a line of JSON with bucket, prefix, region, endpoint, pathStyle, accessKeyId, secretAccessKey, and"
        " asOf or copy.",
        epilog="Exit codes: 0 fetched, and every file is what the copy's index says; 2 refused or not possible, the"
        " reason is named; 143 stopped: run it again, it goes on from there.",
    )
    parser.add_argument(
        "action",
        choices=("fetch", "list", "newest"),
        help="newest: show which copy `fetch` would take, and fetch nothing",
    )
    parser.add_argument("directory", metavar="DIRECTORY", nargs="?", help="fetch: where the repository goes")
    options = parser.parse_args(arguments)
    if (options.action == "fetch") != (options.directory is not None):
        parser.error("fetch needs a DIRECTORY, the others have none")
    os.umask(0o077)
    for number in SIGNALS:
        signal.signal(number, stopped)
    try:
        request = json.loads(sys.stdin.readline())
        if not isinstance(request, dict):
            raise Refused("the request must be a JSON object")
        if options.action != "fetch":
            for line in list_copies(request) if options.action == "list" else [newest(request)]:
                print(json.dumps(line), flush=True)
            return FETCHED
        with only_one(os.path.abspath(options.directory)):
            fetch(request, options.directory, plain.say)
        return FETCHED
    except (Refused, BucketError) as error:
        plain.complain(error)
    except json.JSONDecodeError:
        plain.complain("the request on standard input is no JSON")
    except OSError as error:
        plain.complain(f"{error.filename}: {error.strerror}" if error.filename else error)
    except Stopped as error:
        plain.complain(f"stopped by {error}; the next run goes on from here")
        return 143
    return REFUSED


@contextlib.contextmanager
def only_one(directory: str) -> Any:
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    descriptor = os.open(f"{directory}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        os.remove(f"{directory}.lock")
    except BlockingIOError:
        raise Refused(f"another run is fetching into {directory}") from None
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    plain.exit_with(main)
