"""Decisions of a backup, apart from acting: what belongs to it, in which order, and what borg's answers mean.

Nothing here runs a program or changes a file.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import couch_files

# Where CHT's couchdb images keep their data (cht-core, `couchdb/Dockerfile` and compose templates).
DATA_IN_CONTAINER = "/opt/couchdb/data"
# Work that a compaction has not finished; CouchDB starts it again. A file that ends in `.couch.compact` is
# NOT among them: it is a finished one in the instant before it takes the place of its `.couch`.
UNFINISHED_COMPACTION = (".compact.data", ".compact.meta", ".compact.view")
# Full-text indexes of CHT 5. CouchDB rebuilds them; restored ahead of their shards they could stay stale.
LEFT_OUT = "nouveau"
SHARD_DATABASE = re.compile(r"^shards/[0-9a-f]{8}-[0-9a-f]{8}/(.+)\.\d+\.couch")


def data_directories(setting: list[str], env: dict[str, str], mounts: list[str]) -> list[str]:
    """CouchDB's data directories: those of the setting; else what the containers mount at /opt/couchdb/data;
    else what `.env` names (see `named_data`). May be empty.

    A relative path in `.env` depends on how Compose was called, so it isn't guessed.
    """
    named = named_data(env)
    chosen = setting or mounts or (named if all(path.startswith("/") for path in named) else [])
    return [os.path.normpath(path) for path in dict.fromkeys(chosen)]


def named_data(env: dict[str, str]) -> list[str]:
    """CouchDB's data directories by `.env`: `COUCHDB_DATA`; else `DB1_DATA`, `DB2_DATA`, … (clustered)."""
    clustered = sorted(
        (name for name in env if re.fullmatch(r"DB\d+_DATA", name)), key=lambda name: int(name[2:-5])
    )
    return [env[name] for name in (["COUCHDB_DATA"] if env.get("COUCHDB_DATA") else clustered) if env[name]]


def below(path: str, directory: str) -> bool:
    """Whether a path is a directory, or in it."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def on_host(path: str, mounts: list[dict[str, str]]) -> str | None:
    """Where a path of a container is on the host, by its mounts; None for what isn't mounted."""
    above = [mount for mount in mounts if below(path, mount["destination"])]
    if not above:
        return None
    mount = max(above, key=lambda mount: len(mount["destination"]))
    return os.path.normpath(mount["source"] + path[len(mount["destination"].rstrip("/")) :])


def stage(path: str) -> int:
    """When a path, relative to a data directory, must be copied:

    0. `.shards` (views): a view copied after its shard would be ahead of it, which CouchDB doesn't notice.
    1. `_dbs.couch` and other databases of the node: a database made while the copy runs is then not listed.
    2. the shards of `medic-sentinel`; 3. of all other databases; 4. of `medic`: what sentinel and others
       noted about a document must not be ahead of the document.
    5. the rest.
    """
    top = path.split("/")[0]
    if top.startswith("."):
        return 5 if top == ".delete" else 0
    shard = SHARD_DATABASE.match(path)
    if shard is not None:
        return {"medic-sentinel": 2, "medic": 4}.get(shard[1], 3)
    return 1 if path.endswith(".couch") else 5


def copied_in_order(trees: dict[str, list[str]]) -> list[str]:
    """Put the paths of data directories (relative ones by directory, "" for itself) in the order in which
    they must be copied (see `stage`), as absolute paths. The order holds for all nodes of a cluster
    together. A directory comes before the first path in it."""
    known = {(directory, path) for directory, paths in trees.items() for path in paths}
    parents = {(directory, parent) for directory, path in known for parent in _parents(path)} & known
    ordered: dict[str, None] = {}
    for _stage, directory, path in sorted(
        (stage(path), directory, path) for directory, path in known - parents
    ):
        for part in [*reversed(_parents(path)), path]:
            if (directory, part) in known:
                ordered.setdefault(os.path.join(directory, part) if part else directory)
    return list(ordered)


def _parents(path: str) -> list[str]:
    found = []
    while path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found


def shards(paths: Iterable[str]) -> dict[str, tuple[int, frozenset[str]]]:
    """By database, when it was made (its files' names say so) and the ranges of its shards. `paths` are
    relative to a data directory. Of a database that was made again the newer one counts."""
    found: dict[str, tuple[int, frozenset[str]]] = {}
    for path in paths:
        shard = couch_files.SHARD.match(path)
        if shard is None:
            continue
        range_, name, epoch = f"{shard[1]}-{shard[2]}", shard[3], int(shard[4])
        known = found.get(name, (epoch, frozenset()))
        if epoch >= known[0]:
            found[name] = (epoch, (known[1] if epoch == known[0] else frozenset()) | {range_})
    return found


