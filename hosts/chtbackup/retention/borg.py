"""borg for retention: run by root on the server, as the account that receives the backups.

It isn't `borg/client.py`: that one reads archives over SSH, is lenient with borg's warnings, where a check that finds
damage warns, and imports what reads CouchDB's files, which a server doesn't have.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from typing import IO, Any

from chtbackup.base import programs
from chtbackup.base.text import plain
from chtbackup.borg.json_log import of_log, texts
from chtbackup.borg.start import passphrase_pipe
from chtbackup.repository.seals import Repository
from chtbackup.repository.transactions import seconds_of

LOCK_WAIT = 3600  # seconds that a backup or a copy may still hold the repository
LONGEST_MANIFEST = 256 << 20
MANIFEST = r"re:^run/cht-backup/[^/]+/collect/manifest-after\.json\Z"
FOLDER = "retention-"  # how directories for borg begin


class Refused(Exception):
    """The text says why, for the operator."""


def begin_of(listed: dict[str, Any]) -> int | None:
    """When an archive that borg lists began, as it says of itself; None where it says no time."""
    try:
        return seconds_of(str(listed.get("start") or listed.get("time")))
    except ValueError:
        return None


def documents_of(manifest: str) -> dict[str, int] | None:
    """Documents by database as the second part of an archive's manifest says; None where it doesn't. A client has
    written it."""
    try:
        counts = json.loads(manifest)["counts"]["databases"]
        return {str(name): int(of["documents"]) for name, of in counts.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


class Borg:
    """borg on this machine, as the repository's account, with files of its own that go afterwards: what somebody put
    into a cache that stays would decide which chunks are removed."""

    def __init__(self, repository: Repository, passphrase: str) -> None:
        self.repository, self.passphrase = repository, passphrase
        self.folder = tempfile.mkdtemp(prefix=FOLDER, dir=repository.state)
        os.chown(self.folder, repository.uid, repository.gid)
        self.child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Borg:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *words: str, limit: int = 1 << 30) -> str:
        """What borg prints. Raises Refused with its last words."""
        built = os.path.join(os.path.dirname(programs.PACKAGE), "borg", "bin")
        reader = passphrase_pipe(self.passphrase)
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            try:
                self.child = subprocess.Popen(
                    ["borg", "--lock-wait", str(LOCK_WAIT), *words],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace",
                    cwd="/", pass_fds=[reader], start_new_session=True, umask=0o077,
                    user=self.repository.uid, group=self.repository.gid, extra_groups=[],
                    env={
                        "PATH": f"{built}:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TZ": "UTC",
                        "HOME": self.folder, "BORG_BASE_DIR": self.folder, "BORG_PASSPHRASE_FD": str(reader),
                        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
                        "BORG_CHECK_I_KNOW_WHAT_I_AM_DOING": "NO", "BORG_DELETE_I_KNOW_WHAT_I_AM_DOING": "NO",
                    },
                )  # fmt: skip
            finally:
                os.close(reader)
            try:
                printed = self._read(self.child.stdout, limit)
                code = self.child.wait()
            except BaseException:
                self.stop()
                raise
            errors.seek(0)
            said = " ".join(texts(of_log(errors.read()))[-3:])
        if code != 0:
            raise Refused(f"borg {words[0]} failed (exit code {code}): {plain(said)}")
        return printed

    @staticmethod
    def _read(stream: IO[str] | None, limit: int) -> str:
        assert stream is not None
        printed = stream.read(limit)
        if stream.read(1):
            raise Refused("borg printed more than can be meant")
        return printed

    def stop(self) -> None:
        """Ends borg, in order first, so that it gives its lock back."""
        if self.child is None or self.child.poll() is not None:
            return
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def listed(self) -> tuple[str, list[dict[str, Any]]]:
        """The repository's id, and all archives with what interrupted backups have left."""
        of = json.loads(self.run("list", "--consider-checkpoints", "--json", self.repository.path))
        return of["repository"]["id"], of["archives"]

    def documents(self, name: str) -> dict[str, int] | None:
        try:
            location = f"{self.repository.path}::{name}"
            return documents_of(self.run("extract", "--stdout", location, MANIFEST, limit=LONGEST_MANIFEST))
        except Refused:
            return None  # by hand, or of another program


def remove_left(state: str) -> None:
    """Remove the directories for borg of runs that were killed."""
    for name in os.listdir(state):
        if name.startswith(FOLDER):
            shutil.rmtree(os.path.join(state, name), ignore_errors=True)
