#!/usr/bin/env python3
"""Copy the borg repository on this machine to a bucket, keep the copy locked there, and check it.

Run by the units `cht-bucket-copy-<deployment>` and `cht-bucket-check-<deployment>` as the user that owns the
repository. No passphrase and no key of the repository is needed. See `--help` for exit codes.

How a copy comes about:
1. Under borg's own lock, for seconds, a snapshot is taken beside the repository (snapshot.py).
2. Without a lock, what the bucket doesn't have yet is uploaded from there. What it has is found by size and
   checksum in the bucket's own list, whatever happened to earlier runs.
3. Every version that belongs to the copy is locked for at least `keepDays` more.
4. Last of all an index is written, which names each file's version, size and sha256. Without it there is no copy.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import functools
import glob
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import bucket
from bucket import Bucket, BucketError, Index, Listing, ObjectRefused, Stored, Version, moment
from copy_plan import (
    DAY,
    PART,
    WHOLE,
    Held,
    Known,
    NoCopy,
    batches,
    bucket_problems,
    check_count,
    checksums,
    due,
    is_rclones_etag,
    lock_mode,
    match,
    read_settings,
    wait_for,
)
from plain import complain, exit_with, plain_values, say
from snapshot import fingerprint, newest_segment, repository_id, transaction_of

RIGHT, WRONG, FAILED = 0, 1, 2
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOP_TIMEOUT = 60  # seconds that borg and rclone get to end after a signal
PROGRESS_INTERVAL = 60
MAX_LINES = 20
STAND_IN = b"none"  # SetCredential= of the units
SNAPSHOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "snapshot.py")
STANDSTILL = 300  # seconds without a byte, after which an upload is given up
MANY_FAILURES = 5  # files that didn't arrive, after which an upload is begun anew
PAUSE = 5  # seconds before that
LOOKS = 10  # that a check takes at the bucket until no copy finishes meanwhile
ROUNDS = 3  # copies in a run, of what came in meanwhile
SMALL = 1024 * 1024  # bytes of a file that is uploaded without rclone
FOLDER = "repository/"


class Busy(Exception):
    """The repository is in use."""


class Postponed(Exception):
    """The run was told to end while it only waited."""


class GivenUp(Exception):
    """rclone was ended, as it got nowhere."""


class Stopped(BaseException):
    """The run was told to end by a signal."""


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def credentials_path(settings: dict[str, Any]) -> str | None:
    """The file with the access key: systemd's copy of it where the unit has one (LoadCredential=). None: the machine's
    role is what counts."""
    if settings["credentials"] is None:
        return None
    given = os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), "bucket")
    if os.path.isabs(given) and os.path.exists(given):
        with open(given, "rb") as file:
            if file.read(len(STAND_IN) + 1) == STAND_IN:
                raise NoCopy(not_handed_over(settings))
        return given
    # systemd's own variable: a unit that was told of no credential can't read the file, which is root's.
    if "INVOCATION_ID" in os.environ and not os.access(settings["credentials"], os.R_OK):
        raise NoCopy(not_handed_over(settings))
    return settings["credentials"]


def not_handed_over(settings: dict[str, Any]) -> str:
    """Why the unit has no key, in one line."""
    words = f"systemd didn't hand the bucket's key ({settings['credentials']}) to this unit"
    if not os.path.exists(settings["credentials"]):
        return f"{words}: the file is missing; `npm run pulumi -- up` writes it"
    units = [f"cht-bucket-{what}-{settings['deployment']}.service" for what in ("copy", "check")]
    found = [path for path in drop_ins(units) if clears_credentials(path)]
    if not found:
        return f"{words}: `systemctl cat {units[0]}` must show LoadCredential=bucket:{settings['credentials']}"
    return (
        f"{words}: LoadCredential= is taken away again in {', '.join(found)} (LXC puts such a file into its"
        " containers). Take that line out, then: systemctl daemon-reload"
    )


def drop_ins(units: list[str]) -> list[str]:
    """What systemd reads after the units' own files; where it doesn't say so, what lies in its directories."""
    command = ["systemctl", "show", *units, "--property=DropInPaths", "--value"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        said = []
    names = ["service", *units]
    folders = [f"{root}/systemd/system/{of}.d" for root in ("/etc", "/run", "/usr/lib") for of in names]
    return sorted(set(said)) or [path for folder in folders for path in sorted(glob.glob(f"{folder}/*.conf"))]


def clears_credentials(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(re.fullmatch(r"LoadCredential\s*=\s*", line.strip()) for line in file)
    except OSError:
        return False


def connect(settings: dict[str, Any]) -> Bucket:
    path = credentials_path(settings)
    return Bucket(settings, bucket.read_credentials(path) if path else {})


# ---- other programs -------------------------------------------------------------------------------------


def _end_with_parent() -> None:
    # prctl(PR_SET_PDEATHSIG, SIGTERM): neither may go on, unobserved, when this process was killed.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def run(command: list[str], environment: dict[str, str], on_line: Callable[[str], None]) -> int:
    """Run a program that ends with this one; `on_line` gets each line it writes. Raises NoCopy."""
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True, preexec_fn=_end_with_parent, cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", **environment},
        )  # fmt: skip
    except FileNotFoundError:
        raise NoCopy(f"{command[0]} is not installed") from None
    try:
        assert child.stdout is not None
        for line in child.stdout:
            on_line(line.rstrip("\n"))
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()


class Rclone:
    """rclone, set up by its environment alone: everything comes from bucket.json, and the credentials from their file
    or the machine's role, so that none is in an argument or a variable."""

    def __init__(self, settings: dict[str, Any]) -> None:
        path = credentials_path(settings)
        remote = {
            "TYPE": "s3",
            "PROVIDER": "Other" if settings["endpoint"] else "AWS",
            "ENV_AUTH": "true",
            "REGION": settings["region"],
            "FORCE_PATH_STYLE": _flag(settings["pathStyle"]),
            # The writer may not make buckets, and what has been uploaded is looked up in one go afterwards.
            "NO_CHECK_BUCKET": "true",
            "NO_HEAD": "true",
            "CHUNK_SIZE": f"{PART}B",
            "UPLOAD_CUTOFF": f"{WHOLE}B",
            "UPLOAD_CONCURRENCY": "4",
            **({"ENDPOINT": settings["endpoint"]} if settings["endpoint"] else {}),
            # Without a file: the machine's role, and not what lies in a home.
            "SHARED_CREDENTIALS_FILE": path or os.devnull,
        }
        self.environment = {
            "HOME": settings["state"],
            "RCLONE_CONFIG": "/dev/null",
            **{f"RCLONE_CONFIG_BUCKET_{name}": value for name, value in remote.items()},
        }
        self.settings = settings
        self.target = f"bucket:{settings['bucket']}/{settings['prefix']}{FOLDER}"
        self.reasons: list[str] = []

    def upload(self, source: str, paths: list[str], rare: bool, progress: Progress) -> None:
        """Upload files below `source`, whatever is in the bucket by these names. What didn't arrive shows in the
        bucket, not here; why it didn't is in `reasons`."""
        listed = os.path.join(self.settings["state"], "uploading")
        write_atomically(listed, "".join(f"{path}\n" for path in paths))
        command = [
            "rclone", "copy", source, self.target, "--files-from-raw", listed, "--no-traverse", "--no-check-dest",
            "--transfers", "4", "--checkers", "4", "--retries", "1", "--low-level-retries", "3",
            # Segments of a sealed repository are symbolic links in the snapshot.
            "--copy-links",
            # Its own splitting of large files would take other parts than those that checksums() reckons with.
            "--multi-thread-streams", "0",
            "--contimeout", f"{bucket.CONNECT_TIMEOUT}s", "--timeout", f"{bucket.READ_TIMEOUT}s",
            "--use-json-log", "--log-level", "NOTICE", "--stats", f"{PROGRESS_INTERVAL}s",
            "--stats-log-level", "NOTICE",
        ]  # fmt: skip
        if self.settings["uploadRate"]:
            command += ["--bwlimit", f"{self.settings['uploadRate']}Ki"]
        environment, before = dict(self.environment), progress.done
        if rare and self.settings["storageClass"]:
            environment["RCLONE_CONFIG_BUCKET_STORAGE_CLASS"] = self.settings["storageClass"]

        def on_line(line: str) -> None:
            try:
                said = json.loads(line)
            except ValueError:
                said = {"level": "error", "msg": line}
            if "stats" in said:
                progress.at(before + int(said["stats"].get("bytes", 0)))
                if progress.standstill() > STANDSTILL:
                    raise GivenUp(f"nothing has moved for {progress.standstill():.0f} s")
            elif said.get("level") in ("error", "fatal", "critical"):
                self.reasons.append(str(said.get("msg", "")).strip().split("\n")[0])
                # rclone would try each of the others as often, and take hours where the network is cut.
                if len(self.reasons) >= MANY_FAILURES:
                    raise GivenUp(self.reasons[0])

        try:
            code = run(command, environment, on_line)
        except GivenUp as error:
            code = 0
            self.reasons.insert(0, str(error))
        finally:
            with contextlib.suppress(OSError):
                os.remove(listed)
        if code != 0 and not self.reasons:
            self.reasons.append(f"rclone ended with {code}")

    def reason(self) -> str:
        """Why something didn't arrive, in one line."""
        for text in self.reasons:
            for code, words in bucket.REASONS.items():
                if not code.isdigit() and code in text:
                    return f"{words} ({code})"
        return self.reasons[0] if self.reasons else "rclone reported no reason"


