"""The archive that a restore or a drill takes: the newest finished one that was asked for."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.text import say
from chtbackup.borg.client import Borg
from chtbackup.borg.errors import Empty
from chtbackup.manifest import write as manifest
from chtbackup.manifest.places import home_of, project_of, targets_of
from chtbackup.restore import by_hand
from chtbackup.restore.archives import ahead, candidates, made_by_hand, reported
from chtbackup.restore.output import Output


@dataclasses.dataclass(frozen=True)
class Archive:
    """An archive that was chosen, and what is known of it."""

    name: str
    id: str
    """What was behind the name when it was seen first."""
    before: dict[str, Any]
    """The first part of its manifest, written before anything else was read."""
    after: dict[str, Any]
    """The second part of its manifest, written last."""
    by_hand: bool = False
    """Whether it was made by hand and has no manifest; then both parts say what the list of its items does."""

    @property
    def places(self) -> dict[str, Any]:
        return self.before["places"]

    @property
    def home(self) -> str | None:
        return home_of(self.places)

    @property
    def project(self) -> str | None:
        return project_of(self.places)

    @property
    def unsteady(self) -> set[str]:
        """Databases that were being made or deleted while they were backed up."""
        return set(self.after.get("unsteady", []))


def choose(borg: Borg, request: dict[str, Any], output: Output) -> Archive:
    """Find the archive that `request` names, or the newest one of its time. Raises Refused."""
    names, now = borg.names(), time.time()
    wanted = request.get("archive")
    chosen = candidates(names, wanted, request.get("asOf"), now)
    if wanted is None:
        for name in ahead(names, now):
            output.suspect(f"{name} is dated in the future and is passed over; find out who made it, and how")
    for name in chosen:
        if archive := _look_into(borg, name, by_name=name == wanted):
            break
        output.remark(f"{name} is unfinished: the backup was interrupted (no manifest at its end)")
    else:
        raise Empty("there is no finished archive; an unfinished one may lack anything")
    where = "by hand" if archive.by_hand else f"on the machine {archive.before['host']}"
    say(f"archive {archive.name}, begun {archive.before['time']}, {where}")
    for text in reported(archive.before, archive.after):
        output.remark(f"the backup itself reported: {text}" if not archive.by_hand else text)
    return archive


def _look_into(borg: Borg, name: str, by_name: bool) -> Archive | None:
    """An archive that is finished, or was made by hand and is asked for `by_name`; None for others."""
    before, after = borg.manifests(name)
    if before is not None and after is not None:
        borg.require_same(name)
        return Archive(name, borg.ids[name], before, after)
    if before is None and by_name and made_by_hand(items := borg.items(name)):
        borg.require_same(name)
        before = by_hand.before(name, f"{borg.times.get(name, '')[:19]}Z", items)
        after = {"format": manifest.FORMAT, "part": "after", "archive": name, "counts": before["counts"]}
        return Archive(name, borg.ids[name], before, after, by_hand=True)
    return None


def require_a_cht(archive: Archive, request: dict[str, Any], output: Output) -> None:
    """See to it that an archive made by hand can be put back as a whole. Raises Refused."""
    places = archive.places
    get_out = "With --path you get files out of it into a directory of their own"
    if not places["couchdb"]:
        raise Refused(f"{archive.name} was made by hand and holds no data directory of CouchDB. {get_out}")
    for target in targets_of(places):
        if target.count("/") < 2:
            raise Refused(
                f"{archive.name} was made by hand, with paths from another directory than /: it would be put into"
                f" {target}. {get_out}"
            )
    if request.get("start"):
        raise Refused(
            f"{archive.name} was made by hand and isn't a whole CHT: it can't go with --start. Start it yourself"
            " when you have put there what is missing"
        )
    for text in by_hand.lacks(places):
        output.remark(f"not in the archive: {text}")
    if archive.home is None:
        output.remark("only CouchDB's data is put back")
