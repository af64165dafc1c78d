"""Decisions of a backup, apart from acting: what belongs to it, in which order, and what borg's answers mean.

Nothing here runs a program or changes a file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Where CHT's couchdb images keep their data (cht-core, `couchdb/Dockerfile` and compose templates).
DATA_IN_CONTAINER = "/opt/couchdb/data"
# Work that a compaction has not finished; CouchDB starts it again. A file that ends in `.couch.compact` is
# NOT among them: it is a finished one in the instant before it takes the place of its `.couch`.
UNFINISHED_COMPACTION = (".compact.data", ".compact.meta", ".compact.view")
# Full-text indexes of CHT 5. CouchDB rebuilds them; restored ahead of their shards they could stay stale.
LEFT_OUT = "nouveau"
SHARD_DATABASE = re.compile(r"^shards/[0-9a-f]{8}-[0-9a-f]{8}/(.+)\.\d+\.couch")

_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*[=:]\s*(.*?)\s*$")
_VARIABLE = re.compile(
    r"\\\$|\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?-)([^}]*))?\}|\$([A-Za-z_][A-Za-z0-9_]*)"
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"'}


def parse_env(text: str) -> dict[str, str]:
    """Read a compose `.env` file (Docker's "Environment file syntax").

    Single quotes are literal; in double quotes and without quotes `$NAME`, `${NAME}` and `${NAME:-default}`
    stand for values set further up in the file, and ` #` begins a comment outside quotes. Lines that are no
    assignment are passed over, as Compose's own variables in the environment are not known here.
    """
    values: dict[str, str] = {}

    def expand(value: str) -> str:
        def replace(match: re.Match[str]) -> str:
            if match[0] in ("\\$", "$$"):
                return "$"
            known = values.get(match[1] or match[4])
            if match[2] == ":-":
                return known or match[3]
            if match[2] == "-":
                return match[3] if known is None else known
            return known or ""

        return _VARIABLE.sub(replace, value)

    for line in text.removeprefix("\ufeff").splitlines():
        assignment = _ASSIGNMENT.match(line)
        if line.lstrip().startswith("#") or assignment is None:
            continue
        name, rest = assignment[1], assignment[2]
        single = re.match(r"'([^']*)'", rest)
        double = re.match(r'"((?:[^"\\]|\\.)*)"', rest)
        if single:
            values[name] = single[1]
        elif double:
            unescaped = re.sub(r'\\([nrt"\\])', lambda match: _ESCAPES[match[1]], double[1])
            values[name] = expand(unescaped)
        else:
            values[name] = expand(re.sub(r"(^|\s+)#.*$", "", rest))
    return values


def data_directories(setting: list[str], env: dict[str, str], mounts: list[str]) -> list[str]:
    """CouchDB's data directories: those of the setting; else `COUCHDB_DATA` of `.env`; else `DB1_DATA`,
    `DB2_DATA`, … (clustered); else what the containers mount at /opt/couchdb/data. May be empty.

    A relative path in `.env` depends on how Compose was called, so the containers' mounts are taken then.
    """
    clustered = sorted(
        (name for name in env if re.fullmatch(r"DB\d+_DATA", name)), key=lambda name: int(name[2:-5])
    )
    named = [env[name] for name in (["COUCHDB_DATA"] if env.get("COUCHDB_DATA") else clustered) if env[name]]
    chosen = setting or (named if named and all(path.startswith("/") for path in named) else mounts)
    return [os.path.normpath(path) for path in dict.fromkeys(chosen)]


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


@dataclass(frozen=True)
class Tree:
    """What is in a directory and belongs to the backup."""

    paths: list[str]
    """Everything, relative to the directory; the directory itself is ""."""
    sizes: dict[str, int]
    """Sizes of the regular files in bytes."""


def walk(directory: str, exclude: Iterable[str] = ()) -> Tree:
    """List a directory with everything below it, apart from `exclude` (names at its top), unfinished
    compactions, and sockets. What vanishes meanwhile is left out. Raises OSError when `directory` itself
    can't be read."""
    paths = [""]
    sizes: dict[str, int] = {}
    excluded = set(exclude)

    def visit(folder: str) -> None:
        with os.scandir(os.path.join(directory, folder)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{folder}/{entry.name}" if folder else entry.name
                if path in excluded or entry.name.endswith(UNFINISHED_COMPACTION):
                    continue
                try:
                    of = entry.stat(follow_symlinks=False)
                    if stat.S_ISSOCK(of.st_mode):
                        continue
                    paths.append(path)
                    if stat.S_ISREG(of.st_mode):
                        sizes[path] = of.st_size
                    elif stat.S_ISDIR(of.st_mode):
                        visit(path)
                except FileNotFoundError:
                    continue

    visit("")
    return Tree(paths, sizes)


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


# In this order: what names the cause before what is only its consequence.
_REASONS = (
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
        "the backup server ended the connection",
    ),
)


def explain(exit_code: int | None, lines: Iterable[str]) -> str:
    """Why borg made no archive: one line that an operator understands, with borg's own words after it."""
    text = [line for line in lines if line]
    for pattern, meaning in _REASONS:
        for line in reversed(text):
            if re.search(pattern, line):
                return f"{meaning} ({line})"
    last = text[-1] if text else "no reason given"
    return f"borg ended with {'no exit code' if exit_code is None else exit_code}: {last}"


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
            "0 complete, 1 made but something is missing, 2 none made.",
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
