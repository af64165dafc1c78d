"""Put a CHT deployment back on this machine from a borg repository, or list what the repository holds.

Started by `npm run restore` and `npm run archives` on the operator's computer. See `--help` for exit codes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from chtbackup.base.errors import RIGHT, WRONG, Refused
from chtbackup.base.text import duration, say
from chtbackup.borg.client import Borg
from chtbackup.couchdb.scan import scan
from chtbackup.docker import Docker
from chtbackup.manifest import write as manifest
from chtbackup.manifest.copy import Copy
from chtbackup.manifest.places import targets_of
from chtbackup.restore.archives import list_archives
from chtbackup.restore.choose import Archive, choose, require_a_cht
from chtbackup.restore.extract import extract, own_directories, plan, wanted_items
from chtbackup.restore.marker import Marker
from chtbackup.restore.occupied import refuse_data
from chtbackup.restore.output import Output
from chtbackup.restore.perform import perform
from chtbackup.restore.prove import prove, prove_in_place
from chtbackup.restore.start import start
from chtbackup.restore.switch import finish_switch, switch
from chtbackup.restore.targets import Place, mount_points, places_of


class Restore:
    """One restore onto this machine."""

    archive: Archive
    places: list[Place]

    def __init__(self, request: dict[str, Any], work: str) -> None:
        self.request = request
        self.work = work
        self.borg = Borg(request)
        self.output = Output()
        self.began, self.when = time.monotonic(), time.time()
        self.journal = f"{work}/switch.json"
        self.despite_problems = bool(request.get("despiteProblems"))

    def run(self) -> int:
        self.borg.check_version()
        self._finish_earlier()
        self.archive = choose(self.borg, self.request, self.output)
        files = self.archive.before["files"].items()
        paths = [path for path, of in files if of["kind"] != "vanished"]
        self.places = places_of(targets_of(self.archive.places), paths, mount_points())
        rest = f"{self.work}/rest"
        copy = Copy({place.target: place.base for place in self.places})
        if self.archive.by_hand:
            require_a_cht(self.archive, self.request, self.output)
        else:
            copy.bases[""] = rest
        items = wanted_items(self.borg, self.archive, self.places)
        if self._in_place():
            return self.check_in_place(items)
        refuse_data(self.archive, self.places, self.request)
        marker = Marker(f"{self.work}/extracting.json", self.archive)
        resumed = marker.holds(self.despite_problems)
        done, total = plan(items, copy, self.places, rest, resumed)
        if self.request.get("dryRun"):
            return self._say_what_would_be()
        extract(self.borg, self.archive, copy, marker, resumed, done, total)
        own_directories(self.archive, copy, self.places)
        verdict = prove(self.archive, copy, items, self.output)
        if verdict.problems and not self.despite_problems:
            marker.failed()
            say(
                f"NOT put in place: {len(verdict.problems)} of the checks failed. What was extracted stays in"
                f" {', '.join(place.base for place in self.places)}. Take another archive, or, where there is"
                " no better one, run again with --despite-problems"
            )
            return WRONG
        refuse_data(self.archive, self.places, self.request)  # again: hours may have passed
        switch(self.archive, self.places, copy, self.journal, self.when, self.output)
        return self.conclude(verdict.problems, verdict.databases)

    def _finish_earlier(self) -> None:
        """Finish what an earlier run was putting in place when it was interrupted. Raises Refused."""
        if not os.path.exists(self.journal):
            return
        if self.request.get("dryRun"):
            raise Refused(
                "an earlier run was interrupted while it put things in place, and only a part is: run the restore"
                " again without --dry-run, it is finished then"
            )
        say("an earlier run was interrupted while it put things in place; this is finished first")
        finish_switch(self.journal)

    def _in_place(self) -> bool:
        """Whether an earlier run put this archive here, and perhaps was stopped before it came to an end."""
        try:
            with open(f"{self.work}/restored.json", encoding="utf-8") as file:
                restored = json.load(file)["archive"]
        except (OSError, ValueError, LookupError):
            return False
        there = all(place.occupied() for place in self.places)
        return restored == self.archive.name and there and not self.request.get("replace")

    def check_in_place(self, items: list[dict[str, Any]]) -> int:
        say("this archive is in place already; it is checked again")
        places, project = self.archive.places, self.archive.project
        if project and any(of["running"] for of in Docker().containers(project)):
            if not self.request.get("start"):
                refuse_data(self.archive, self.places, self.request)
            found = scan(*places["couchdb"], elsewhere=places.get("elsewhere", {}))
            return self.conclude([], manifest.counts_of(found["databases"]))
        verdict = prove_in_place(self.archive, items, self.places, self.output)
        return self.conclude(verdict.problems, verdict.databases)

    def _say_what_would_be(self) -> int:
        for place in self.places:
            say(f"would put back {place.target}" + (" and move aside what is there" if place.occupied() else ""))
        for name in self.archive.places["volumes"]:
            say(f"would put back the volume {name}")
        say("dry run: nothing was changed")
        return RIGHT

    def conclude(self, problems: list[str], databases: manifest.Counts) -> int:
        wanted = self.request.get("start") and not self.request.get("dryRun")
        if wanted:
            found = start(self.archive, databases, f"{self.work}/outside", self.output)
            for text in found:
                self.output.wrong(text)
            problems += found
        home = self.archive.home
        took = duration(time.monotonic() - self.began)
        if problems:
            say(f"{self.archive.name} is in place, but {len(problems)} checks failed ({took})")
            return WRONG
        right = "and whole as far as can be told without a manifest" if self.archive.by_hand else "and right"
        say(f"{self.archive.name} is restored to {', '.join(place.target for place in self.places)} {right} ({took})")
        if not wanted and home is not None:
            how = "" if self.archive.by_hand else " (--start does that)"
            say(f"the CHT isn't started{how}: its compose files are in {home}/compose")
        return RIGHT


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Restore a CHT deployment onto this machine from its borg repository, or list the archives."
        " Reads one line of JSON from standard input: repository, passphrase, baseDirectory, sshConfig or bucket (what"
        " fetch reads; the repository is fetched first), and optionally archive, asOf (UTC), last, dryRun,"
        " replace, start, despiteProblems, repositoryOnly. It stops when standard input ends.",
        epilog="Exit codes: 0 done, and everything checked is right; 1 a check failed, which is named, and what"
        " was extracted is in place only when that is said; 2 refused or not possible, the reason is named;"
        " 143 or 130 stopped: run it again, it goes on from there.",
    )
    parser.add_argument("action", choices=("list", "restore"))
    parser.add_argument("work", metavar="DIRECTORY", help="where this program keeps its notes")
    options = parser.parse_args(arguments)
    if options.action == "list":
        return perform(list_archives, options.work)
    return perform(lambda request, work: Restore(request, work).run(), options.work, needs_docker=True)
