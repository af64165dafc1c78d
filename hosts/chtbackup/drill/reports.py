"""What restore drills have said: the report of each, as JSON and as a page for people, and a mark while one runs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import time
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.base.text import duration, megabytes, moment, plain, plain_values
from chtbackup.drill.ledger import Ledger

MEANING = {
    "right": "A restore from this archive works: everything below was tried.",
    "wrong": "A restore from this archive would NOT bring back what it should. Find the cause, and drill again.",
    "impossible": "The drill couldn't be made to its end, so it is NOT known whether a restore works.",
    "interrupted": "The drill was interrupted, so it is NOT known whether a restore works. Start it again.",
}


def page(report: dict[str, Any]) -> str:
    """A report for people, on one page."""
    counts, sizes = report["counts"], report["sizes"]
    verdict = {"right": "RIGHT", "wrong": "WRONG"}.get(report["outcome"], f"FAILED ({report['outcome']})")
    lines = [
        f"Restore drill of the CHT deployment {report['deployment']}: {verdict}",
        f"{report['began']} on {report['host']}, took {duration(report['seconds'])}",
        "",
        MEANING[report["outcome"]],
    ]

    def part(title: str, texts: list[str], sign: str = "- ") -> None:
        if texts:
            lines.extend(["", title, *(f"  {sign}{text}" for text in texts)])

    part("What is wrong", report["problems"])
    if report["outcome"] != "right":
        part("How far it came", [report["stage"]], "")
    archive = [f"from      {origin(report)}"]
    if report["archive"]:
        old = duration(report["archiveAgeSeconds"])
        archive.append(f"archive   {report['archive']}, {old} old when the drill began")
    if sizes["files"]:
        archive.append(f"size      {sizes['files']} files, {megabytes(sizes['bytes'])}")
    if report["fetchSeconds"] is not None:
        archive.append(f"fetched   in {duration(report['fetchSeconds'])}")
    if report["image"]:
        archive.append(f"database  {report['image']}, in a network that leads no further than this machine")
    part("What was restored", archive, "")
    part("What was checked and is right", report["checked"])
    if counts:
        width = max(len(name) for name in [*counts, "all together"])
        numbers = {**counts, "all together": sum(counts.values())}
        part("Documents by database", [f"{name:<{width}} {number:>13,}" for name, number in numbers.items()], "")
    part("Worth knowing", report["notes"])
    part("The last lines of CouchDB's log", report["log"], "| ")
    last = report["lastSuccessAt"]
    lines += ["", f"The last drill that succeeded ended at {moment(last)}." if last else "No drill has succeeded yet."]
    return "\n".join(plain(line) for line in lines) + "\n"


def origin(report: dict[str, Any]) -> str:
    """Where a drill took the repository from, for people."""
    if report.get("from", "server") == "server":
        return "the server"
    copy = report["copy"]
    if copy is None:
        return "the bucket"
    return (
        f"the bucket, copy {copy['number']}, finished {copy['finished']}, {duration(copy['ageSeconds'])} old when the"
        f" drill began: {megabytes(copy['bytes'])}"
    )


class Reports:
    """What drills have said, and a mark while one runs."""

    def __init__(self, directory: str, keep: int = 1) -> None:
        self.directory = directory
        self.keep = keep
        os.makedirs(directory, mode=0o700, exist_ok=True)

    def latest(self) -> dict[str, Any] | None:
        return self._read("latest.json")

    def running(self) -> dict[str, Any] | None:
        """The mark of a drill that has begun and not ended: a report as far as it came."""
        return self._read("running.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with open(f"{self.directory}/{name}", encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def since(self) -> float:
        """When drills were set up: the first time that anything asked."""
        path = f"{self.directory}/since"
        if not os.path.exists(path):
            write_atomically(path, f"{moment(time.time())}\n", 0o600)
        return os.stat(path).st_mtime

    def mark(self, report: dict[str, Any]) -> None:
        write_atomically(f"{self.directory}/running.json", json.dumps(report) + "\n", 0o600)

    def unmark(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(f"{self.directory}/running.json")

    def ledger(self) -> Ledger:
        return Ledger(f"{self.directory}/ledger.json")

    def reading(self, repository: str) -> dict[str, Any]:
        """How far drills have read the documents of a repository's archives, and which they couldn't read."""
        known = self._read("reading.json") or {}
        if known.get("repository") != repository:
            known = {}
        return {"position": known.get("position") or {}, "failed": known.get("failed") or []}

    def keep_reading(self, repository: str, position: dict[str, str], failed: list[tuple[str, str]]) -> None:
        content = {"repository": repository, "position": position, "failed": failed}
        write_atomically(f"{self.directory}/reading.json", json.dumps(content) + "\n", 0o600)

    def keep_doubts(self, late: str | None, doubts: list[str]) -> None:
        """Keep for the alarm what a look back came to: that drills are `late`, and `doubts` about the bucket."""
        found = {"finishedAt": round(time.time()), "late": late is not None, "doubts": doubts}
        write_atomically(f"{self.directory}/overdue.json", json.dumps(found) + "\n", 0o600)

    def write(self, report: dict[str, Any]) -> None:
        """Finish a report, write it as JSON and as a page, and forget the oldest."""
        finished = time.time()
        last = (self.latest() or {}).get("lastSuccessAt")
        report.update(
            ok=report["outcome"] == "right",
            finished=moment(finished),
            finishedAt=round(finished),
            seconds=round(max(finished - report["beganAt"], 0), 1),
            lastSuccessAt=round(finished) if report["outcome"] == "right" else last,
        )
        texts = {"json": json.dumps(plain_values(report), indent=2) + "\n", "txt": page(report)}
        for kind, text in texts.items():
            write_atomically(f"{self.directory}/{report['began']}.{kind}", text, 0o600)
        for kind, text in texts.items():
            write_atomically(f"{self.directory}/latest.{kind}", text, 0o600)
        kept = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\.(json|txt)")
        names = sorted((name for name in os.listdir(self.directory) if kept.fullmatch(name)), reverse=True)
        for name in names[2 * self.keep :]:
            os.remove(f"{self.directory}/{name}")


def new_report(deployment: str) -> dict[str, Any]:
    """A report of a drill that begins now. Times are UTC, sizes bytes, `counts` documents by database."""
    now = time.time()
    return {
        "deployment": deployment,
        "host": platform.node(),
        "outcome": "impossible",
        "ok": False,
        "began": moment(now),
        "beganAt": now,
        "stage": "getting ready",
        "from": "server",
        "copy": None,
        "archive": None,
        "archiveTime": None,
        "archiveAgeSeconds": None,
        "image": None,
        "fetchSeconds": None,
        "sizes": {"files": 0, "bytes": 0},
        "counts": {},
        "checked": [],
        "notes": [],
        "problems": [],
        "log": [],
    }
