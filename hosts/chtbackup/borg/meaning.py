"""What borg's exit codes and words mean for a backup. Nothing here runs a program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chtbackup.borg.json_log import Message

# What borg says of a file that changed or was swapped while it was read. CouchDB appends to its files all the time and
# compactions swap them, so both are normal.
_CHANGED = {"FileChangedWarning", "BackupRaceConditionError"}
_VANISHED = {"BackupFileNotFoundError"}
# borg 1.2 gives its warnings no ids, so there the words must do.
_CHANGED_WORDS = re.compile(
    r"file changed while we backed it up|file type or inode of file changed|race condition", re.I
)
_VANISHED_WORDS = re.compile(r"^(?P<path>.*?): (?:\w+: )?\[Errno 2\]|^(?P<other>.*?): file not found", re.I)
# A lock that a killed run left behind. No borg gives this an id.
_STALE = re.compile(r"Killed stale lock|Removed stale .* lock")
_ENDED = "the backup server ended the connection"
_OF_CACHE = r"/\.cache/borg/"
# What a message means that has one of the ids (any, where there are none) and whose text has the words (any). The words
# are those of ssh and the kernel, which borg passes on without an id, or a path. In this order: what names the cause
# before what is only its consequence.
_REASONS: tuple[tuple[set[str], str, str], ...] = (
    (set(), rf"No space left on device.*{_OF_CACHE}", "this machine's own disk is full, so borg can't keep its cache"),
    (set(), r"No space left on device", "the backup server's disk is full"),
    ({"InsufficientFreeSpaceError"}, "", "the backup server's disk is full"),
    (
        set(),
        r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED|host key is known",
        "the backup server's host key is not the pinned one",
    ),
    (set(), r"Permission denied \(", "the backup server refuses this machine's SSH key"),
    (set(), r"Could not resolve hostname", "the backup server's name can't be resolved"),
    (
        set(),
        r"Connection refused|timed out|No route to host|is unreachable|Connection reset|not responding",
        "the backup server can't be reached",
    ),
    (
        {"LockTimeout", "LockFailed", "LockError", "LockErrorT"},
        _OF_CACHE,
        "another borg on this machine is using borg's cache, or left its lock there",
    ),
    ({"LockTimeout", "LockFailed", "LockError", "LockErrorT"}, "", "another borg holds the repository's lock"),
    ({"PassphraseWrong", "PasswordRetriesExceeded"}, "", "the passphrase doesn't open the repository"),
    (
        {"Repository.DoesNotExist", "Repository.InvalidRepository"},
        "",
        "there is no borg repository at that place",
    ),
    (
        {"CacheInitAbortedError", "RepositoryAccessAborted", "EncryptionMethodMismatch"},
        "",
        "this is not the repository that was backed up to before",
    ),
    (
        {"RepositoryReplay", "RepositoryIDNotUnique"},
        "",
        "the repository was set back to an older state, or is a copy",
    ),
    ({"ConnectionClosed", "ConnectionClosedWithHint", "ConnectionBrokenWithHint"}, "", _ENDED),
    (set(), r"Connection closed|Broken [Pp]ipe|kex_exchange_identification", _ENDED),
)
_CACHE_CODE = ("cache.py", "hashindex.pyx", "crypto/file_integrity.py")
# An exception's text, in a traceback: it names a file of the cache.
_CACHE_FILE = re.compile(r"(?:failed integrity check: |^Exception: )\S*/\.cache/borg/")
# A new cache wouldn't do better: no space, no permission, a file system that is read-only.
_NOT_THE_CACHE = re.compile(r"\[Errno (?:28|13|1|30|122)\]|^MemoryError")


def without_numbers(text: str) -> str:
    """A line about a file without the numbers in it, which may grow from one look to the next. Those in names
    of files stay."""
    return re.sub(r"(?<![\w./-])\d[\d,]*(?![\w./-])", "#", text)


def damaged(problem: str) -> str | None:
    """The database in whose files a problem of a backup is; None for other problems."""
    gap = re.match(r"CouchDB's files: (.+): no shard for ", problem)
    file = re.match(r"CouchDB's files: \S*shards/[0-9a-f]{8}-[0-9a-f]{8}/(.+?)\.\d+(?:\.couch|_design/)", problem)
    listed = re.match(r"CouchDB lists the database (.+), but no file of it is in ", problem)
    found = gap or file or listed
    return found[1] if found else None


@dataclass(frozen=True)
class Answer:
    """What a `borg create` meant."""

    may_have_archive: bool
    """Whether an archive can exist, so that it is worth looking for."""
    vanished: list[str]
    """Files that were gone when borg came to them."""
    problems: list[str]
    """What is wrong, one line each; empty when all is well."""


def read_answer(exit_code: int | None, messages: Iterable[Message]) -> Answer:
    """Read borg's exit code and warnings exactly.

    0 is fine. 1 (any warning in borg 1.2, mixed ones in 1.4 with BORG_EXIT_CODES=modern) and 100 to 127
    (one kind of warning) mean that an archive was made; whether something is missing in it is in the
    warnings themselves. Everything else (2, 3 to 99, a signal, none) means that there is none.
    Source: borg 1.4, "Return codes" in `usage/general/return-codes.rst.inc`.
    """
    said = list(messages)
    if exit_code is None or not (exit_code in (0, 1) or 100 <= exit_code <= 127):
        return Answer(False, [], [explain(exit_code, said)])
    if exit_code == 0:  # whatever it remarked (a lock of a killed run that it removed) does no harm
        return Answer(True, [], [])
    vanished, unread, understood = [], [], False
    for message in said:
        gone = None if message.id and message.kind not in _VANISHED else _VANISHED_WORDS.match(message.text)
        if gone:
            vanished.append(gone["path"] or gone["other"])
        elif not _is_change(message) and not _STALE.search(message.text):
            unread.append(f"borg warns: {message.text}")
        understood = understood or not _STALE.search(message.text)
    if not understood and exit_code not in (100, 103):
        unread.append(f"borg ended with {exit_code} and didn't say why")
    return Answer(True, vanished, unread)


def _is_change(message: Message) -> bool:
    return message.kind in _CHANGED or (not message.id and _CHANGED_WORDS.search(message.text) is not None)


def explain(exit_code: int | None, messages: Iterable[Message]) -> str:
    """Why borg made no archive: one line that an operator understands, with borg's own words after it."""
    said = [message for message in messages if message.text]
    for ids, words, meaning in _REASONS:
        for message in reversed(said):
            if (not ids or {message.id, message.kind} & ids) and re.search(words, message.text):
                return f"{meaning} ({message.text})"
    last = said[-1].text if said else "no reason given"
    return f"borg ended with {'no exit code' if exit_code is None else exit_code}: {last}"


