"""What systemd knows of units: one question for all of them, with a limit."""

from __future__ import annotations

import calendar
import os
import subprocess
import time
from typing import Any

LIMIT = 10  # seconds
ASKED = "Id,LoadState,ActiveState,UnitFileState,Result,NextElapseUSecRealtime,InactiveExitTimestampMonotonic"


def ask(units: list[str], booted: float) -> list[dict[str, Any]] | None:
    """Each unit as the facts have it; None where systemd doesn't say. `booted` is when the machine was started, in
    seconds since 1970."""
    if not units:
        return []
    # Without a zone and a language of the machine's the times have one form.
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
    command = ["systemctl", "show", f"--property={ASKED}", "--", *units]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return read(shown.stdout, booted)


def read(shown: str, booted: float) -> list[dict[str, Any]]:
    """What `systemctl show` has printed, a block for each unit."""
    return [unit_of(block, booted) for block in shown.split("\n\n") if block.strip()]


def unit_of(block: str, booted: float) -> dict[str, Any]:
    of = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    began = int(of.get("InactiveExitTimestampMonotonic") or 0) / 1e6
    running = of.get("ActiveState") in ("activating", "reloading", "deactivating")
    return {
        "unit": of.get("Id", ""),
        "state": of.get("ActiveState", "unknown"),
        "next": moment_of(of.get("NextElapseUSecRealtime", "")),
        "masked": of.get("LoadState") == "masked" or of.get("UnitFileState", "").startswith("masked"),
        "there": of.get("LoadState") != "not-found",
        "result": of.get("Result", ""),
        # Since when a oneshot service runs; None where it doesn't.
        "runsSince": round(booted + began) if running and began else None,
    }


def moment_of(text: str) -> int | None:
    """A time as systemd prints it in UTC (`Mon 2026-11-30 10:00:00 UTC`), in seconds since 1970."""
    try:
        return calendar.timegm(time.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC"))
    except ValueError:
        return None
