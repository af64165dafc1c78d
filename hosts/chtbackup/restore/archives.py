"""Which archives there are, which one is taken, and what each holds."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from chtbackup.base.errors import RIGHT, Refused
from chtbackup.base.text import moment, say
from chtbackup.borg.client import NO_ARCHIVE, Borg
from chtbackup.borg.errors import Damaged, Empty
from chtbackup.manifest import write as manifest
from chtbackup.manifest.shape import OWN
from chtbackup.restore.targets import PROGRESS_INTERVAL

DAY = 24 * 3600


def time_of(name: str) -> str | None:
    """When an archive was begun, by its name (`lab-2026-11-21T02:00:05Z`); None for other names."""
    found = re.search(r"-(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$", name)
    return found[1] if found else None


def ahead(names: list[str], now: float) -> list[str]:
    """Archives that are dated more than a day after `now`: a wrong clock's, or somebody's who wants them to be the
    newest for ever."""
    return [name for name in names if (time_of(name) or "") > moment(now + DAY)]


def made_by_hand(items: list[dict[str, Any]]) -> bool:
    """Whether an archive without a manifest was made by other means than a backup of this program, which may have been
    interrupted."""
    return not any(f"{of['path']}/".startswith(OWN) for of in items)


def candidates(names: list[str], archive: str | None, as_of: str | None, now: float) -> list[str]:
    """The archives to try, the best first; without those that are `ahead`, unless one is asked for by its name.
    `as_of` is a time in UTC, `2026-11-21T02:00:00Z`. Raises Refused."""
    if archive is not None:
        if archive not in names:
            raise Refused(f"there is no archive {archive}; `npm run archives` lists those that there are")
        return [archive]
    later = ahead(names, now)
    known = sorted(
        ((time, name) for name in names if name not in later and (time := time_of(name))),
        reverse=True,
    )
    chosen = [name for time, name in known if as_of is None or time <= as_of]
    if not known and not later:
        others = f"; {len(names)} were made by hand, and are taken by name (--archive)" if names else ""
        raise Empty(f"the repository holds no archive of a backup of this program{others}" if names else NO_ARCHIVE)
    if not chosen:
        raise Refused(
            f"every archive is dated in the future, {later[0]} for one: is this machine's clock right? --archive takes"
            " one all the same"
            if not known
            else f"no archive is as old as {as_of}: the oldest is {known[-1][1]}"
        )
    return chosen


def summary(name: str, before: dict[str, Any], after: dict[str, Any] | None) -> dict[str, Any]:
    """An archive for the list: sizes in bytes, documents by database."""
    files = [of for of in before["files"].values() if of["kind"] == "file"]
    databases = (after or before)["counts"]["databases"]
    return {
        "name": name,
        "time": before["time"],
        "finished": after is not None,
        "files": len(files),
        "size": sum(of["size"] for of in files),
        "documents": {database: of["documents"] for database, of in sorted(databases.items())},
        "problems": reported(before, after),
        "version": before["versions"].get("cht"),
    }


def reported(before: dict[str, Any], after: dict[str, Any] | None) -> list[str]:
    """What the backup itself found wrong, by its last word: some of what looks wrong at its beginning is a database
    that is just being deleted."""
    return (after or {}).get("problems", before["problems"])


def answer_problems(files: manifest.Counts, counts: manifest.Counts, unsteady: set[str]) -> list[str]:
    """What is wrong with the counts that CouchDB gives of a copy, by those in its files; one line each. Of a database
    that was being made or deleted during the backup (`unsteady`) files may be there that no list of databases names."""
    # Services that start may write, so the server's numbers may be later than the files'.
    wrong = manifest.compare_counts(files, counts, counts, unsteady)
    return wrong + [f"{name} is missing" for name in files if name not in counts and name not in unsteady]


def summary_by_hand(name: str, time: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """An archive without a manifest for the list."""
    files = [of for of in items if of["type"] == "-"]
    size = sum(of["size"] for of in files)
    begun = f"{time[:19]}Z" if time else None
    return {"name": name, "time": begun, "finished": True, "byHand": True, "files": len(files), "size": size}


def list_archives(request: dict[str, Any], _work: str) -> int:
    """Print the newest archives as JSON on the last line, the newest first; before it what there is to remark."""
    borg = Borg(request)
    borg.check_version()
    names = borg.names()
    # Last those that were made by hand, whatever they are called.
    names.sort(key=lambda name: (time_of(name) or "", borg.times.get(name, "")), reverse=True)
    count = min(request.get("last") or len(names), len(names))
    found: list[dict[str, Any]] = []
    said = time.monotonic()
    for name in names[:count]:
        # Each takes a second, and more where the files are large: borg goes through the list of all their chunks.
        if time.monotonic() - said > PROGRESS_INTERVAL:
            said = time.monotonic()
            say(f"{len(found)} of {count} archives read")
        unfinished = {"name": name, "time": time_of(name), "finished": False}
        try:
            before, after = borg.manifests(name)
            if before is None and made_by_hand(items := borg.items(name)):
                found.append(summary_by_hand(name, borg.times.get(name, ""), items))
            else:
                found.append(summary(name, before, after) if before else unfinished)
        except Damaged as error:
            found.append({**unfinished, "damaged": str(error)})
        except Refused as error:
            borg.names()  # raises when it is the whole repository that can't be read
            found.append({**unfinished, "unreadable": str(error)})
    changed = borg.changed()
    for of in found:
        # An unfinished one changes while its backup goes on.
        if of["finished"] and of["name"] in changed:
            of.update(finished=False, unreadable=f"changed while it was read: {changed[of['name']]}")
    # With what interrupted backups have left: the server's ledger has that, too.
    repository, ids = borg.listing("--consider-checkpoints")
    print(json.dumps({"archives": found, "more": len(names) - count, "repository": repository, "ids": ids}))
    return RIGHT
