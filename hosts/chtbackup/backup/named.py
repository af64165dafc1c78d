"""Files and directories that compose files name or containers have mounted."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from chtbackup.backup import plan
from chtbackup.backup.contents import Contents
from chtbackup.backup.data import Data
from chtbackup.backup.run import Run
from chtbackup.compose import files as compose
from chtbackup.compose.environment import Reading
from chtbackup.couchdb.containers import DATA_IN_CONTAINER, current, data_mounts
from chtbackup.couchdb.order import below
from chtbackup.manifest.places import VOLUMES

MOST_OUTSIDE = 10e6  # bytes of a file outside the home that is saved
# What compose files name outside a home and every machine has of its own.
SYSTEM = (
    "/boot", "/dev", "/etc/group", "/etc/hostname", "/etc/hosts", "/etc/localtime", "/etc/machine-id",
    "/etc/os-release", "/etc/passwd", "/etc/resolv.conf", "/etc/shadow", "/etc/ssl/certs", "/etc/timezone",
    "/lib/modules", "/proc", "/run", "/sys", "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates", "/usr/share/zoneinfo", "/var/lib/docker", "/var/run",
)  # fmt: skip


class Named:
    """What belongs to this CHT because its compose files or containers name it."""

    def __init__(self, run: Run, contents: Contents, data: Data, env: Reading) -> None:
        self.run = run
        self.contents = contents
        self.data = data
        self.env = env
        self.outside: list[str] = []
        """Files that are saved though they are outside the home."""

    def add_file(self, path: str) -> None:
        """Add one of the configuration's own files."""
        end = self.contents.add(path)
        self.outside += [] if below(end, self.run.home) else [end]

    def add_tree(self, directory: str) -> None:
        """Add a directory without CouchDB's data in it. Raises OSError."""
        self.contents.add_tree(directory, [*self.data.places(), self.run.state, self.run.scratch])

    def add_named(self, files: list[str], env_file: str | None, containers: list[dict[str, Any]]) -> None:
        """Add what the compose `files` name and what is mounted into the containers, as far as it belongs to
        this CHT."""
        home = self.run.home
        named = compose.named_files(files, env_file, self.env)
        self.run.notes += named.notes
        for text in named.problems:
            self.run.problem(text)
        self._compare_data(named.data, current([of for of in containers if data_mounts([of])]))
        for of in containers:
            for mount in of["mounts"]:
                own = any(mount["name"].endswith(f"_{volume}") for volume in VOLUMES)
                if mount["type"] == "bind":
                    named.files.setdefault(os.path.normpath(mount["source"]), f"a mount of {of['service']}")
                elif not own and not below(mount["destination"], DATA_IN_CONTAINER):
                    where = f"{mount['name'] or mount['type']} of {of['service']} ({mount['destination']})"
                    self.run.notes.append(f"the volume {where} is not backed up")
        saved = [*self.data.places(), *map(os.path.realpath, self.data.directories)]
        for path, why in sorted(named.files.items()):
            real_home, real = os.path.realpath(home), os.path.realpath(path)
            if not below(path, home) and below(real, real_home):
                path = home + real[len(real_home) :]
            # What is in CouchDB's data is saved; what has it in it is more than this CHT's, but for the home.
            around = not below(path, home) and any(below(of, path) for of in saved)
            if around or any(below(path, of) for of in saved):
                continue
            self._add(path, why)
        self.outside.sort()

    def _add(self, path: str, why: str) -> None:
        home = self.run.home
        if any(below(path, of) for of in SYSTEM) or (below(home, path) and path != home):
            return  # the system's own, or more than this CHT
        try:
            of = os.stat(path)
        except FileNotFoundError:
            what = f"{path}, {why}, isn't there"
            if os.path.islink(path):
                self.run.problem(f"{what}: it is a link to {os.readlink(path)}")
            else:
                self.run.notes.append(what)
            return
        except OSError as error:
            self.run.problem(f"{path}, {why}, can't be read: {error.strerror}")
            return
        inside = below(path, home) and below(os.path.realpath(path), os.path.realpath(home))
        if kind := plan.special(of.st_mode):
            if inside:
                self.run.notes.append(f"{path} is {kind} and is left out")
        elif not inside and (stat.S_ISDIR(of.st_mode) or of.st_size > MOST_OUTSIDE):
            self.run.problem(f"{path}, {why}, is not backed up: it is outside the home {home}")
        elif stat.S_ISDIR(of.st_mode):
            try:
                self.add_tree(self.contents.add(path) if os.path.islink(path) else path)
            except OSError as error:
                self.run.problem(f"{path}, {why}, can't be read: {error.strerror}")
        else:
            end = self.contents.add(path)
            for each in {path, end}:
                if not below(each, home) and each not in self.outside:
                    self.outside.append(each)

    def _compare_data(self, named: list[str], couchdb: list[dict[str, Any]]) -> None:
        """See whether a CouchDB that is started from what is saved will find its data."""
        mounts = data_mounts(couchdb)
        unsure = [name for name in self.env.unsure if re.fullmatch(r"(COUCHDB|DB\d+)_DATA", name)]
        expected, actual = ({os.path.realpath(path) for path in of} for of in (named, mounts))
        saved = {os.path.realpath(directory) for directory in self.data.directories}
        # More may be named than is used: files of both kinds of CouchDB, one and several nodes.
        if mounts and named and not unsure and not actual <= expected and actual <= saved:
            self.run.problem(
                f"by the compose files and .env CouchDB's data is in {', '.join(sorted(expected))}, but the"
                f" container has it in {', '.join(sorted(actual))}: after a restore, or once it is made anew,"
                " CouchDB would be empty. Correct COUCHDB_DATA"
            )
