"""Get single databases or files out of an archive, into an empty directory, and prove them.

Started by `npm run restore -- --database NAME` or `--path PATH` on the operator's computer. Nothing else on the
machine is touched, so it may be the CHT's own, with the CHT running.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import time
from typing import Any

from chtbackup.base.errors import RIGHT, WRONG, Refused
from chtbackup.base.files import write_atomically
from chtbackup.base.text import duration, say
from chtbackup.borg.client import Borg
from chtbackup.manifest.copy import Copy
from chtbackup.manifest.places import data_of
from chtbackup.manifest.verify import Verdict
from chtbackup.restore.choose import Archive, choose
from chtbackup.restore.extract import guarded
from chtbackup.restore.marker import Marker
from chtbackup.restore.output import Output
from chtbackup.restore.perform import perform
from chtbackup.restore.prove import prove_part
from chtbackup.restore.targets import Place, Progress, complete, estimate, require_space
from chtbackup.restore.wanted import chooser, narrowed, parents

ABOUT = "RESTORED.json"


class Part:
    """Some databases and files of an archive, put into a directory of their own."""

    archive: Archive
    """Narrowed to what is wanted."""
    place: Place
    items: list[dict[str, Any]]

    def __init__(self, request: dict[str, Any], work: str) -> None:
        self.request = request
        self.work = work
        self.borg = Borg(request)
        self.output = Output()
        self.began = time.monotonic()
        self.databases = list(dict.fromkeys(request.get("databases") or []))
        self.paths = list(dict.fromkeys(os.path.normpath(path) for path in request.get("paths") or []))
        self.despite_problems = bool(request.get("despiteProblems"))

    def run(self) -> int:
        self.borg.check_version()
        self.choose()
        into = self.place.target
        if self._there():
            say(f"{into} holds this already; it is checked again")
            if not self.request.get("dryRun"):
                shutil.rmtree(self.place.base, ignore_errors=True)
            return self._end(self.prove(into))
        refuse_data(self.place, self.archive.places)
        marker = Marker(f"{self.place.base}/extracting.json", self.archive, self._what())
        made = f"{self.place.base}/files"
        self.fetch(marker, made)
        if self.request.get("dryRun"):
            say(f"would put {self._named()} into {into}")
            say("dry run: nothing was changed")
            return RIGHT
        verdict = self.prove(made)
        if verdict.problems and not self.despite_problems:
            marker.failed()
            say(
                f"NOT put into {into}: {len(verdict.problems)} of the checks failed. What was extracted stays in"
                f" {made}. Take another archive, or, where there is no better one, run again with --despite-problems"
            )
            return WRONG
        write_atomically(f"{made}/{ABOUT}", json.dumps(self._what(), indent=1) + "\n", 0o600)
        os.sync()
        os.rename(made, into)
        shutil.rmtree(self.place.base, ignore_errors=True)
        return self._end(verdict)

    def choose(self) -> None:
        """Find the archive and what is wanted of it. Raises Refused."""
        archive = choose(self.borg, self.request, self.output)
        into = self.request.get("into") or f"{self.work}/out/{archive.name}"
        self.place = Place(os.path.normpath(into))
        items = self.borg.items(archive.name)
        known = {of["path"] for of in items}
        # What the manifest has and the archive lacks must be missed.
        listed = {path for path, of in archive.before["files"].items() if of["kind"] != "vanished"}
        couchdb, elsewhere = archive.places["couchdb"], archive.places.get("elsewhere", {})
        wanted = chooser(known | listed, couchdb, self.databases, self.paths, archive.name, elsewhere)
        chosen = {path for path in known if wanted(path)}
        chosen |= {parent for path in chosen for parent in parents(path)} & known
        self.items = [of for of in items if of["path"] in chosen]
        self.archive = dataclasses.replace(archive, before=narrowed(archive.before, wanted))

    def fetch(self, marker: Marker, directory: str) -> None:
        """Extract into a directory what isn't there from an interrupted run. Raises Refused."""
        resumed = marker.holds(self.despite_problems)
        files = [of for of in self.items if of["type"] == "-"]
        done = {of["path"] for of in files if resumed and complete(directory + of["path"], of)}
        size = sum(of["size"] for of in self.items)
        total = sum(of["size"] for of in self.items if of["path"] not in done)
        say(estimate(len(files), size, size - total if resumed else None))
        require_space([(self.place, total)])
        if self.request.get("dryRun"):
            return
        if not resumed:
            shutil.rmtree(self.place.base, ignore_errors=True)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        marker.write()
        patterns = f"{self.place.base}/patterns"
        lines = [f"+ pf:{of['path'][1:]}" for of in self.items if of["path"] not in done]
        write_atomically(patterns, "".join(f"{line}\n" for line in [*lines, "- re:^"]), 0o600)
        began = time.monotonic()
        with guarded(self.borg, self.archive.name, [directory], marker):
            self.borg.extract(
                self.archive.name, ["--patterns-from", patterns],
                directory=directory, progress=Progress(began, 0, total),
            )  # fmt: skip
        say(f"extracted in {duration(time.monotonic() - began)}")

    def prove(self, directory: str) -> Verdict:
        return prove_part(self.archive, Copy({"": directory}), self.items, self.databases, self.output)

    def _what(self) -> dict[str, Any]:
        return {"archive": self.archive.name, "databases": self.databases, "paths": self.paths}

    def _there(self) -> bool:
        """Whether an earlier run put just this here."""
        try:
            with open(f"{self.place.target}/{ABOUT}", encoding="utf-8") as file:
                return bool(json.load(file) == self._what())
        except (OSError, ValueError):
            return False

    def _named(self) -> str:
        return ", ".join([*(f"the database {name}" for name in self.databases), *self.paths])

    def _end(self, verdict: Verdict) -> int:
        into, what = self.place.target, f"{self._named()} of {self.archive.name}"
        took = duration(time.monotonic() - self.began)
        if verdict.problems:
            say(f"{what} is in {into}, but {len(verdict.problems)} checks failed ({took})")
            return WRONG
        right = "and whole as far as can be told without a manifest" if self.archive.by_hand else "and right"
        say(f"{what} is in {into} {right} ({took})")
        for path in [*data_of(self.archive.places), *self.paths]:
            if os.path.lexists(into + path):
                say(f"  {into}{path}")
        say(
            "The CHT uses none of this until you put it there: docs/restore.md says how. It may hold patients' data;"
            f" afterwards: sudo rm -r {shlex.quote(into)}"
        )
        return RIGHT


def refuse_data(place: Place, places: dict[str, Any]) -> None:
    """Refuse to write where something is. Raises Refused; changes nothing."""
    into = place.target
    for used in [*data_of(places), *places["volumes"].values()]:
        if into == used or into.startswith(f"{used}/"):
            raise Refused(f"--into {into}: the CHT works there (in {used}); choose an empty directory elsewhere")
    if place.mounted:
        raise Refused(f"--into {into}: it is a file system of its own; choose a directory in it, {into}/cht")
    if place.occupied():
        raise Refused(
            f"there is something in {into} already. Nothing was changed. Remove it, or choose another"
            " directory with --into"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Get databases or files out of an archive into an empty directory of this machine, and compare"
        " them with the archive's manifest. Reads one line of JSON from standard input: repository, passphrase,"
        " baseDirectory, sshConfig or bucket, databases, paths, and optionally into, archive, asOf (UTC),"
        " dryRun, despiteProblems. It stops when standard input ends.",
        epilog="Exit codes: as those of restore.",
    )
    parser.add_argument("work", metavar="DIRECTORY", help="where this program keeps its notes")
    return perform(lambda request, work: Part(request, work).run(), parser.parse_args(arguments).work)