def _flag(value: bool) -> str:
    return "true" if value else "false"


def write_atomically(path: str, text: str) -> None:
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o640)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


# ---- what this machine remembers ------------------------------------------------------------------------


class Memory:
    """What earlier runs found out, in bucket-state.json. It only saves work: without it everything is read and looked
    up again. It is this machine's own, so what others put into the bucket can't change it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.path = os.path.join(settings["state"], "bucket-state.json")
        self.place = {name: settings[name] for name in ("repository", "endpoint", "bucket", "prefix")}
        self.files: dict[str, Known] = {}
        self.copy: dict[str, Any] | None = None
        """The newest finished copy: `key`, `version`, `until` and `mode` (of the lock) of its index, `number`,
        `transaction`, `settled`, `fingerprint`, `repository`, `madeAt`, `size`."""
        self.held: dict[str, Held] = {}
        """The files of that copy."""
        self.written: dict[str, str] | None = None
        """`key` and `sha256` of the index that is about to be written, or was when a run was killed."""
        self.mode: str = settings["mode"]
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            with open(self.path, encoding="utf-8") as file:
                read = json.load(file)
            # Of another bucket or repository: nothing in it holds.
            if read["place"] == self.place:
                self.files = {path: Known(**of) for path, of in read["files"].items()}
                self.held = {path: Held(**of) for path, of in read["held"].items()}
                self.copy = read["copy"]
                self.written = read.get("written")
                # A lock that counted may not do so in another mode: each is looked up again.
                if read.get("mode") != self.mode:
                    for of in self.held.values():
                        of.until = of.mode = None
                    if self.copy is not None:
                        self.copy |= {"until": None, "mode": None}

    def save(self) -> None:
        content = {
            "place": self.place,
            "mode": self.mode,
            "copy": self.copy,
            "written": self.written,
            "held": {path: vars(of) for path, of in sorted(self.held.items())},
            "files": {path: vars(of) for path, of in sorted(self.files.items())},
        }
        write_atomically(self.path, json.dumps(content, indent=0) + "\n")


class OnlyOne:
    """As a context: no other run of the same kind. A check may take hours, and must not keep a copy from being made.
    Whoever compacts the repository takes the copy's lock as well. It is waited for as long as for borg's; raises NoCopy
    then."""

    def __init__(self, settings: dict[str, Any], action: str) -> None:
        name = "bucket-check.lock" if action == "check" else "bucket-copy.lock"
        self.path = os.path.join(settings["state"], name)
        self.wait: int = settings["lockWait"]
        self.taken = f"another {action} for {settings['deployment']} is running"

    def __enter__(self) -> OnlyOne:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self.take()
        except BaseException:
            os.close(self.descriptor)
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.descriptor)

    def take(self) -> None:
        deadline = time.monotonic() + self.wait
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NoCopy(self.taken) from None
            time.sleep(0.5)

    @contextlib.contextmanager
    def let_go(self) -> Iterator[None]:
        """Let others run meanwhile."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        yield
        self.take()


