"""What came of a backup: for the next program to read, for Prometheus, and in words."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from chtbackup.backup.run import Run
from chtbackup.backup.store import Store
from chtbackup.base.files import write_atomically
from chtbackup.base.text import BUG, MAX_LINES, complain, megabytes, moment, plain_values, say

COMPLETE, INCOMPLETE, NONE = 0, 1, 2


def result_of(run: Run, store: Store, bug: bool = False) -> dict[str, Any]:
    """A run's result as `last-backup.json` has it."""
    archive, figures = store.created, store.figures
    finished = time.time()
    return {
        "deployment": run.deployment,
        "started": moment(run.started),
        "finished": moment(finished),
        "startedAt": round(run.started),
        "finishedAt": round(finished),
        "ok": archive is not None and not run.problems,
        "archive": run.archive if archive else None,
        "archiveId": archive["id"] if archive else None,
        "originalSize": figures.get("original_size"),
        "compressedSize": figures.get("compressed_size"),
        "deduplicatedSize": figures.get("deduplicated_size"),
        "files": figures.get("nfiles"),
        "documents": run.documents,
        "borgExitCode": store.exit_code,
        "exitCode": BUG if bug else NONE if archive is None else INCOMPLETE if run.problems else COMPLETE,
        "problems": run.problems,
        "notes": run.notes,
    }


def remember(state: str, result: dict[str, Any]) -> None:
    """Write last-backup.json into the directory `state`, and the metrics beside it. Raises OSError."""
    path = f"{state}/last-backup.json"
    last_success = result["finishedAt"] if result["ok"] else None
    if last_success is None:
        try:
            with open(path, encoding="utf-8") as file:
                last_success = json.load(file).get("lastSuccessAt")
        except (OSError, ValueError, AttributeError):
            pass
    result["lastSuccessAt"] = last_success
    write_atomically(path, json.dumps(plain_values(result), indent=2) + "\n")
    write_atomically(f"{state}/last-backup.prom", metrics(result, last_success))


def report(result: dict[str, Any]) -> None:
    for text in result["notes"][:MAX_LINES]:
        say(f"note: {text}")
    problems = result["problems"]
    for text in problems[:MAX_LINES]:
        complain(f"<3>problem: {text}" if os.environ.get("JOURNAL_STREAM") else f"problem: {text}")
    if len(problems) > MAX_LINES:
        complain(f"and {len(problems) - MAX_LINES} more problems")
    took = result["finishedAt"] - result["startedAt"]
    if result["archive"] is None:
        complain(f"no backup was made ({took} s)")
        return
    say(
        f"{result['archive']} {'is complete' if result['ok'] else 'is INCOMPLETE'}: {result['files']} files,"
        f" {megabytes(result['originalSize'])}, {megabytes(result['deduplicatedSize'])} of it new, {took} s"
    )


def metrics(result: dict[str, Any], last_success: float | None) -> str:
    """A run's result (`last-backup.json`) in Prometheus' text format. Times are seconds since 1970, UTC."""
    label = f'{{deployment="{result["deployment"]}"}}'
    values: list[tuple[str, str, Any]] = [
        ("last_run_timestamp_seconds", "When the last backup ended.", result["finishedAt"]),
        ("last_success_timestamp_seconds", "When a complete backup last ended.", last_success),
        ("last_run_success", "1 if the last backup was complete, else 0.", int(result["ok"])),
        (
            "last_run_duration_seconds",
            "How long the last backup took.",
            result["finishedAt"] - result["startedAt"],
        ),
        (
            "last_run_exit_code",
            "0 complete, 1 made but something is missing, 2 none made, 70 a fault of the program.",
            result["exitCode"],
        ),
        ("original_bytes", "Size of the files in the last archive.", result["originalSize"]),
        ("compressed_bytes", "Their size compressed.", result["compressedSize"]),
        ("deduplicated_bytes", "What the last archive added to the repository.", result["deduplicatedSize"]),
        ("files", "Number of files in the last archive.", result["files"]),
    ]
    lines = []
    for name, meaning, value in values:
        if value is not None:
            lines += [f"# HELP cht_backup_{name} {meaning}", f"# TYPE cht_backup_{name} gauge"]
            lines.append(
                f"cht_backup_{name}{label} {value:.17g}"
                if isinstance(value, float)
                else f"cht_backup_{name}{label} {value}"
            )
    return "\n".join(lines) + "\n"
