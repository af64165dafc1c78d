"""Take a snapshot of a borg repository's newest finished state. Run by copy.py under borg's own lock:

    borg with-lock REPOSITORY python3 chtbackup snapshot REPOSITORY DIRECTORY

Borg writes segments, index, hints and integrity files once, and then renames or deletes them; so these are hard
links, and the snapshot takes moments and next to no space. `config` (which borg overwrites with random bytes when it
replaces it, unless there is another link), `transactions` (which grows) and the other small ones are copied.

In a sealed repository, segments belong to root, and the kernel lets no other account make hard links of them
(fs.protected_hardlinks). They are symbolic links: borg can neither change nor remove what is root's, so they stay what
they are for as long as the copy's own lock is held, which whoever compacts must hold, too.
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import json
import os
import shutil
import sys

from chtbackup.bucket.plan import NoCopy
from chtbackup.repository.segment_log import newest_index

COPIED = ("config", "nonce", "README", "transactions")
LINKED = ("index", "hints", "integrity")


def transaction_of(repository: str) -> int | None:
    """borg's number of the newest finished state. Raises NoCopy where there is no repository."""
    try:
        if "config" not in os.listdir(repository):
            raise NoCopy(f"{repository} is no borg repository (is its disk mounted?)")
        return newest_index(repository)
    except OSError as error:
        raise NoCopy(f"the repository {repository} can't be read: {error.strerror}") from error


def newest_segment(repository: str) -> int | None:
    """The highest number of a segment, committed or not."""
    data = os.path.join(repository, "data")
    for folder in sorted((int(name) for name in os.listdir(data) if name.isdigit()), reverse=True):
        segments = [int(name) for name in os.listdir(os.path.join(data, str(folder))) if name.isdigit()]
        if segments:
            return max(segments)
    return None


def fingerprint(repository: str) -> str:
    """Checksum of `config`, which holds the key and may change without a transaction."""
    with open(os.path.join(repository, "config"), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def repository_id(config: str) -> str:
    """borg's id of a repository. Raises NoCopy for a damaged `config`, part of which a client may write."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(config, encoding="utf-8") as file:
            parser.read_file(file)
        return parser["repository"]["id"].strip()
    except (configparser.Error, KeyError, UnicodeDecodeError):
        raise NoCopy("the repository's config is damaged: it has no id that can be read") from None


def is_sealed(of: os.stat_result, user: int) -> bool:
    """Whether a segment is root's, and the user, another one, may only read it."""
    return of.st_uid == 0 != user


def take_snapshot(repository: str, target: str) -> dict[str, int]:
    """Put the repository's newest finished state into an empty directory on the same file system. The repository
    must be locked. Returns `transaction`, and `settled`: the transaction that borg's `with-lock` makes when it gives
    the lock back, which changes nothing. Raises NoCopy or OSError."""
    transaction = transaction_of(repository)
    if transaction is None:
        raise NoCopy(f"the repository {repository} holds no finished transaction yet")
    os.makedirs(os.path.join(target, "data"), mode=0o700)
    for name in COPIED:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(os.path.join(repository, name), os.path.join(target, name))
    for kind in LINKED:
        name = f"{kind}.{transaction}"
        with contextlib.suppress(FileNotFoundError):
            _link(os.path.join(repository, name), os.path.join(target, name))
    newest = transaction
    for folder in os.listdir(os.path.join(repository, "data")):
        if not folder.isdigit():
            continue
        os.mkdir(os.path.join(target, "data", folder))
        for segment in os.scandir(os.path.join(repository, "data", folder)):
            if not segment.name.isdigit():
                continue
            newest = max(newest, int(segment.name))
            # What comes after the last commit doesn't count, nor does what borg has emptied to delete it.
            of = segment.stat()
            if int(segment.name) <= transaction and of.st_size > 0:
                link = os.symlink if is_sealed(of, os.geteuid()) else _link
                link(segment.path, os.path.join(target, "data", folder, segment.name))
    # with-lock has written a segment with what was there already, and will write the commit into the next.
    return {"transaction": transaction, "settled": newest + 1}


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NoCopy(
            f"{source} can't be linked into the snapshot: {error.strerror}"
            " (both must be on one file system that knows hard links, and belong to one user)"
        ) from error


def main(arguments: list[str] | None = None) -> int:
    """borg passes on the exit code, and what is printed: a line of JSON, or one that begins with `snapshot: `."""
    os.umask(0o077)
    repository, target = sys.argv[1:] if arguments is None else arguments
    try:
        taken = take_snapshot(repository, target)
    except (NoCopy, OSError) as error:
        print(f"snapshot: {error}", flush=True)
        return 2
    print(json.dumps(taken), flush=True)
    return 0
