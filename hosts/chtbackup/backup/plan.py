"""Decisions of a backup, apart from acting: what belongs to it.

Nothing here runs a program or changes a file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from chtbackup.couchdb.order import UNFINISHED_COMPACTION, below


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
    clustered = sorted((name for name in env if re.fullmatch(r"DB\d+_DATA", name)), key=lambda name: int(name[2:-5]))
    return [env[name] for name in (["COUCHDB_DATA"] if env.get("COUCHDB_DATA") else clustered) if env[name]]


def on_host(path: str, mounts: list[dict[str, str]]) -> str | None:
    """Where a path of a container is on the host, by its mounts; None for what isn't mounted."""
    above = [mount for mount in mounts if below(path, mount["destination"])]
    if not above:
        return None
    mount = max(above, key=lambda mount: len(mount["destination"]))
    return os.path.normpath(mount["source"] + path[len(mount["destination"].rstrip("/")) :])


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


_CHT_IMAGE = re.compile(r"(?:^|/)cht-(?:api|sentinel|nginx|couchdb(?:-nouveau)?|haproxy(?:-healthcheck)?):([^@/:]+)")


def cht_version(images: dict[str, str]) -> str | None:
    """CHT's version from the images of its services ({"api": "public.ecr.aws/medic/cht-api:4.21.0"}):
    the tag of the api's image, else of the first of CHT's images; None without one."""
    for service in ["api", *sorted(images)]:
        match = _CHT_IMAGE.search(images.get(service, ""))
        if match:
            return match[1]
    return None
