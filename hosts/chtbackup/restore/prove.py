"""Whether what a restore got is what the archive's manifest says, and for one made by hand, whether it is whole."""

from __future__ import annotations

from typing import Any

from chtbackup.couchdb.order import below
from chtbackup.manifest import verify
from chtbackup.manifest.copy import Copy
from chtbackup.manifest.verify import Verdict
from chtbackup.restore import by_hand
from chtbackup.restore.choose import Archive
from chtbackup.restore.output import Output
from chtbackup.restore.targets import Place


def drop_views(archive: Archive, copy: Copy, output: Output) -> set[str]:
    """Remove views of a copy that CouchDB can't use. Returns their paths as in the archive."""
    dropped = verify.drop_views(copy, archive.places)
    for path, why in dropped.items():
        output.remark(f"{path} {why} and is left out; CouchDB builds this view anew")
    return set(dropped)


def prove(archive: Archive, copy: Copy, items: list[dict[str, Any]], output: Output) -> Verdict:
    """Compare a copy of a whole archive; `items` are what was extracted."""
    dropped = drop_views(archive, copy, output)
    if archive.by_hand:
        verdict = by_hand.check(copy, items, archive.places["couchdb"], dropped)
    else:
        verdict = verify.verify(archive.before, archive.after, copy, dropped)
    output.verdict(verdict)
    return verdict


def prove_part(
    archive: Archive, copy: Copy, items: list[dict[str, Any]], databases: list[str], output: Output
) -> Verdict:
    """Compare a copy of some `databases` and files, and only those, with the manifest, which lists nothing else."""
    dropped = drop_views(archive, copy, output)
    if archive.by_hand:
        verdict = by_hand.check(copy, items, archive.places["couchdb"], dropped, databases)
    else:
        verdict = Verdict()
        verify.compare_files(archive.before, archive.after, copy, dropped, True, verdict)
        if any(path.endswith((".couch", ".view")) for path in archive.before["files"]):
            verify.compare_databases(archive.before, archive.after, copy, verdict, databases)
    output.verdict(verdict)
    return verdict


def prove_in_place(archive: Archive, items: list[dict[str, Any]], places: list[Place], output: Output) -> Verdict:
    """Compare what an earlier run put in place, and nobody has started since."""
    copy = Copy({"": ""})
    if archive.by_hand:
        verdict = by_hand.check(copy, items, archive.places["couchdb"], [])
    else:
        # What lies outside the targets (volumes, the collected certificate) was compared when it was put there.
        # What was outside the home is for the operator to put there.
        targets = [place.target for place in places]
        files = archive.before["files"]
        kept = {path: of for path, of in files.items() if any(below(path, target) for target in targets)}
        nowhere = {"volumes": {}, "certificate": None, "key": None, "outside": []}
        before, verdict = {**archive.before, "files": kept, "places": {**archive.places, **nowhere}}, Verdict()
        verify.compare_files(before, archive.after, copy, set(), True, verdict)
        verify.compare_databases(before, archive.after, copy, verdict)
    output.verdict(verdict)
    return verdict
