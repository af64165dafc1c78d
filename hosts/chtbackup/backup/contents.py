"""The list of paths that borg is given, and what is known of them."""

from __future__ import annotations

import os
import stat

from chtbackup.backup import plan
from chtbackup.backup.run import Run
from chtbackup.docker import FOLDERS

MOST_LINKS = 40  # that lead to one another, as for the kernel


class Contents:
    """What goes into the archive. What can't is told to the run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.paths: list[str] = []
        """In the order in which they are copied."""
        self.sizes: dict[str, int] = {}
        """Of the regular files, in bytes, by absolute path."""
        self.added: set[str] = set()
        """Of the paths, those outside CouchDB's directories."""
        self.data_paths: set[str] = set()
        """Those of the paths that are CouchDB's."""

    def begin_with(self, data: list[str], sizes: dict[str, int]) -> None:
        """Put CouchDB's files at the head of the list, instead of those of an earlier look."""
        for path in self.data_paths:
            self.sizes.pop(path, None)
        self.paths = data + [path for path in self.paths if path not in self.data_paths]
        self.data_paths = set(data)
        self.sizes.update(sizes)

    def add_links(self, links: list[str]) -> None:
        """Add links without what they lead to."""
        self.paths += links
        self.added.update(links)

    def add(self, path: str) -> str:
        """Add a file; of a link, what it leads to, too. Returns where that is."""
        for _ in range(MOST_LINKS):
            try:
                of = os.lstat(path)
            except OSError as error:
                self.run.problem(f"{path} can't be read: {error.strerror}")
                return path
            if kind := plan.special(of.st_mode):
                self.run.notes.append(f"{path} is {kind} and is left out")
                return path
            is_link = stat.S_ISLNK(of.st_mode)
            if why := plan.unnameable(path, os.readlink(path) if is_link else ""):
                self.run.problem(why)
                return path
            if path not in self.added:
                self.added.add(path)
                self.paths.append(path)
                if stat.S_ISREG(of.st_mode):
                    self.sizes[path] = of.st_size
            if not is_link:
                return path
            path = os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(path)), os.readlink(path)))
        self.run.problem(f"{path} is a link that leads to itself")
        return path

    def add_tree(self, directory: str, besides: list[str]) -> None:
        """Add a directory with what is in it, apart from the directories `besides`. Raises OSError."""
        exclude = [of[len(directory) + 1 :] for of in besides if of.startswith(f"{directory}/")]
        tree = plan.walk(directory, exclude)
        self.tell_left_out(tree)
        home = self.run.home
        for path in tree.paths:
            # What these are like is among the manifest's `parents`.
            if not path and directory in (home, *(f"{home}/{name}" for name in FOLDERS)):
                continue
            full = os.path.join(directory, path) if path else directory
            if full not in self.added:
                self.added.add(full)
                self.paths.append(full)
                if path in tree.sizes:
                    self.sizes[full] = tree.sizes[path]
        for link in tree.links:
            target = os.readlink(os.path.join(directory, link))
            inner = os.path.normpath(os.path.join("/", os.path.dirname(link), target)) if target else ""
            if target.startswith("/") or not os.path.lexists(directory + inner):
                self.run.notes.append(f"{directory}/{link} is a link to {target}, which isn't backed up with it")

    def tell_left_out(self, tree: plan.Tree) -> None:
        self.run.notes += [text for text in tree.special if text not in self.run.notes]
        for text in tree.unread:
            self.run.problem(text)

    def drop_links_above(self) -> None:
        """Leave out a link to a directory when something below it is saved by that path: borg would extract
        through the link, so a restore refuses such an archive. It makes a directory instead."""
        links = {path for path in self.paths if os.path.islink(path)}
        above: set[str] = set()
        for path in self.paths:
            while (path := os.path.dirname(path)) != "/":
                above.add(path)
        for link in sorted(links & above):
            self.run.notes.append(f"{link} is a link to {os.readlink(link)}; it will be restored as a directory")
        self.paths = [path for path in dict.fromkeys(self.paths) if path not in links & above]
