"""The last backup, copy, drill and others of a deployment, from what its machines report. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from chtbackup.watch.overview import facts_of, listed, mapping, name_of, number, text
from chtbackup.watch.words import age, count, size

DUTIES = {
    "backup": "Backup",
    "copy": "Copy in the bucket",
    "check": "Check of the copy",
    "drill": "Restore drill",
    "retention": "Removal of old archives",
    "audit": "Look into the repository",
}
"""What is done again and again, by its name among a report's facts, in the order in which it is shown."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The last run of something on a machine."""

    duty: str
    machine: str
    ok: bool
    finished: float | None
    succeeded: float | None
    """When a run last succeeded: this one or an earlier one; None: never."""
    now: float | None
    """The machine's own clock when it reported: ages are by the same clock as the times."""
    figures: str


def runs(reports: list[dict[str, Any]]) -> list[Run]:
    found = []
    for duty in DUTIES:
        for report in reports:
            fact = mapping(facts_of(report).get(duty))
            if fact:
                found.append(
                    Run(
                        duty,
                        name_of(report),
                        fact.get("ok") is True,
                        number(fact.get("finishedAt")),
                        number(fact.get("lastSuccessAt")),
                        number(report.get("at")),
                        figures(duty, fact),
                    )
                )
    return found


def figures(duty: str, fact: dict[str, Any]) -> str:
    """What a run came to. Of what went wrong only how much: its words may name documents."""
    parts = []
    if duty == "backup" and number(fact.get("originalSize")) is not None:
        parts = [
            count(fact.get("files"), "file"),
            size(fact["originalSize"]),
            f"{size(fact.get('deduplicatedSize'))} new",
        ]
    if duty == "copy" and number(fact.get("uploadedBytes")) is not None:
        parts = [f"{size(fact['uploadedBytes'])} uploaded"]
    if duty == "drill":
        documents = [number(each) or 0 for each in mapping(fact.get("counts")).values()]
        parts = [count(sum(documents), "document")] if documents else []
        parts += [f"from the {'bucket' if fact.get('from') == 'bucket' else 'server'}"]
        seconds = number(fact.get("seconds"))
        parts += [] if seconds is None else [f"took {age(seconds)}"]
    if duty == "retention":
        parts = [f"{count(fact.get('removed'), 'archive')} removed", f"{size(fact.get('freed'))} freed"]
    if duty == "audit":
        parts = [count(fact.get("archives"), "archive")]
    problems = listed(fact.get("problems"))
    return ", ".join(parts + ([count(len(problems), "problem")] if problems else []))


def outcome(run: Run) -> str:
    """How the last run ended, in a word: `well`, `failed`, or `waited`, where it neither succeeded nor went wrong."""
    if not run.ok:
        return "failed"
    return "well" if run.succeeded is not None and run.finished == run.succeeded else "waited"


def machine_named(report: dict[str, Any]) -> str:
    """A machine's role with its host's name, where there is one."""
    host = text(report.get("host"))
    return f"{name_of(report)} ({host})" if host else name_of(report)