def lacks_cause(exit_code: int | None, messages: Iterable[Message]) -> bool:
    """Whether borg tells no more than that the connection ended. Where ssh fails at once, borg often ends
    before it has read ssh's words (in a quarter of the runs, measured with 1.4.5)."""
    return exit_code != 0 and explain(exit_code, messages).startswith(_ENDED)


def broken_cache(exit_code: int | None, messages: Iterable[Message]) -> str | None:
    """borg's line about its cache on this machine being lost or damaged; None when a failure has another
    cause, or there is none.

    borg 1.x ends with an exception from its cache's code there, with exit code 2 (1.4 has 91 for a file that
    fails its check). A cache or a security directory that is newer than the repository is no damage but may
    be an attack: borg says so without a traceback, and it is never taken for damage.
    """
    said = [message for message in messages if message.text]
    if exit_code in (0, 1) or (exit_code is not None and 100 <= exit_code <= 127):
        return None
    named = next((message.text for message in said if _CACHE_FILE.search(message.text)), None)
    frames = [frame for message in said for frame in message.frames]
    if named is None and not (frames and frames[-1] in _CACHE_CODE):
        return None
    if any(_NOT_THE_CACHE.search(message.text) for message in said):
        return None
    return named or (said[-1].text if said else "it gave no reason")


def is_counter(content: bytes) -> bool:
    """Whether a file holds a count as borg keeps it."""
    return re.fullmatch(rb"[0-9a-fA-F]{16}\s*", content) is not None


def created(output: str) -> dict[str, Any]:
    """The archive in what `borg create --json` printed; empty when there is none."""
    try:
        found = json.loads(output)["archive"]
    except (ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def listed(output: str) -> list[dict[str, Any]] | None:
    """The archives in what `borg list --json` printed; None where that failed."""
    try:
        found = json.loads(output)["archives"]
    except (ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, list) else None


def first_counter(now: float) -> str:
    """From where a machine that has never written to a repository counts in its encryption, as borg 1.x keeps
    it (`nonce` in its security directory, `crypto/nonces.py`).

    No two blocks may be encrypted with one number (AES-CTR). Where borg asks for the last one, the server,
    may be lying: it could hide archives that another machine made before. In 2^31 numbers a second 32 GiB a
    second could have been stored, so all that were ever used are below this.
    """
    return f"{int(now) << 31:016x}"


def repository_id(output: str) -> str | None:
    """The repository's id in what `borg list --json` printed; None where that failed."""
    try:
        found = json.loads(output)["repository"]["id"]
    except (ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found) else None