# ---- copying --------------------------------------------------------------------------------------------


class Copy:
    """One run of `copy` or `extend`."""

    def __init__(self, settings: dict[str, Any], settle: int = 0, alone: OnlyOne | None = None) -> None:
        self.settings = settings
        self.settle = settle
        self.alone = alone
        """Keeps other copies from running; let go while this one waits."""
        self.repository: str = settings["repository"]
        self.snapshot = os.path.join(settings["snapshot"], "repository")
        self.started = time.time()
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.bucket: Bucket | None = None
        self.memory = Memory(settings)
        self.own: dict[str, Held] = {}
        """What this run has put there itself, by the version that the bucket answered, with a lock of its own."""
        self.uploaded = self.uploaded_bytes = self.extended = 0
        self.outcome = "failed"
        """`copied`, `unchanged`, `busy`, `waiting`, `extended` or `failed`."""
        self.lock: dict[str, Any] | None = None
        self.now = self.locked_until = 0.0

    # ---- deciding ---------------------------------------------------------------------------------------

    def unchanged(self) -> bool:
        """Whether the newest copy holds what the repository holds: only with-lock's own transaction came since.
        Segments after it are of a client that writes or has crashed; with-lock waits for it, or clears them up."""
        of, transaction = self.memory.copy, transaction_of(self.repository)
        return (
            of is not None
            and transaction == newest_segment(self.repository) == of["settled"]
            and fingerprint(self.repository) == of["fingerprint"]
        )

    def look(self) -> Bucket:
        """Reach the bucket and look at its settings. Raises NoCopy or BucketError where a copy makes no sense."""
        self.bucket = connect(self.settings)
        found = self.bucket.describe()
        if not found["versioning"]:
            raise NoCopy(
                f"the bucket {self.settings['bucket']} has no versioning: what is overwritten there is lost."
                " Switch versioning on (object lock needs it, too)"
            )
        self.problems += bucket_problems(found, self.settings)
        self.lock = found["lock"]
        return self.bucket

    # ---- the run ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Copy what is new, until nothing is. Raises NoCopy, BucketError, OSError."""
        try:
            self.copy_what_is_new()
        except Postponed as error:
            # Nothing was in progress, so it is no failure; what was copied before stays what happened.
            if self.outcome != "copied":
                self.outcome = "waiting"
            self.notes.append(f"{error}; the next run copies what is new")

    def copy_what_is_new(self) -> None:
        there = self.look()
        # First, so that the last copy stays locked even when no new one can be made.
        self.keep_locked(there)
        if not self.still_there(there):
            self.memory.copy = None
        for _ in range(ROUNDS):
            if not self.unchanged():
                self.wait_for_interval()
            if self.unchanged():
                if self.outcome != "copied":
                    self.outcome = "unchanged"
                    say(f"nothing new since the copy {self.memory.copy['key']}")  # type: ignore[index]
                return
            self.wait_until_settled()
            try:
                self.copy(there, self.take())
            except Busy as error:
                self.wait_for_another_time(error)
                return
            finally:
                shutil.rmtree(self.snapshot, ignore_errors=True)
            self.outcome = "copied"

    def wait_for_interval(self) -> None:
        """Wait until the last copy is `leastInterval` old: whoever stores something all the time would have a copy made
        of each, all of them locked. Waiting here, and not for another run, the newest state is copied in the end.
        Others may copy or compact meanwhile. Raises Postponed when it is told to stop, or another runs then."""
        of = self.memory.copy
        seconds = wait_for(of and of["madeAt"], time.time(), self.settings["leastInterval"])
        if seconds == 0:
            return
        say(f"the last copy is recent: this one begins at {moment(time.time() + seconds)}")
        try:
            with self.alone.let_go() if self.alone else contextlib.nullcontext():
                time.sleep(seconds)
        except Stopped as error:
            raise Postponed(f"stopped by {error} while it waited, as the last copy is recent") from None
        except NoCopy as error:  # another run has begun meanwhile, which copies the same
            raise Postponed(str(error)) from None
        self.memory = Memory(self.settings)

    def wait_for_another_time(self, busy: Busy) -> None:
        """The repository is in use, by a long backup as a rule. That is a failure only when it lasts."""
        if self.outcome == "copied":
            self.notes.append(f"something new came in meanwhile, and {busy}; the next run copies it")
            return
        last = self.memory.copy["madeAt"] if self.memory.copy else os.stat(f"{self.repository}/README").st_mtime
        hours = (time.time() - last) / 3600
        if hours > self.settings["maxAge"]:
            raise NoCopy(
                f"{busy}, and there has been no copy for {hours:.0f} hours (a lock that nobody holds any more?)"
            )
        self.outcome = "busy"
        self.notes.append(f"{busy}; the next run copies it")

    def wait_until_settled(self) -> None:
        """Let a client finish that has just stored something: it looks at it next, and a borg that finds the lock
        taken, be it for a moment, waits a tenth of its own lock-wait (up to a minute) before it tries again."""
        deadline = time.monotonic() + self.settings["lockWait"]
        while time.monotonic() < deadline:
            # Each lock that is taken or given back changes the directory.
            with contextlib.suppress(FileNotFoundError):  # a repository that is gone is told of later
                if 0 <= time.time() - os.stat(self.repository).st_mtime < self.settle:
                    time.sleep(0.5)
                    continue
            return

    def take(self) -> dict[str, Any]:
        """Take a snapshot under borg's lock. Raises Busy or NoCopy."""
        shutil.rmtree(self.snapshot, ignore_errors=True)  # of a run that was killed
        lines: list[str] = []
        began = time.monotonic()
        code = run(
            ["borg", "--lock-wait", str(self.settings["lockWait"]), "with-lock", self.repository,
             sys.executable, "-B", SNAPSHOT, self.repository, self.snapshot],
            {"HOME": self.settings["state"], "BORG_BASE_DIR": os.path.join(self.settings["state"], "borg")},
            lines.append,
        )  # fmt: skip
        said = [line for line in lines if line.strip()]
        taken = next((line for line in said if line.startswith('{"transaction"')), None)
        if taken is not None:
            say(f"a snapshot was taken, with the lock and all in {time.monotonic() - began:.1f} s")
            if code != 0:
                # The snapshot was taken under the lock all the same; a full disk keeps borg from going on.
                self.notes.append(f"borg ended with {code} after the snapshot: {said[-1]}")
            return json.loads(taken)
        if any(re.search(r"Failed to create/acquire the lock .*timeout", line) for line in lines):
            raise Busy(f"the repository was in use for {self.settings['lockWait']} s")
        own = next((line for line in said if line.startswith("snapshot: ")), None)
        raise NoCopy(own or f"borg can't lock the repository {self.repository}: {said[-1] if said else code}")

    def copy(self, there: Bucket, taken: dict[str, Any]) -> None:
        paths = self.taken()
        many = check_count(paths, self.memory.held)
        if many is not None and many not in self.problems:
            self.problems.append(many)
        files = self.read_all(paths)
        listing = self.listed(there, files)
        read_back = self.reader_back(there, files, listing)
        found, missing = match(files, self.memory.held, listing, read_back)
        if missing:
            found = self.upload(there, files, missing, read_back)
        held = self.locked(there, files, found)
        self.write_index(there, held, taken)

    def listed(self, there: Bucket, files: dict[str, Known]) -> Listing:
        """The versions in the bucket that can be those of the files."""
        return there.versions(FOLDER, lambda of: of.path in files and of.size == files[of.path].size)

    def taken(self) -> list[str]:
        """Every file of the snapshot that belongs to a repository."""
        found = (
            os.path.relpath(os.path.join(folder, name), self.snapshot)
            for folder, _folders, names in os.walk(self.snapshot)
            for name in names
        )
        return [path for path in found if bucket.PATH.fullmatch(path)]

    def read_all(self, paths: list[str]) -> dict[str, Known]:
        """Size and checksums of the snapshot's files; only what is new is read."""
        files: dict[str, Known] = {}
        todo: list[tuple[str, os.stat_result]] = []
        for path in paths:
            with self.still_here(path):
                of = os.stat(os.path.join(self.snapshot, path))
            known = self.memory.files.get(path)
            if known is not None and known.is_of(of):
                files[path] = known
            else:
                todo.append((path, of))
        total = sum(of.st_size for _path, of in todo)
        progress = Progress("read", total)
        for path, of in sorted(todo):
            with self.still_here(path):
                sha256, etag = checksums(os.path.join(self.snapshot, path), progress.step)
            files[path] = self.memory.files[path] = Known(of.st_size, of.st_mtime_ns, of.st_ino, sha256, etag)
            if progress.said_something:
                # So that hours of reading survive a kill.
                self.memory.save()
                progress.said_something = False
        # What the repository no longer has isn't asked for again.
        self.memory.files = dict(files)
        self.memory.save()
        return files

    @contextlib.contextmanager
    def still_here(self, path: str) -> Iterator[None]:
        """Say it plainly when a file of the snapshot is a link to what is there no longer. Raises NoCopy."""
        try:
            yield
        except FileNotFoundError:
            raise NoCopy(
                f"{path} left the repository while it was copied, as when somebody compacts it meanwhile; the next run"
                " copies what is there then"
            ) from None

    def reader_back(self, there: Bucket, files: dict[str, Known], listing: Listing) -> Callable[[Version], str] | None:
        """Where the bucket doesn't show md5 for what rclone uploads (encryption by a KMS key), how to tell by
        reading. None where it does. The last copy's own versions tell, the newest first; without one, others of the
        right size, which somebody may have made unreadable."""

        def read(of: Version) -> str:
            try:
                return there.checksum(FOLDER + of.path, of.id)
            except ObjectRefused:
                return "unreadable"  # so it isn't the same

        held = self.memory.held
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
            if not encryption.startswith("aws:kms") and is_rclones_etag(newest.etag):
                return None
            return functools.cache(read)
        return functools.cache(read) if candidates else None

    def upload(
        self, there: Bucket, files: dict[str, Known], missing: list[str], read_back: Callable[[Version], str] | None
    ) -> dict[str, Version]:
        """Upload until the bucket has everything, and return what it has. Raises NoCopy when it never does."""
        size = sum(files[path].size for path in missing)
        say(f"{len(missing)} of {len(files)} files are new: {megabytes(size)}")
        while True:
            rclone = Rclone(self.settings)
            progress = Progress("uploaded", sum(files[path].size for path in missing))
            for number, paths in enumerate(batches(files, missing)):
                if number > 0 and not rclone.reasons:
                    paths = self.put_small(there, files, paths)
                if paths and not rclone.reasons:
                    rclone.upload(self.snapshot, paths, number == 0, progress)
            listing = self.listed(there, files)
            if read_back is None:
                read_back = self.reader_back(there, files, listing)
            wanted = missing
            found, missing = match(files, {**self.memory.held, **self.own}, listing, read_back)
            arrived = set(wanted) - set(missing)
            self.uploaded += len(arrived)
            self.uploaded_bytes += sum(files[path].size for path in arrived)
            if not missing:
                return found
            if not arrived:
                break
            say(f"{len(missing)} files haven't arrived yet ({rclone.reason()}); going on")
            time.sleep(PAUSE)
        for path in missing:
            with self.still_here(path):
                os.stat(os.path.join(self.snapshot, path))
        raise NoCopy(
            f"the bucket {there.where}: {len(missing)} files didn't arrive, {missing[0]} for one:"
            f" {rclone.reason()}. What arrived is kept; the next run goes on"
        )

    def put_small(self, there: Bucket, files: dict[str, Known], paths: list[str]) -> list[str]:
        """Upload what is small, each with a lock of its own: the answer names the version, so nothing has to be looked
        up. Returns what is left for rclone: the rest, and what the bucket didn't take, such as one whose policy doesn't
        allow locks as long. Raises NoCopy."""
        end = time.time() + self.settings["lockDays"] * DAY
        lock = None
        if self.lock is not None:
            lock = (lock_mode(self.settings["mode"], None, self.lock["mode"]), end)
        refused: list[str] = []

        def put(path: str) -> None:
            if refused:
                return
            with self.still_here(path), open(os.path.join(self.snapshot, path), "rb") as file:
                content = file.read()
            sha256 = hashlib.sha256(content).hexdigest()
            if sha256 != files[path].sha256:
                raise NoCopy(f"{path} reads otherwise than a moment ago: look at the server's disk and memory")
            try:
                version = there.put(FOLDER + path, content, lock)
            except BucketError:
                refused.append(path)
                return
            mode, until = lock or (None, None)
            self.own[path] = Held(version, len(content), sha256, until, mode)

        bucket.in_parallel(put, [path for path in paths if files[path].size <= SMALL])
        return [path for path in paths if path not in self.own or self.own[path].sha256 != files[path].sha256]

    # ---- locks ------------------------------------------------------------------------------------------

    def locked(self, there: Bucket, files: dict[str, Known], found: dict[str, Version]) -> dict[str, Held]:
        """What the copy consists of, every version locked long enough. The lock of a version that neither an earlier
        copy of this machine's names nor the bucket named in its answer to this run is looked up: somebody else may have
        put it there meanwhile, with a lock of his own."""
        held = {}
        for path, version in found.items():
            before = self.own.get(path) or self.memory.held.get(path)
            known = before is not None and before.version == version.id
            until, mode = (before.until, before.mode) if known else (None, None)
            held[path] = Held(version.id, version.size, files[path].sha256, until, mode)
        if self.lock is not None:
            self.lengthen(there, held)
        return held

    def end_of(self, lock: dict[str, Any]) -> float | None:
        """When a lock ends that counts as one: one in governance mode doesn't where compliance is wanted."""
        return None if (lock["mode"], self.settings["mode"]) == ("GOVERNANCE", "COMPLIANCE") else lock["until"]

    def lengthened(
        self, there: Bucket, path: str, version: str, until: float | None, mode: str | None
    ) -> tuple[float, str]:
        """End and mode of a version's lock, which ends later than in `keepDays` then: it is looked up where it isn't
        known, and lengthened where it must be. Raises BucketError."""
        assert self.lock is not None
        if until is None and mode is None:
            lock = there.head(path, version)
            until, mode = self.end_of(lock), lock["mode"]
        if until is not None and mode is not None and not due(until, self.now, self.settings["keepDays"]):
            return until, mode
        wanted = lock_mode(self.settings["mode"], mode, self.lock["mode"])
        try:
            there.lengthen(path, version, wanted, self.locked_until)
        except ObjectRefused as error:
            if (mode, wanted) != ("GOVERNANCE", "COMPLIANCE"):
                raise
            # Better than a lock that runs out.
            there.lengthen(path, version, mode, self.locked_until)
            raise ObjectRefused(
                "they are in governance mode, in which they were lengthened, and the bucket doesn't let this key change"
                f" that. Give the deployment another prefix, or let an administrator lock them anew: {error}"
            ) from error
        return self.locked_until, wanted

    def lengthen(self, there: Bucket, held: dict[str, Held]) -> None:
        """Lengthen the locks that end within `keepDays`. A refusal is a problem, not the end: the others go on."""
        self.now = time.time()
        self.locked_until = self.now + self.settings["lockDays"] * DAY
        todo = [path for path, of in held.items() if due(of.until, self.now, self.settings["keepDays"])]
        refused: list[str] = []

        def lengthen(path: str) -> None:
            of = held[path]
            try:
                of.until, of.mode = self.lengthened(there, FOLDER + path, of.version, of.until, of.mode)
            except BucketError as error:
                refused.append(str(error))

        bucket.in_parallel(lengthen, todo)
        done = sum(held[path].until == self.locked_until for path in todo)
        self.extended += done
        if done:
            say(f"the locks of {done} files are lengthened until {moment(self.locked_until)}")
        if refused:
            self.problems.append(f"the locks of {len(refused)} of {len(todo)} files can't be lengthened: {refused[0]}")

    def keep_locked(self, there: Bucket) -> None:
        """Lengthen the locks of the newest finished copy, and of its index."""
        of = self.memory.copy
        if of is None or self.lock is None:
            return
        self.lengthen(there, self.memory.held)
        if due(of["until"], self.now, self.settings["keepDays"]):
            try:
                of["until"], of["mode"] = self.lengthened(there, of["key"], of["version"], of["until"], of["mode"])
            except BucketError as error:
                self.problems.append(f"the lock of the copy's index can't be lengthened: {error}")
        self.memory.save()

    # ---- the index --------------------------------------------------------------------------------------

    def still_there(self, there: Bucket) -> bool:
        """Whether the newest copy's index, if there is a copy, is in the bucket; one request."""
        of = self.memory.copy
        if of is None:
            return True
        try:
            there.head(of["key"], of["version"])
            return True
        except BucketError as error:
            if "it isn't there" not in str(error) and "this version isn't there" not in str(error):
                raise
        self.problems.append(f"the index {of['key']} of the newest copy is no longer in the bucket; copying again")
        return False

    def number(self, there: Bucket) -> int:
        if self.memory.copy is not None:
            return self.memory.copy["number"] + 1
        return 1 + sum(len(of) for of in there.versions("index/").versions.values())

    def of_another(self, there: Bucket, repository: str) -> None:
        """Tell when the copies so far are of another repository: nothing lengthens their locks any more."""
        if self.memory.copy is not None:
            before = self.memory.copy["repository"]
        else:
            before = repository
            with contextlib.suppress(ValueError, ObjectRefused):
                for newest in bucket.copies_in(there)[:1]:
                    before = bucket.read_index(there, newest).repository
        if before != repository:
            self.problems.append(
                f"the newest copies in the bucket are of another repository ({before[:16]}…) than what is here now: it"
                " was begun anew, or another was put in its place. Those copies stay, but nothing lengthens their locks"
                f" any more, and the first of them end in {self.settings['keepDays']} days. To put that repository"
                " back: docs/restore.md, 8"
            )

    def write_index(self, there: Bucket, held: dict[str, Held], taken: dict[str, Any]) -> None:
        now = time.time()
        index = Index(
            self.settings["deployment"],
            repository_id(os.path.join(self.snapshot, "config")),
            taken["transaction"],
            self.number(there),
            moment(now),
            {path: Stored(of.version, of.size, of.sha256) for path, of in held.items()},
        )
        self.of_another(there, index.repository)
        key = bucket.index_key(index.made, index.transaction)
        packed = bucket.pack_index(index)
        # Before it is there: whoever looks at the bucket meanwhile, or after a kill, must know it for this machine's.
        self.memory.written = {"key": key, "sha256": hashlib.sha256(packed).hexdigest()}
        self.memory.save()
        version = there.put(key, packed)
        lock = there.head(key, version)
        self.memory.held = held
        self.memory.copy = {
            "key": key,
            "version": version,
            "until": self.end_of(lock),
            "mode": lock["mode"],
            "number": index.number,
            "transaction": index.transaction,
            "settled": taken["settled"],
            "fingerprint": held["config"].sha256,
            "repository": index.repository,
            "madeAt": round(now),
            "size": index.size,
        }
        self.memory.written = None
        self.memory.save()
        if self.lock is not None and self.lock["days"] and lock["until"] is None:
            self.problems.append(f"the bucket {self.settings['bucket']} doesn't lock what is written to it")
        self.keep_locked(there)
        say(f"copy {index.number} is finished: {key}, {len(held)} files, {megabytes(index.size)}")

    # ---- the result -------------------------------------------------------------------------------------

    def result(self) -> dict[str, Any]:
        good = self.outcome != "failed"
        of = self.memory.copy
        named = ("key", "version", "number", "transaction", "repository", "size")
        return {
            **heading(self.settings, self.started),
            "ok": good and not self.problems,
            "outcome": self.outcome,
            "exitCode": FAILED if not good else WRONG if self.problems else RIGHT,
            "copy": of and {name: of[name] for name in named},
            "copyAt": of and of["madeAt"],
            "files": len(self.memory.held) if of else None,
            "uploadedFiles": self.uploaded,
            "uploadedBytes": self.uploaded_bytes,
            "extended": self.extended,
            "requests": self.bucket.requests if self.bucket else 0,
            "problems": self.problems,
            "notes": self.notes,
        }  # fmt: skip


