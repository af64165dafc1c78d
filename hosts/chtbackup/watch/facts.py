"""What this machine knows of its deployment's backups, without asking anybody else: reports, sizes, units.

Nothing in here waits for a network, so that `chtbackup watch report` answers at once; what takes a network is asked by
`probes.py` once an hour and remembered.
"""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import stat
import time
from typing import Any

from chtbackup.alert.deliver import outdated
from chtbackup.base.files import size_of
from chtbackup.repository.files import read as read_file
from chtbackup.watch import forecast, history, units

SYNCHRONIZED = "/run/systemd/timesync/synchronized"
"""systemd-timesyncd touches it whenever it has set the clock."""


def report(path: str | None) -> dict[str, Any] | None:
    """A report on this machine; None where there is none. It may be in a directory of an account's, so neither a link
    nor a pipe there leads anywhere."""
    if path is None:
        return None
    try:
        found = json.loads(read_file(path) or "null")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def has_reserve(path: str, size: int) -> bool:
    try:
        of = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(of.st_mode) and of.st_blocks * 512 >= size * 0.9


def disk_of(settings: dict[str, Any], backup: dict[str, Any] | None, copy: dict[str, Any] | None) -> dict[str, Any]:
    """The disk that counts here. Raises OSError."""
    of = os.statvfs(settings["disk"])
    repository, reserve = settings["repository"], settings["reserve"]
    return {
        "path": settings["disk"],
        "total": of.f_blocks * of.f_frsize,
        "free": of.f_bavail * of.f_frsize,
        "repository": size_of(repository) if repository and os.path.isdir(repository) else None,
        "data": (backup or {}).get("originalSize"),
        "bucket": ((copy or {}).get("copy") or {}).get("size"),
        "reserve": reserve is None or has_reserve(reserve, settings["reserveBytes"]),
        "growthPerWeek": None,
        "fullAt": None,
    }


def last_archive(state: str) -> int | None:
    """When the server stored the newest archive, by its own clock, in seconds since 1970. Checkpoints count, retention
    and copies don't: only a client of the repository writes archives."""
    try:
        with open(f"{state}/ledger.json", encoding="utf-8") as file:
            newest = max(of["at"] for of in json.load(file))
        return calendar.timegm(time.strptime(newest, "%Y-%m-%dT%H:%M:%SZ"))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def waiting_alarms(directory: str) -> dict[str, Any]:
    """The alarms that haven't reached everybody: since when (None: there is none), and whether somebody has got one."""
    since, partly = None, False
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(directory)):
            of = report(f"{directory}/{name}") or {}
            if not name.startswith(".") and isinstance(of.get("first"), (int, float)):
                since = min(of["first"], since or of["first"])
                partly = partly or bool(of.get("told"))
    return {"since": since and round(since), "partly": partly}


def modified(path: str) -> int | None:
    try:
        return round(os.stat(path).st_mtime)
    except OSError:
        return None


def gather(settings: dict[str, Any], memory: dict[str, Any], now: float) -> dict[str, Any]:
    """All facts, as `watch.json` has them. `memory` is what `probes.py` found out the last time."""
    state, bucket = settings["state"], settings["bucketState"]
    booted = now - time.clock_gettime(time.CLOCK_MONOTONIC)
    on_server = settings["role"] == "server"
    backup = report(f"{state}/last-backup.json") if settings["role"] == "cht" else None
    copy, check = (report(f"{bucket}/last-{of}.json") if bucket else None for of in ("copy", "check"))
    shown = units.ask([*settings["timers"], *settings["services"]], booted)
    facts: dict[str, Any] = {
        "backup": backup,
        "drill": report(f"{state}/drills/latest.json") if settings["drills"] else None,
        "copy": copy,
        "check": check,
        "audit": report(f"{state}/last-audit.json") if on_server else None,
        "retention": report(f"{state}/last-retention.json") if on_server else None,
        "disk": None,
        "lastTransactionAt": last_archive(state) if on_server else None,
        "certificateEnds": memory.get("certificateEnds"),
        "units": shown or [],
        "history": history.read(f"{state}/watch-history.jsonl"),
        # Beyond what others read.
        "server": memory.get("server"),
        "drillSeenAt": memory.get("drillSeenAt"),
        "alarms": waiting_alarms(f"{state}/alerts"),
        "outdated": [text for text in map(outdated, settings["environments"]) if text],
        "removedAt": modified(f"{state}/removed.json") if on_server else None,
        "clockSetAt": modified(SYNCHRONIZED),
        "booted": round(booted),
    }
    with contextlib.suppress(OSError):
        facts["disk"] = disk_of(settings, backup, copy)
    facts["history"] = history.with_today(facts["history"], history.line_of(facts, now))
    if facts["disk"]:
        facts["disk"]["growthPerWeek"] = forecast.pace(facts["history"])
        facts["disk"]["fullAt"] = forecast.full_at(facts["history"], facts["disk"]["free"], now)
    return facts
