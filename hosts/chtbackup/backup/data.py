"""CouchDB's data: where it is, what is in it, and in which order it is copied."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from typing import Any

from chtbackup.backup import plan
from chtbackup.backup.contents import Contents
from chtbackup.backup.run import Run
from chtbackup.base.errors import NoBackup
from chtbackup.base.files import write_atomically
from chtbackup.borg.meaning import without_numbers
from chtbackup.compose.environment import Reading
from chtbackup.couchdb.containers import DATA_IN_CONTAINER, current, data_mounts
from chtbackup.couchdb.order import LEFT_OUT, below, copied_in_order, shards
from chtbackup.couchdb.scan import IN_SHARDS, located, missing_ranges, scan


class Data:
    """The data directories of one CouchDB, which goes on working in them."""

    def __init__(self, run: Run, contents: Contents) -> None:
        self.run = run
        self.contents = contents
        self.containers: list[dict[str, Any]] = []
        """CouchDB's."""
        self.directories: list[str] = []
        self.elsewhere: dict[str, str] = {}
        """See `located`."""
        self.epochs: list[dict[str, int]] = []
        """When each database was made, at each look at the directories."""

    def places(self) -> list[str]:
        """Every directory that holds something of the data."""
        return [*self.directories, *self.elsewhere.values()]

    def find(self, env: Reading) -> list[str]:
        """Find the directories. Returns the links that led to them."""
        mounts = data_mounts(self.containers)
        known = {} if mounts else self._remembered()
        # What depends on somebody's environment isn't known here.
        values = {name: value for name, value in env.values.items() if name not in env.unsure}
        setting = self.run.settings["couchdbData"]
        data = plan.data_directories(setting, values, mounts) or known.get("data", [])
        if not data:
            data = [f"{self.run.home}/couchdb"]
            if named := plan.named_data(env.values):
                self.run.problem(
                    f"which directory {named[0]} of .env stands for isn't known without a container of"
                    " CouchDB;"
                    f" taken is {data[0]}"
                )
        self.directories, links = without_links(data)
        real = {os.path.realpath(directory) for directory in self.directories}
        for source in mounts:
            if os.path.realpath(source) not in real:
                self.run.problem(
                    f"CouchDB keeps its data in {source}, which is not backed up"
                    f" (only {', '.join(self.directories)} is)"
                )
        self.elsewhere = {
            path: directory
            for path, directory in known.get("elsewhere", {}).items()
            if any(below(path, of) for of in self.directories)
        }
        return links

    def check(self) -> None:
        """Refuse what is no CouchDB data directory. Raises NoBackup."""
        for directory in self.directories:
            check_data_directory(directory, self.elsewhere)

    def list_files(self, trees: dict[str, plan.Tree]) -> None:
        """Put what is in the directories at the head of the archive's contents, in the order of copying."""
        ordered: list[str] = []
        for path in copied_in_order({directory: tree.paths for directory, tree in trees.items()}):
            if path in self.elsewhere:
                ordered += [path] if os.path.lexists(path) else []
                path = self.elsewhere[path]
            ordered.append(located(path, self.elsewhere))
        sizes = {
            located(os.path.join(directory, path), self.elsewhere): size
            for directory, tree in trees.items()
            for path, size in tree.sizes.items()
        }
        self.contents.begin_with(ordered, sizes)

    def walk(self) -> dict[str, plan.Tree]:
        """List the directories at a moment at which none of CouchDB's databases is just being made or
        deleted, which takes one shard after the other. One that stays as it is has lost a shard. Raises NoBackup."""
        seen: dict[str, tuple[int, frozenset[str]]] = {}
        for _attempt in range(10):
            trees = self._trees()
            paths = [path for tree in trees.values() for path in tree.paths]
            partial = {name: of for name, of in shards(paths).items() if missing_ranges(of[1]) and seen.get(name) != of}
            if not partial:
                break
            seen = partial
            time.sleep(1)
        self._remember_look(paths)
        return trees

    def scan(self) -> dict[str, Any]:
        """Read the headers of all files, and once more when something looks wrong: a compaction replaces a
        file by removing it and renaming another, a database is made and deleted shard by shard, and the
        directory may be read between. Only what lasts is wrong."""
        scanned = scan(*self.directories, elsewhere=self.elsewhere)
        for _attempt in range(3):
            if not scanned["problems"]:
                break
            time.sleep(2)
            before = {without_numbers(text) for text in scanned["problems"]}
            scanned = scan(*self.directories, elsewhere=self.elsewhere)
            lasting = [text for text in scanned["problems"] if without_numbers(text) in before]
            same = len(lasting) == len(before)
            scanned["problems"] = lasting
            if same:
                break
        paths = [*scanned["shardFiles"], *scanned["unreadable"]]
        # In a data directory, which may be called anything, as may databases.
        found = (IN_SHARDS.search(path) for path in paths)
        self._remember_look(of[0] for of in found if of)
        return scanned

    def unsteady(self) -> set[str]:
        """Databases that were made, deleted, or made again between the first look at CouchDB's directories
        and the last one."""
        names = {name for look in self.epochs for name in look}
        return {name for name in names if len({look.get(name) for look in self.epochs}) > 1}

    def remember(self) -> None:
        """Keep where the data is, for a run while CouchDB's containers can't be asked."""
        now = {"data": self.directories, "elsewhere": self.elsewhere}
        if data_mounts(self.containers) and not self.run.dry_run and now != self._remembered():
            write_atomically(f"{self.run.state}/data.json", json.dumps(now, indent=2) + "\n")

    def _remembered(self) -> dict[str, Any]:
        """Where the data was when CouchDB's containers could be asked last."""
        try:
            with open(f"{self.run.state}/data.json", encoding="utf-8") as file:
                known = json.load(file)
            return known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            return {}

    def _remember_look(self, paths: Iterable[str]) -> None:
        self.epochs.append({name: epoch for name, (epoch, _ranges) in shards(paths).items()})

    def _trees(self) -> dict[str, plan.Tree]:
        """What is in the directories, and in those that are mounted into them or that links in them
        lead to. The paths are those that CouchDB sees."""
        views = {directory: self._mounted_into(directory) for directory in self.directories}
        trees = {}
        for directory in self.directories:
            try:
                tree = plan.walk(directory, [LEFT_OUT], self._closed(directory))
            except OSError as error:
                raise NoBackup(f"CouchDB's data directory {directory} can't be read: {error.strerror}") from error
            self.contents.tell_left_out(tree)
            for link in tree.links:
                self._follow(directory, link, views[directory])
            for top in self._closed(directory):
                real = self.elsewhere[f"{directory}/{top}"]
                try:
                    inner = plan.walk(real, closed=self._closed(f"{directory}/{top}"))
                except OSError as error:
                    self.run.problem(f"{real}, which is CouchDB's {top}, can't be read: {error.strerror}")
                    continue
                self.contents.tell_left_out(inner)
                for link in inner.links:
                    self.run.problem(f"{real}/{link} is a link: what it leads to is not backed up")
                tree.paths.extend([top] if top not in tree.paths else [])
                tree.paths.extend(f"{top}/{path}" for path in inner.paths if path)
                tree.sizes.update({f"{top}/{path}": size for path, size in inner.sizes.items()})
            trees[directory] = tree
        return trees

    def _closed(self, directory: str) -> list[str]:
        return [path[len(directory) + 1 :] for path in self.elsewhere if path.startswith(f"{directory}/")]

    def _mounted_into(self, directory: str) -> list[dict[str, str]]:
        """The mounts of the container that has a data directory; those below the data are taken note of."""
        real = os.path.realpath(directory)
        container = next(
            (of for of in current(self.containers) if real in map(os.path.realpath, data_mounts([of]))),
            None,
        )
        for mount in container["mounts"] if container else []:
            path = mount["destination"][len(DATA_IN_CONTAINER) + 1 :]
            if not mount["destination"].startswith(f"{DATA_IN_CONTAINER}/"):
                continue
            if below(path, LEFT_OUT):
                continue
            if os.path.isdir(mount["source"]):
                self.elsewhere[f"{directory}/{path}"] = os.path.realpath(mount["source"])
            else:
                what = mount["source"] or f"a {mount['type']}"
                self.run.problem(
                    f"{what} is mounted at {mount['destination']} in {container['name']}, and is not backed"
                    " up: only directories can be mounted into CouchDB's data"
                )
        return container["mounts"] if container else []

    def _follow(self, directory: str, link: str, mounts: list[dict[str, str]]) -> None:
        """Take a link in the data for the directory to which it leads CouchDB, in its container."""
        path = f"{directory}/{link}"
        target = os.path.normpath(os.path.join(DATA_IN_CONTAINER, os.path.dirname(link), os.readlink(path)))
        real = plan.on_host(target, mounts) or os.path.realpath(path)
        if below(real, os.path.realpath(directory)) or not os.path.isdir(real):
            self.run.problem(
                f"{path} is a link to {os.readlink(path)}, which is not backed up: in CouchDB's data a link"
                " may lead to a directory outside it, no other"
            )
        else:
            self.elsewhere[path] = os.path.realpath(real)


def without_links(directories: list[str]) -> tuple[list[str], list[str]]:
    """Where the directories are that links lead to, and those links. An archive that holds something below a
    link would be written through it when it is extracted, and is refused."""
    links = [path for path in directories if os.path.islink(path)]
    return [os.path.realpath(path) if path in links else path for path in directories], links


def check_data_directory(directory: str, elsewhere: dict[str, str]) -> None:
    """Refuse what is no CouchDB data directory, such as the mount point of a disk that isn't mounted."""
    try:
        os.listdir(directory)
    except OSError as error:
        raise NoBackup(f"CouchDB's data directory {directory} can't be read: {error.strerror}") from error
    missing = [
        name
        for name in ("_dbs.couch", "shards")
        if not os.path.exists(located(os.path.join(directory, name), elsewhere))
    ]
    if missing:
        raise NoBackup(
            f"{directory} has no {' and no '.join(missing)}, so it is not CouchDB's data directory"
            " (is its disk mounted? is COUCHDB_DATA right?)"
        )