def without_numbers(text: str) -> str:
    """A line about a file without the numbers in it, which may grow from one look to the next. Those in names
    of files stay."""
    return re.sub(r"(?<![\w./-])\d[\d,]*(?![\w./-])", "#", text)


def damaged(problem: str) -> str | None:
    """The database in whose files a problem of a backup is; None for other problems."""
    gap = re.match(r"CouchDB's files: (.+): no shard for ", problem)
    file = re.match(
        r"CouchDB's files: \S*shards/[0-9a-f]{8}-[0-9a-f]{8}/(.+?)\.\d+(?:\.couch|_design/)", problem
    )
    listed = re.match(r"CouchDB lists the database (.+), but no file of it is in ", problem)
    found = gap or file or listed
    return found[1] if found else None


@dataclass(frozen=True)
class Tree:
    """What is in a directory and belongs to the backup."""

    paths: list[str]
    """Everything, relative to the directory; the directory itself is ""."""
    sizes: dict[str, int]
    """Sizes of the regular files in bytes."""
    links: list[str]
    """The links among the paths."""
    special: list[str]
    """What is left out, in words: pipes, sockets and devices can't be saved, and opening one may wait for
    ever."""
    unread: list[str]
    """What can't be saved, though it should, with the reason."""


def unnameable(path: str, target: str = "") -> str | None:
    """Why a file can't be saved because of its name, or a link because of its target; None when it can.
    borg's list of an archive shows what isn't UTF-8 as question marks, so a restore couldn't tell whether it
    is what was saved."""
    try:
        f"{path}{target}".encode()
        return None
    except UnicodeEncodeError:
        which = f"{path} (a link to {target})" if target else path
        return f"{which} is not backed up: the name isn't UTF-8; rename it"


def special(mode: int) -> str | None:
    """What a file is that can't be saved, by its mode; None for files, directories and links."""
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a device"))
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        return None
    return next((kind for test, kind in kinds if test(mode)), "a device")


