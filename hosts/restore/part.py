#!/usr/bin/env python3
"""Get single databases or files out of an archive, into an empty directory, and prove them.

Started by `npm run restore -- --database NAME` or `--path PATH` on the operator's computer. Nothing else on the
machine is touched, so it may be the CHT's own, with the CHT running.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterable
from typing import Any

import backup
import couch_files
import restore
import verify
from backup import say
from plain import exit_with
from restore import RIGHT, WRONG, Refused, duration

# What CouchDB keeps of a database's views, all kinds of them.
VIEWS = re.compile(r"^\.shards/([0-9a-f]{8})-([0-9a-f]{8})/(.+)\.(\d+)_design(?:/.*)?$")
NAMED = 30  # names that a message lists at most
ABOUT = "RESTORED.json"


# ---- decisions ------------------------------------------------------------------------------------------


def inside(path: str, directories: list[str]) -> str | None:
    """A path relative to the data directory that holds it; None for one elsewhere."""
    return next((path[len(of) + 1 :] for of in directories if path.startswith(f"{of}/")), None)


def database_of(
    path: str, directories: list[str], elsewhere: dict[str, str] | None = None
) -> tuple[str, int, bool] | None:
    """Which database a file belongs to: its name, its epoch (the number in the file's name, when it was made),
    and whether the file is a shard, not a view. `elsewhere`: see `couch_files.located`."""
    relative = inside(verify.as_couchdb_sees(path, {"elsewhere": elsewhere or {}}), directories) or ""
    shard = couch_files.SHARD.match(relative)
    found = shard or VIEWS.match(relative)
    return None if found is None else (found[3], int(found[4]), shard is not None)


def parents(path: str) -> list[str]:
    found = []
    while path := path.rpartition("/")[0]:
        found.append(path)
    return found


def chooser(
    known: Iterable[str],
    directories: list[str],
    databases: list[str],
    paths: list[str],
    archive: str,
    elsewhere: dict[str, str] | None = None,
) -> Callable[[str], bool]:
    """What is wanted of the `known` paths: the databases' shards and views, and files and directories by path. Of
    a database that was made anew, the newer files. Raises Refused for a name that isn't there."""
    known = list(known)
    epochs: dict[str, int] = {}
    for path in known:
        of = database_of(path, directories, elsewhere)
        if of is not None and of[2]:
            epochs[of[0]] = max(epochs.get(of[0], 0), of[1])
    for name in databases:
        if name not in epochs:
            raise Refused(f"there is no database {name} in {archive}; {near(name, sorted(epochs), 'it holds')}")
    for path in paths:
        if not any(each == path or each.startswith(f"{path}/") for each in known):
            raise Refused(f"there is no {path} in {archive}; {near_path(path, known)}")

    def wanted(path: str) -> bool:
        of = database_of(path, directories, elsewhere)
        if of is not None and of[0] in databases and of[1] == epochs[of[0]]:
            return True
        return any(path == each or path.startswith(f"{each}/") for each in paths)

    return wanted


def near(name: str, names: list[str], holds: str) -> str:
    """Which names there are, the similar ones where there are too many."""
    if len(names) <= NAMED:
        return f"{holds}: {', '.join(names) or 'nothing'}"
    similar = difflib.get_close_matches(name, names, NAMED, 0.5)
    return f"{holds} {len(names)} others" + (f", similar: {', '.join(similar)}" if similar else "")


def near_path(path: str, known: list[str]) -> str:
    """What there is in the lowest directory above a path that isn't there."""
    for parent in [*parents(path), ""]:
        names = sorted({each[len(parent) + 1 :].split("/")[0] for each in known if each.startswith(f"{parent}/")})
        if names:
            return near(path[len(parent) + 1 :].split("/")[0], names, f"{parent or '/'} holds")
    return "it is empty"


def narrowed(before: dict[str, Any], wanted: Callable[[str], bool]) -> dict[str, Any]:
    """The first part of a manifest without what isn't wanted. The directories above stay."""
    chosen = {path for path in before["files"] if wanted(path)}
    chosen |= {parent for path in chosen for parent in parents(path)}
    return {
        **before,
        "files": {path: of for path, of in before["files"].items() if path in chosen},
        "shards": {path: of for path, of in before["shards"].items() if wanted(path)},
    }


# ---- the run --------------------------------------------------------------------------------------------


class Part(restore.Restore):
    """Some databases and files of an archive, put into a directory of their own."""

    def __init__(self, request: dict[str, Any], work: str) -> None:
        super().__init__(request, work)
        self.databases = list(dict.fromkeys(request.get("databases") or []))
        self.paths = list(dict.fromkeys(os.path.normpath(path) for path in request.get("paths") or []))
        self.place = restore.Place("/")
        self.items: list[dict[str, Any]] = []

    @property
    def marker(self) -> str:
        return f"{self.place.base}/extracting.json"

    def _what(self) -> dict[str, Any]:
        return {"archive": self.archive, "databases": self.databases, "paths": self.paths}

    def _mark(self) -> dict[str, Any]:
        return {**super()._mark(), **self._what()}

    def choose(self) -> None:
        """Find the archive and what is wanted of it. Raises Refused."""
        super().choose()
        into = self.request.get("into") or f"{self.work}/out/{self.archive}"
        self.place = restore.Place(os.path.normpath(into))
        self.places = [self.place]
        self.copy = verify.Copy({"": f"{self.place.base}/files"})
        couchdb = self.before["places"]["couchdb"]
        items = self.borg.items(self.archive)
        known = {of["path"] for of in items}
        # What the manifest has and the archive lacks must be missed.
        listed = {path for path, of in self.before["files"].items() if of["kind"] != "vanished"}
        elsewhere = self.before["places"].get("elsewhere", {})
        wanted = chooser(known | listed, couchdb, self.databases, self.paths, self.archive, elsewhere)
        chosen = {path for path in known if wanted(path)}
        chosen |= {parent for path in chosen for parent in parents(path)} & known
        self.items = [of for of in items if of["path"] in chosen]
        self.before = narrowed(self.before, wanted)

    def refuse_data(self) -> None:
        """Refuse to write where something is. Raises Refused; changes nothing."""
        into, places = self.place.target, self.before["places"]
        for used in [*verify.data_of(places), *places["volumes"].values()]:
            if into == used or into.startswith(f"{used}/"):
                raise Refused(f"--into {into}: the CHT works there (in {used}); choose an empty directory elsewhere")
        if self.place.mounted:
            raise Refused(f"--into {into}: it is a file system of its own; choose a directory in it, {into}/cht")
        if self.place.occupied():
            raise Refused(
                f"there is something in {into} already. Nothing was changed. Remove it, or choose another"
                " directory with --into"
            )

    def fetch(self) -> None:
        """Extract what isn't there from an interrupted run. Raises Refused."""
        base, resumed = self.copy.at(""), self._resumed()
        done = {of["path"] for of in self.items if of["type"] == "-" and resumed and self._here(of)}
        size = sum(of["size"] for of in self.items)
        total = sum(of["size"] for of in self.items if of["path"] not in done)
        files = sum(1 for of in self.items if of["type"] == "-")
        say(restore.estimate(files, size, size - total if resumed else None))
        restore.require_space([(self.place, total)])
        if self.request.get("dryRun"):
            return
        if not resumed:
            shutil.rmtree(self.place.base, ignore_errors=True)
        os.makedirs(base, mode=0o700, exist_ok=True)
        backup.write_atomically(self.marker, json.dumps(self._mark()))
        patterns = f"{self.place.base}/patterns"
        lines = [f"+ pf:{of['path'][1:]}" for of in self.items if of["path"] not in done]
        backup.write_atomically(patterns, "".join(f"{line}\n" for line in [*lines, "- re:^"]), 0o600)
        began = time.monotonic()
        with self.guarded():
            self.borg.extract(
                self.archive, ["--patterns-from", patterns],
                directory=base, progress=restore._Progress(began, 0, total),
            )  # fmt: skip
        say(f"extracted in {duration(time.monotonic() - began)}")

    def _here(self, item: dict[str, Any]) -> bool:
        return restore._complete(self.copy.at(item["path"]), item)

    def verify(self) -> verify.Verdict:
        """Compare what was extracted, and only that, with the manifest."""
        verdict = verify.Verdict()
        dropped = verify.drop_views(self.copy, self.before["places"])
        for path, why in dropped.items():
            self.remark(f"{path} {why} and is left out; CouchDB builds this view anew")
        if self.by_hand:
            import by_hand

            directories = self.before["places"]["couchdb"]
            verdict = by_hand.check(self.copy, self.items, directories, dropped, self.databases)
            self._tell(verdict)
            return verdict
        verify.compare_files(self.before, self.after, self.copy, set(dropped), True, verdict)
        if any(path.endswith((".couch", ".view")) for path in self.before["files"]):
            verify.compare_databases(self.before, self.after, self.copy, verdict, self.databases)
        self._tell(verdict)
        return verdict

    def run(self) -> int:
        self.borg.check_version()
        self.choose()
        into = self.place.target
        if self._there():
            say(f"{into} holds this already; it is checked again")
            if not self.request.get("dryRun"):
                shutil.rmtree(self.place.base, ignore_errors=True)
            self.copy = verify.Copy({"": into})
            return self._end(self.verify())
        self.refuse_data()
        self.fetch()
        if self.request.get("dryRun"):
            say(f"would put {self._named()} into {into}")
            say("dry run: nothing was changed")
            return RIGHT
        verdict = self.verify()
        if verdict.problems and not self.request.get("despiteProblems"):
            backup.write_atomically(self.marker, json.dumps({**self._mark(), "failed": True}))
            say(
                f"NOT put into {into}: {len(verdict.problems)} of the checks failed. What was extracted stays in"
                f" {self.copy.at('')}. Take another archive, or, where there is no better one, run again with"
                " --despite-problems"
            )
            return WRONG
        made = self.copy.at("")
        backup.write_atomically(f"{made}/{ABOUT}", json.dumps(self._what(), indent=1) + "\n", 0o600)
        os.sync()
        os.rename(made, into)
        shutil.rmtree(self.place.base, ignore_errors=True)
        return self._end(verdict)

    def _there(self) -> bool:
        """Whether an earlier run put just this here."""
        try:
            with open(f"{self.place.target}/{ABOUT}", encoding="utf-8") as file:
                return bool(json.load(file) == self._what())
        except (OSError, ValueError):
            return False

    def _named(self) -> str:
        return ", ".join([*(f"the database {name}" for name in self.databases), *self.paths])

    def _end(self, verdict: verify.Verdict) -> int:
        into, took = self.place.target, duration(time.monotonic() - self.began)
        if verdict.problems:
            say(f"{self._named()} of {self.archive} is in {into}, but {len(verdict.problems)} checks failed ({took})")
            return WRONG
        right = "and whole as far as can be told without a manifest" if self.by_hand else "and right"
        say(f"{self._named()} of {self.archive} is in {into} {right} ({took})")
        for path in [*verify.data_of(self.before["places"]), *self.paths]:
            if os.path.lexists(into + path):
                say(f"  {into}{path}")
        say(
            "The CHT uses none of this until you put it there: docs/restore.md says how. It may hold patients' data;"
            f" afterwards: sudo rm -r {shlex.quote(into)}"
        )
        return RIGHT


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="part.py",
        description="Get databases or files out of an archive into an empty directory of this machine, and compare"
        " them with the archive's manifest. Reads one line of JSON from standard input: repository, passphrase,"
        " baseDirectory, sshConfig or bucket, databases, paths, and optionally into, archive, asOf (UTC),"
        " dryRun, despiteProblems. It stops when standard input ends.",
        epilog="Exit codes: as restore.py's.",
    )
    parser.add_argument("work", metavar="DIRECTORY", help="where this program keeps its notes")
    return restore.perform(lambda request, work: Part(request, work).run(), parser.parse_args(arguments).work)


if __name__ == "__main__":
    exit_with(main)
