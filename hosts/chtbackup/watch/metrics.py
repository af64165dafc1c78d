"""The facts in Prometheus' text format, for node_exporter's textfile collector: one file for a deployment and a role.

Names follow Prometheus' practice: base units, times and never ages (a writer that is dead must go on ageing), the age
that is allowed as a metric of its own, so that one rule serves every deployment.
"""

from __future__ import annotations

import os
from typing import Any

from chtbackup.base.files import write_atomically
from chtbackup.watch.conditions import CONDITIONS

HOUR = 3600

HELP = {
    "watch_run_timestamp_seconds": "When the watch last looked.",
    "watch_max_age_seconds": "How old that may be.",
    "condition": "1 while a condition of docs/runbook.md holds, else 0.",
    "duty_last_success_timestamp_seconds": "When a duty, such as backup, copy or drill, last succeeded.",
    "duty_last_run_success": "1 if the last run of a duty succeeded, else 0.",
    "duty_max_age_seconds": "How long ago the last success of a duty may be.",
    "disk_free_bytes": "Free space of the disk that the backups need.",
    "disk_size_bytes": "Its size.",
    "disk_full_timestamp_seconds": "When it is full at the pace of the last weeks.",
    "repository_size_bytes": "What the repository takes on the server.",
    "data_size_bytes": "What the last archive holds, before compression.",
    "bucket_size_bytes": "What the newest copy takes in the bucket.",
    "documents": "Documents by database, as the last backup counted them.",
    "certificate_end_timestamp_seconds": "Until when the CHT's certificate holds.",
}


def duties(settings: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, dict[str, Any], float | None]]:
    """What is done again and again: its name, its report, and after how many hours it is overdue."""
    days = settings["drillOverdueDays"]
    arrived = facts["lastTransactionAt"]
    return [
        ("backup", facts["backup"], settings["backupOverdueHours"]),
        ("drill", facts["drill"], days and days * 24),
        ("copy", facts["copy"], settings["copyOverdueHours"]),
        ("check", facts["check"], settings["checkOverdueHours"]),
        ("retention", facts["retention"], settings["retentionOverdueHours"]),
        ("arrival", arrived and {"lastSuccessAt": arrived, "ok": True}, settings["silentHours"]),
    ]


def samples(settings: dict[str, Any], facts: dict[str, Any], conditions: list[dict[str, Any]], now: float) -> Any:
    """Values by the metric's name, each with its own labels."""
    disk, backup = facts["disk"] or {}, facts["backup"] or {}
    holds = {of["id"] for of in conditions}
    found: dict[str, list[Any]] = {
        "watch_run_timestamp_seconds": [({}, round(now))],
        "watch_max_age_seconds": [({}, 3 * HOUR)],
        "condition": [
            ({"id": of.id, "severity": of.severity}, int(of.id in holds))
            for of in CONDITIONS
            if settings["role"] in of.seen
        ],
        "disk_free_bytes": [({}, disk.get("free"))],
        "disk_size_bytes": [({}, disk.get("total"))],
        "disk_full_timestamp_seconds": [({}, disk.get("fullAt"))],
        "repository_size_bytes": [({}, disk.get("repository"))],
        "data_size_bytes": [({}, disk.get("data"))],
        "bucket_size_bytes": [({}, disk.get("bucket"))],
        "documents": [({"database": name}, of) for name, of in sorted((backup.get("documents") or {}).items())],
        "certificate_end_timestamp_seconds": [({}, facts["certificateEnds"])],
    }
    for name, report, hours in duties(settings, facts):
        if report is not None and hours is not None:
            for metric, value in (
                ("duty_last_success_timestamp_seconds", report.get("lastSuccessAt")),
                ("duty_last_run_success", int(report["ok"])),
                ("duty_max_age_seconds", hours * HOUR),
            ):
                found.setdefault(metric, []).append(({"duty": name}, value))
    return found


def label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def text_of(settings: dict[str, Any], facts: dict[str, Any], conditions: list[dict[str, Any]], now: float) -> str:
    """The whole file. HELP and TYPE are the same in each: node_exporter takes no others for the same metric."""
    found = samples(settings, facts, conditions, now)
    common = {"deployment": settings["deployment"], "role": settings["role"]}
    lines = []
    for name, meaning in HELP.items():
        values = [(labels, value) for labels, value in found.get(name, []) if value is not None]
        if values:
            lines += [f"# HELP cht_backup_{name} {meaning}", f"# TYPE cht_backup_{name} gauge"]
        for labels, value in values:
            named = ",".join(f'{key}="{label(of)}"' for key, of in {**common, **labels}.items())
            lines.append(f"cht_backup_{name}{{{named}}} {value:.17g}")
    return "\n".join(lines) + "\n"


def write(settings: dict[str, Any], facts: dict[str, Any], conditions: list[dict[str, Any]], now: float) -> None:
    """Write the file where somebody collects it; nothing where the directory isn't there. Raises OSError."""
    directory = settings["metricsDirectory"]
    if directory is not None and os.path.isdir(directory):
        path = f"{directory}/cht-backup-{settings['deployment']}-{settings['role']}.prom"
        write_atomically(path, text_of(settings, facts, conditions, now), 0o644)