def heading(settings: dict[str, Any], started: float) -> dict[str, Any]:
    """What every report begins with; the run ends now."""
    finished = time.time()
    return {
        "deployment": settings["deployment"],
        "started": moment(started),
        "finished": moment(finished),
        "startedAt": round(started),
        "finishedAt": round(finished),
    }


class Progress:
    """Says now and then how far it is."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.done, self.said_something = 0, False
        self.said = self.moved = time.monotonic()

    def step(self, size: int) -> None:
        self.at(self.done + size)

    def at(self, done: int) -> None:
        if done != self.done:
            self.done, self.moved = done, time.monotonic()
        if time.monotonic() - self.said >= PROGRESS_INTERVAL and self.total:
            self.said, self.said_something = time.monotonic(), True
            say(f"{min(done / self.total, 1):.0%} {self.what}: {megabytes(done)} of {megabytes(self.total)}")

    def standstill(self) -> float:
        """Seconds since something moved."""
        return time.monotonic() - self.moved


# ---- checking -------------------------------------------------------------------------------------------


def is_written(there: Bucket, of: Version, written: dict[str, str] | None) -> bool:
    """Whether an index in the bucket is what this machine was about to write."""
    if written is None or written["key"] != f"index/{of.path}" or of.size > bucket.LARGEST_INDEX:
        return False
    return there.checksum(f"index/{of.path}", of.id) == written["sha256"]


class Check:
    """One run of `check`: the bucket against the newest index in it."""

    def __init__(self, settings: dict[str, Any], everything: bool) -> None:
        self.settings = settings
        self.read_back: int | str = "all" if everything else settings["readBack"]
        self.started = time.time()
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.bucket: Bucket | None = None
        self.checked: dict[str, Any] = {}

    def run(self) -> None:
        """Raises NoCopy or BucketError where nothing can be checked."""
        self.bucket = there = connect(self.settings)
        found = there.describe()
        if not found["versioning"]:
            self.problems.append(f"the bucket {self.settings['bucket']} has no versioning")
        self.problems += bucket_problems(found, self.settings)
        key, version, index = self.newest(there)
        named = {(path, of.version) for path, of in index.objects.items()}
        listing = there.versions(FOLDER, lambda of: (of.path, of.id) in named)
        lost = bucket.absent(index, listing)
        if lost:
            self.problems.append(f"{len(lost)} files of the copy are not in the bucket any more, {lost[0]} for one")
        hidden = sorted(listing.hidden & index.objects.keys())
        if hidden:
            self.problems.append(
                f"{len(hidden)} files of the copy are hidden by delete markers, {hidden[0]} for one: somebody has"
                " deleted them by name. They are still there, and a restore finds them"
            )
        there_still = {path: of for path, of in index.objects.items() if path not in set(lost)}
        if found["lock"] is not None:
            self.check_locks(there, key, version, there_still)
        self.check_content(there, there_still)
        say(
            f"{key}: {len(index.objects)} files, {megabytes(index.size)}, in the bucket;"
            f" {self.checked['readBack']} of them read back, {megabytes(self.checked['readBackBytes'])}"
        )

    def newest(self, there: Bucket) -> tuple[str, str, Index]:
        """The newest index in the bucket, by the bucket's clock, which must be this machine's own last one."""
        copies, memory = self.copies(there)
        if not copies:
            raise NoCopy(f"the bucket {there.where} holds no finished copy of {self.settings['deployment']}")
        newest, own = copies[0], memory.copy
        if own is None:
            self.notes.append("this machine doesn't remember its last copy, so the bucket's newest is taken for it")
        elif (own["key"], own["version"]) == (f"index/{newest.path}", newest.id):
            pass
        elif is_written(there, newest, memory.written):
            self.notes.append("a copy was finishing, or was killed then; its index is this machine's")
        else:
            self.problems.append(
                f"the bucket's newest index, index/{newest.path} of {moment(newest.modified)}, was not written by this"
                f" machine, whose last is {own['key']}: somebody else has the writer's key"
            )
            newest = next((of for of in copies if (f"index/{of.path}", of.id) == (own["key"], own["version"])), None)
            if newest is None:
                raise NoCopy(f"the index {own['key']} of this machine's last copy is not in the bucket any more")
        hours = (time.time() - newest.modified) / 3600
        repository_moved = own is None or transaction_of(self.settings["repository"]) != own["settled"]
        if hours > self.settings["maxAge"] and repository_moved:
            self.problems.append(f"the newest copy is {hours:.0f} hours old, and the repository has changed since")
        key = f"index/{newest.path}"
        try:
            index = bucket.read_index(there, newest)
        except ValueError as error:
            raise NoCopy(f"the index {key} is no index: {error}") from error
        self.checked = {"copy": key, "version": newest.id, "number": index.number, "transaction": index.transaction}
        return key, newest.id, index

    def copies(self, there: Bucket) -> tuple[list[Version], Memory]:
        """What is in the bucket, and what this machine remembers of it: of one moment, while copies go on."""
        memory = Memory(self.settings)
        for _ in range(LOOKS):
            before, copies, memory = memory, bucket.copies_in(there), Memory(self.settings)
            if (before.copy, before.written) == (memory.copy, memory.written):
                break
        return copies, memory

    def check_locks(self, there: Bucket, key: str, version: str, objects: dict[str, Stored]) -> None:
        """The locks of a sample, or of all."""
        chosen = self.sample(objects)
        heads = bucket.in_parallel(lambda path: there.head(FOLDER + path, objects[path].version), chosen)
        heads.append(there.head(key, version))
        # `copy` has a day to lengthen what has come due since.
        limit = time.time() + (self.settings["keepDays"] - 1) * DAY
        short = [
            path
            for path, of in zip([*chosen, key], heads, strict=True)
            if of["until"] is None
            or of["until"] < limit
            or (of["mode"], self.settings["mode"]) == ("GOVERNANCE", "COMPLIANCE")
        ]
        self.checked["locks"] = len(heads)
        if short:
            self.problems.append(
                f"{len(short)} of {len(heads)} files looked at aren't locked in {self.settings['mode']} mode for"
                f" {self.settings['keepDays']} days more, {short[0]} for one"
            )

    def check_content(self, there: Bucket, objects: dict[str, Stored]) -> None:
        chosen = self.sample(objects)
        progress = Progress("read back", sum(objects[path].size for path in chosen))
        wrong = []
        for path in chosen:
            of = objects[path]
            digest = hashlib.sha256()
            for block in there.read(FOLDER + path, of.version):
                digest.update(block)
                progress.step(len(block))
            if digest.hexdigest() != of.sha256:
                wrong.append(path)
        if wrong:
            self.problems.append(f"{len(wrong)} files in the bucket aren't what was copied, {wrong[0]} for one")
        self.checked |= {"readBack": len(chosen), "readBackBytes": sum(objects[path].size for path in chosen)}

    def sample(self, objects: dict[str, Stored]) -> list[str]:
        """What to look at closely: all, or the files that a restore needs first and some of the segments."""
        segments = [path for path in objects if path.startswith("data/")]
        rest = [path for path in objects if not path.startswith("data/")]
        if self.read_back != "all":
            segments = random.sample(segments, min(int(self.read_back), len(segments)))
        return [*rest, *segments]

    def result(self, exit_code: int) -> dict[str, Any]:
        return {
            **heading(self.settings, self.started),
            "ok": exit_code == RIGHT,
            "exitCode": exit_code,
            **self.checked,
            "requests": self.bucket.requests if self.bucket else 0,
            "problems": self.problems,
            "notes": self.notes,
        }


# ---- the program ----------------------------------------------------------------------------------------


def remember(settings: dict[str, Any], name: str, result: dict[str, Any]) -> None:
    """Write the result into the state directory, with the time of the last success, this one or an earlier."""
    path = os.path.join(settings["state"], name)
    # A repository in use for hours is no failure, and no success either, nor is a run that only waited.
    copied = result.get("outcome") not in ("busy", "waiting")
    last_success = result["finishedAt"] if result["ok"] and copied else None
    if last_success is None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            with open(path, encoding="utf-8") as file:
                last_success = json.load(file).get("lastSuccessAt")
    result["lastSuccessAt"] = last_success
    write_atomically(path, json.dumps(plain_values(result), indent=2) + "\n")


def report(result: dict[str, Any]) -> None:
    for text in result["notes"][:MAX_LINES]:
        say(f"note: {text}")
    prefix = "<3>" if os.environ.get("JOURNAL_STREAM") else ""
    for text in result["problems"][:MAX_LINES]:
        complain(f"{prefix}problem: {text}")


def stopped(number: int, _frame: Any) -> None:
    for other in SIGNALS:  # once is enough; the rest is tidying up
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


def attempt(action: Callable[[], None], problems: list[str]) -> bool:
    """Run, and turn every way to fail into one line. Returns whether it came to its end."""
    try:
        action()
        return True
    except (NoCopy, BucketError) as error:
        problems.append(str(error))
    except Stopped as error:
        problems.append(f"stopped by {error}; the next run goes on from here")
    except OSError as error:
        problems.append(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return False


def copy(settings: dict[str, Any], only_extend: bool, settle: int, alone: OnlyOne) -> int:
    """The actions `copy` and `extend`."""
    run = Copy(settings, settle, alone)
    if only_extend:
        done = attempt(lambda: run.keep_locked(run.look()), run.problems)
        run.outcome = "extended" if done else "failed"
    elif not attempt(run.run, run.problems):
        run.outcome = "failed"
    result = run.result()
    if not only_extend:
        remember(settings, "last-copy.json", result)
    report(result)
    say(
        f"{run.outcome}: {run.uploaded} files uploaded, {megabytes(run.uploaded_bytes)}, {run.extended} locks"
        f" lengthened, {result['requests']} requests beside them, {time.time() - run.started:.0f} s"
    )
    return result["exitCode"]


def check(settings: dict[str, Any], everything: bool) -> int:
    run = Check(settings, everything)
    done = attempt(run.run, run.problems)
    result = run.result(FAILED if not done else WRONG if run.problems else RIGHT)
    remember(settings, "last-check.json", result)
    report(result)
    return result["exitCode"]


def describe(settings: dict[str, Any]) -> int:
    there = connect(settings)
    found = there.describe()
    print(json.dumps({**found, "problems": bucket_problems(found, settings)}))
    return RIGHT


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bucket_copy.py",
        description="Copy a borg repository to a bucket, keep the copies locked there, and check them. `copy` copies"
        " what is new and lengthens locks; `extend` only lengthens locks; `check` compares the bucket with its newest"
        " index and reads some of it back; `describe` prints the bucket's protection as JSON.",
        epilog="Exit codes: 0 all is well (also: nothing new, the repository in use and the last copy recent, or"
        " stopped while it only waited); 1 done, but something is wrong, which is named; 2 not done, the reason is"
        " named. Results are kept in the state directory: last-copy.json, last-check.json.",
    )
    parser.add_argument("action", choices=("copy", "check", "extend", "describe"), metavar="ACTION",
                        help="copy, check, extend or describe")  # fmt: skip
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup-bucket/DEPLOYMENT/bucket.json")
    parser.add_argument("--all", action="store_true", help="check: read everything back, whatever it costs")
    parser.add_argument("--settle", type=int, default=0, metavar="SECONDS",
                        help="copy: first wait until nobody has taken or given back the repository's lock for so long,"
                        " at most as long as for the lock itself; default 0")  # fmt: skip
    options = parser.parse_args(arguments)
    os.umask(0o077)
    for number in SIGNALS:
        signal.signal(number, stopped)
    try:
        settings = read_settings(options.settings)
        if options.action == "describe":
            return describe(settings)
        check_user(settings)
        with OnlyOne(settings, options.action) as alone:
            if options.action == "check":
                return check(settings, options.all)
            return copy(settings, options.action == "extend", options.settle, alone)
    except (NoCopy, BucketError) as error:
        complain(error)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error)
    except Stopped as error:
        complain(f"stopped by {error}")
    return FAILED


def check_user(settings: dict[str, Any]) -> None:
    """Files of another user in the repository would keep the next backup from being stored. Raises NoCopy."""
    # Its directory is root's where it is sealed; README stays with the account that borg serves it as.
    for path in (os.path.join(settings["repository"], "README"), settings["repository"]):
        with contextlib.suppress(FileNotFoundError):  # a repository that is gone is told of later
            owner = os.stat(path).st_uid
            if owner != os.geteuid():
                raise NoCopy(f"this must run as the user that owns {path} (user number {owner})")
            return


if __name__ == "__main__":
    exit_with(main)
