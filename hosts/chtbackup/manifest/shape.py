"""Whether what an archive holds as its manifest is one. Whoever can add archives may mean harm."""

from __future__ import annotations

import os
import re
from typing import Any

from chtbackup.manifest import write as manifest
from chtbackup.manifest.places import data_of, roots_of

OWN = "/run/cht-backup/"
"""Below it is what a backup of this program collects, which every archive of one holds."""
MANIFEST = re.compile(r"/run/cht-backup/[^/]+/collect/manifest-(before|after)\.json")
COUNTS = {"databases": {str: {"documents": int, "deleted": int, "updateSequence": int}}}
OWNED = {"mode": str, "uid": int, "gid": int}
FILES = {"file": {**OWNED, "size": int}, "directory": OWNED, "link": {"target": str}, "vanished": {}}
BEFORE = {
    "time": str,
    "host": str,
    "versions": dict,
    "problems": [str],
    "counts": COUNTS,
    "shards": {str: {"documents": int, "updateSequence": int}},
    "files": {str: {"kind": str}},
    "places": {
        "couchdb": [str],
        "volumes": {str: str},
        "composeFiles": [str],
        "environment": (str, type(None)),
    },
}
"""What this program reads of a manifest's first part, as `misshapen` takes it."""


def misshapen(value: Any, shape: Any, where: str) -> str | None:
    """The first place where a value isn't of a shape: a type or several, [shape] for a list, {str: shape} for what has
    any names, {"name": shape} for what has at least these."""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return where
        inner = [(of, shape[0], f"{where}[{number}]") for number, of in enumerate(value)]
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            return where
        wanted = dict.fromkeys(value, shape[str]) if str in shape else shape
        inner = [(value.get(name), of, f"{where}.{name}") for name, of in wanted.items()]
    else:
        return None if isinstance(value, shape) else where
    return next((found for each in inner if (found := misshapen(*each))), None)


def unreadable(before: Any, after: Any, kinds: dict[str, str]) -> str | None:
    """Why a restore can't go by the two parts of a manifest (`after` may be None); None when it can. `kinds` are
    the types of what the archive holds, by path."""
    if not isinstance(before, dict):
        return "its manifest is no manifest"
    if other := of_another_kind(before):
        return other
    where = misshapen(before, BEFORE, "before")
    if where is None and after is not None:
        added = ("unsteady", "problems")
        newer = {name: [str] for name in added if isinstance(after, dict) and name in after}
        where = misshapen(after, {"counts": COUNTS, **newer}, "after")
    for path, of in before["files"].items() if where is None else ():
        if of["kind"] not in FILES:
            return f'its manifest is not in order: {path} is a "{of["kind"]}"'
        where = where or misshapen(of, FILES[of["kind"]], path)
    if where:
        return f"its manifest is not in order: {where} is missing or of the wrong kind"
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", before["time"]):
        return f"its manifest is not in order: its time is {before['time']}"
    places = before["places"]
    optional = {"elsewhere": {str: str}, "outside": [str]}
    for name, shape in optional.items():
        if where := misshapen(places.get(name, shape.__class__()), shape, f"places.{name}"):
            return f"its manifest is not in order: {where} is missing or of the wrong kind"
    if where := misshapen(before.get("parents", {}), {str: OWNED}, "parents"):
        return f"its manifest is not in order: {where} is missing or of the wrong kind"
    if after is not None and (where := misshapen(after.get("changed", []), [str], "changed")):
        return f"its manifest is not in order: {where} is missing or of the wrong kind"
    paths = [*roots_of(places), *before["files"], *before.get("parents", {}), *places.get("elsewhere", {})]
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/") or os.path.normpath(path) != path or path == "/":
            return f"its manifest is not in order: {path} is no path that can be restored"
    directories = [*data_of(places), *places["volumes"].values()]
    parents = before.get("parents", {})
    for path in [*roots_of(places), *parents]:
        above = path if path in directories or path in parents else os.path.dirname(path)
        while above != "/":
            if kinds.get(above) == "l":
                return f"{path} leads elsewhere in it, by the link {above}"
            above = os.path.dirname(above)
    return None


def of_another_kind(before: dict[str, Any]) -> str | None:
    """Why an archive's manifest can't be read by this program; None when it can."""
    kind = before.get("format")
    if kind == manifest.FORMAT:
        return None
    return f'its manifest is "{kind}", this program reads "{manifest.FORMAT}": use the version that made the archive'