def walk(directory: str, exclude: Iterable[str] = (), closed: Iterable[str] = ()) -> Tree:
    """List a directory with everything below it, apart from `exclude` (paths below it), unfinished
    compactions, what isn't a file, directory or link, and what is in the directories `closed`. What vanishes
    meanwhile is left out. Raises OSError when `directory` itself can't be read."""
    tree = Tree([""], {}, [], [], [])
    excluded, shut = set(exclude), set(closed)

    def visit(folder: str) -> None:
        with os.scandir(os.path.join(directory, folder)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{folder}/{entry.name}" if folder else entry.name
                if path in excluded or entry.name.endswith(UNFINISHED_COMPACTION):
                    continue
                try:
                    of = entry.stat(follow_symlinks=False)
                    full = os.path.join(directory, path)
                    if why := unnameable(full, os.readlink(full) if stat.S_ISLNK(of.st_mode) else ""):
                        tree.unread.append(why)
                        continue
                    if kind := special(of.st_mode):
                        tree.special.append(f"{full} is {kind} and is left out")
                        continue
                    tree.paths.append(path)
                    if stat.S_ISREG(of.st_mode):
                        tree.sizes[path] = of.st_size
                    elif stat.S_ISLNK(of.st_mode):
                        tree.links.append(path)
                    elif path not in shut:
                        visit(path)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError as error:
                    tree.unread.append(f"{os.path.join(directory, path)} can't be read: {error.strerror}")

    visit("")
    return tree


_CHT_IMAGE = re.compile(
    r"(?:^|/)cht-(?:api|sentinel|nginx|couchdb(?:-nouveau)?|haproxy(?:-healthcheck)?):([^@/:]+)"
)


def cht_version(images: dict[str, str]) -> str | None:
    """CHT's version from the images of its services ({"api": "public.ecr.aws/medic/cht-api:4.21.0"}):
    the tag of the api's image, else of the first of CHT's images; None without one."""
    for service in ["api", *sorted(images)]:
        match = _CHT_IMAGE.search(images.get(service, ""))
        if match:
            return match[1]
    return None


# What borg says about files that changed or went away while it read, in 1.2 and in 1.4. CouchDB appends to
# its files all the time and a compaction swaps them, so both are normal.
_CHANGED = re.compile(
    r"file changed while we backed it up|file type or inode of file changed|race condition", re.I
)
# A lock that a killed run left behind.
_STALE = re.compile(r"Killed stale lock|Removed stale .* lock")
_VANISHED = re.compile(r"^(?P<path>.*?): (?:\w+: )?\[Errno 2\]|^(?P<other>.*?): file not found", re.I)


@dataclass(frozen=True)
class Answer:
    """What a `borg create` meant."""

    may_have_archive: bool
    """Whether an archive can exist, so that it is worth looking for."""
    vanished: list[str]
    """Files that were gone when borg came to them."""
    problems: list[str]
    """What is wrong, one line each; empty when all is well."""


def read_answer(exit_code: int | None, warnings: Iterable[str]) -> Answer:
    """Read borg's exit code and warnings exactly.

    0 is fine. 1 (any warning in borg 1.2, mixed ones in 1.4 with BORG_EXIT_CODES=modern) and 100 to 127
    (one kind of warning) mean that an archive was made; whether something is missing in it is in the
    warnings themselves. Everything else (2, 3 to 99, a signal, none) means that there is none.
    Source: borg 1.4, "Return codes" in `usage/general/return-codes.rst.inc`.
    """
    lines = [line.strip() for line in warnings if line.strip()]
    if exit_code is None or not (exit_code in (0, 1) or 100 <= exit_code <= 127):
        return Answer(False, [], [explain(exit_code, lines)])
    if exit_code == 0:  # whatever it remarked (a lock of a killed run that it removed) does no harm
        return Answer(True, [], [])
    vanished, unread, understood = [], [], False
    for line in lines:
        gone = _VANISHED.match(line)
        if gone:
            vanished.append(gone["path"] or gone["other"])
        elif not _CHANGED.search(line) and not _STALE.search(line):
            unread.append(f"borg warns: {line}")
        understood = understood or not _STALE.search(line)
    if not understood and exit_code not in (100, 103):
        unread.append(f"borg ended with {exit_code} and didn't say why")
    return Answer(True, vanished, unread)


_ENDED = "the backup server ended the connection"

# In this order: what names the cause before what is only its consequence.
_REASONS = (
    (
        r"No space left on device.*/\.cache/borg/",
        "this machine's own disk is full, so borg can't keep its cache",
    ),
    (
        r"No space left on device|Insufficient free space|additional_free_space",
        "the backup server's disk is full",
    ),
    (
        r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED|host key is known",
        "the backup server's host key is not the pinned one",
    ),
    (r"Permission denied \(", "the backup server refuses this machine's SSH key"),
    (r"Could not resolve hostname", "the backup server's name can't be resolved"),
    (
        r"Connection refused|timed out|No route to host|is unreachable|Connection reset|not responding",
        "the backup server can't be reached",
    ),
    (
        r"Failed to create/acquire the lock \S*/\.cache/borg/",
        "another borg on this machine is using borg's cache, or left its lock there",
    ),
    (r"Failed to create/acquire the lock", "another borg holds the repository's lock"),
    (r"passphrase supplied .* is incorrect", "the passphrase doesn't open the repository"),
    (r"Repository .* does not exist|is not a valid repository", "there is no borg repository at that place"),
    (
        r"previously located at|encryption method changed|unknown unencrypted|Repository access aborted",
        "this is not the repository that was backed up to before",
    ),
    (
        r"is newer than (this )?repository|manifest is older",
        "the repository was set back to an older state, or is a copy",
    ),
    (
        r"Connection closed|remote host is broken|Is borg working on the server|Broken [Pp]ipe"
        r"|kex_exchange_identification",
        _ENDED,
    ),
)


def explain(exit_code: int | None, lines: Iterable[str]) -> str:
    """Why borg made no archive: one line that an operator understands, with borg's own words after it."""
    text = without_traceback([line for line in lines if line])
    for pattern, meaning in _REASONS:
        for line in reversed(text):
            if re.search(pattern, line):
                return f"{meaning} ({line})"
    last = text[-1] if text else "no reason given"
    return f"borg ended with {'no exit code' if exit_code is None else exit_code}: {last}"


def lacks_cause(exit_code: int | None, lines: Iterable[str]) -> bool:
    """Whether borg tells no more than that the connection ended. Where ssh fails at once, borg often ends
    before it has read ssh's words (in a quarter of the runs, measured with 1.4.5)."""
    return exit_code != 0 and explain(exit_code, lines).startswith(_ENDED)


_EXCEPTION = re.compile(r"^(?:Remote: )?(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:: |$)")
_FRAME = re.compile(r'^(?:Remote: )?File "')
# What surrounds a traceback in borg's words: about the machine and the call, nothing about the cause.
_ABOUT = re.compile(
    r"^(?:Remote: )?(?:(?:Local|Remote) Exception$|Traceback \(most recent|Platform: |Linux: |Borg: \d"
    r"|PID: \d|sys\.argv: |SSH_ORIGINAL_COMMAND: )"
)


def without_traceback(lines: list[str]) -> list[str]:
    """borg's words without its tracebacks, but for the line that names the exception. The lines have lost
    their indentation, so code is told from the rest by where it stands: behind the file that it is in."""
    kept: list[str] = []
    inside = False
    for line in lines:
        if _FRAME.match(line):
            inside = True
        elif inside:
            if _EXCEPTION.match(line):
                inside = False
                kept.append(line)
        elif not _ABOUT.match(line):
            kept.append(line)
    return kept


_BORGS_OWN_FRAME = re.compile(r'^File "(?:.*/)?borg/([^"]+)"')
_CACHE_CODE = ("cache.py", "hashindex.pyx", "crypto/file_integrity.py")
_CACHE_FILE = re.compile(r"(?:failed integrity check: |^Exception: )\S*/\.cache/borg/")
# A new cache wouldn't do better: no space, no permission, a file system that is read-only.
_NOT_THE_CACHE = re.compile(r"\[Errno (?:28|13|1|30|122)\]|^MemoryError")


def broken_cache(exit_code: int | None, lines: Iterable[str]) -> str | None:
    """borg's line about its cache on this machine being lost or damaged; None when a failure has another
    cause, or there is none.

    borg 1.x ends with an exception from its cache's code there, with exit code 2 (1.4 has 91 for a file that
    fails its check). A cache or a security directory that is newer than the repository is no damage but may
    be an attack: borg says so without a traceback, and it is never taken for damage.
    """
    text = [line for line in lines if line]
    if exit_code in (0, 1) or (exit_code is not None and 100 <= exit_code <= 127):
        return None
    named = next((line for line in text if _CACHE_FILE.search(line)), None)
    frames = [frame[1] for frame in map(_BORGS_OWN_FRAME.match, text) if frame]
    if named is None and not (frames and frames[-1] in _CACHE_CODE):
        return None
    told = without_traceback(text)
    if any(_NOT_THE_CACHE.search(line) for line in told):
        return None
    return named or (told[-1] if told else "it gave no reason")


def is_counter(content: bytes) -> bool:
    """Whether a file holds a count as borg keeps it."""
    return re.fullmatch(rb"[0-9a-fA-F]{16}\s*", content) is not None


def created(output: str) -> dict[str, Any]:
    """The archive in what `borgmatic create --json` printed; empty when there is none."""
    try:
        found = json.loads(output)[0]["archive"]
    except (ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def first_counter(now: float) -> str:
    """From where a machine that has never written to a repository counts in its encryption, as borg 1.x keeps
    it (`nonce` in its security directory, `crypto/nonces.py`).

    No two blocks may be encrypted with one number (AES-CTR). Where borg asks for the last one, the server,
    may be lying: it could hide archives that another machine made before. In 2^31 numbers a second 32 GiB a
    second could have been stored, so all that were ever used are below this.
    """
    return f"{int(now) << 31:016x}"


def repository_id(output: str) -> str | None:
    """The repository's id in what `borgmatic repo-info --json` printed; None where that failed."""
    try:
        found = json.loads(output)[0]["repository"]["id"]
    except (ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found) else None


def metrics(result: dict[str, Any], last_success: float | None) -> str:
    """A run's result (`last-backup.json`) in Prometheus' text format. Times are seconds since 1970, UTC."""
    label = f'{{deployment="{result["deployment"]}"}}'
    values: list[tuple[str, str, Any]] = [
        ("last_run_timestamp_seconds", "When the last backup ended.", result["finishedAt"]),
        ("last_success_timestamp_seconds", "When a complete backup last ended.", last_success),
        ("last_run_success", "1 if the last backup was complete, else 0.", int(result["ok"])),
        (
            "last_run_duration_seconds",
            "How long the last backup took.",
            result["finishedAt"] - result["startedAt"],
        ),
        (
            "last_run_exit_code",
            "0 complete, 1 made but something is missing, 2 none made, 70 a fault of the program.",
            result["exitCode"],
        ),
        ("original_bytes", "Size of the files in the last archive.", result["originalSize"]),
        ("compressed_bytes", "Their size compressed.", result["compressedSize"]),
        ("deduplicated_bytes", "What the last archive added to the repository.", result["deduplicatedSize"]),
        ("files", "Number of files in the last archive.", result["files"]),
    ]
    lines = []
    for name, meaning, value in values:
        if value is not None:
            lines += [f"# HELP cht_backup_{name} {meaning}", f"# TYPE cht_backup_{name} gauge"]
            lines.append(
                f"cht_backup_{name}{label} {value:.17g}"
                if isinstance(value, float)
                else f"cht_backup_{name}{label} {value}"
            )
    return "\n".join(lines) + "\n"
