"""Call a service outside (healthchecks.io and alike) when a run begins, succeeds or fails, so that it notices when
nothing comes any more, from any machine.

Run by the units of backup, drill, copy and retention before and after the run itself, as root; systemd's
$SERVICE_RESULT says how that ended. The addresses are in `pings.json` beside the settings, which root alone reads:
whoever knows one can keep the service from noticing. They are never printed. Where there is none, and whatever goes
wrong here, the run is what it is: the exit code is always 0.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from chtbackup.base.text import complain, megabytes, plain

LIMIT, TRIES, PAUSE = 10, 2, 2  # seconds for a try, tries, seconds between them
LONGEST = 5_000  # bytes of a body: services keep 10,000 or more
FRESH = 60  # seconds before its end that a run's report may be of
REPORTS = {
    "backup": "/var/lib/cht-backup/{}/last-backup.json",
    "drill": "/var/lib/cht-backup/{}/drills/latest.json",
    "copy": "/var/lib/cht-backup-bucket/{}/last-copy.json",
    "retention": "/var/lib/cht-backup/{}/last-retention.json",
}
FIGURES = {
    "originalSize": "size",
    "deduplicatedSize": "new",
    "uploadedBytes": "uploaded",
    "freed": "freed",
}
"""Bytes in a report, by what they are called in a body."""


def address_of(path: str, what: str) -> str | None:
    """Where to call; None where nobody is to be called. Raises OSError, ValueError."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file).get(what)
    except FileNotFoundError:
        return None


def read_report(path: str) -> dict[str, Any]:
    """The run's own report; empty where it left none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    fresh = isinstance(found, dict) and found.get("finishedAt", 0) >= time.time() - FRESH
    return found if fresh else {}


def body_of(report: dict[str, Any], result: str) -> str:
    """What is said of a run: its figures, or why it failed. Never a name of a patient or a document."""
    if result != "success":
        problems = [plain(text) for text in report.get("problems", [])]
        return "; ".join(problems) or f"the unit ended with {result}"
    figures = [f"{name} {megabytes(report[key])}" for key, name in FIGURES.items() if report.get(key) is not None]
    began = report.get("startedAt", report.get("beganAt"))
    took = [f"took {round(report['finishedAt'] - began)} s"] if began is not None else []
    return ", ".join([*figures, *took]) or "done"


def ending(report: dict[str, Any], result: str) -> str:
    """What of the address says how it ended."""
    if result != "success":
        return "/fail"
    # A copy that found the repository in use is no failure, and no success either.
    return "/log" if report.get("outcome") in ("busy", "waiting") else ""


def cut(text: str) -> bytes:
    """The beginning of a text, which ends with a whole character."""
    return text.encode()[:LONGEST].decode(errors="ignore").encode()


def call(address: str, body: str) -> str:
    """Why nobody took it, or nothing. The words of an error may hold the address: its kind must do."""
    why = ""
    for number in range(TRIES):
        time.sleep(PAUSE if number else 0)
        try:
            request = urllib.request.Request(address, data=cut(body), method="POST")
            with urllib.request.urlopen(request, timeout=LIMIT):
                return ""
        except urllib.error.HTTPError as error:
            why = f"it answers {error.code}"
        except (OSError, ValueError) as error:
            why = type(error).__name__
    return why


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Call the service that `pings.json` names for a kind of run: when it begins, and when it ends, well"
        " or not, by $SERVICE_RESULT.",
        epilog="Exit code: always 0.",
    )
    parser.add_argument("when", choices=("start", "end"), metavar="WHEN", help="start or end")
    parser.add_argument("what", choices=tuple(REPORTS), metavar="WHAT", help=", ".join(REPORTS))
    parser.add_argument("deployment", metavar="DEPLOYMENT", help="its name")
    parser.add_argument("pings", metavar="FILE", help="/etc/cht-backup/DEPLOYMENT/pings.json, or that of the server")
    options = parser.parse_args(arguments)
    try:
        address = address_of(options.pings, options.what)
        if address is None:
            return 0
        end, body = "/start", ""
        if options.when == "end":
            result = os.environ.get("SERVICE_RESULT", "success")
            report = read_report(REPORTS[options.what].format(options.deployment))
            end, body = ending(report, result), body_of(report, result)
        why = call(address.rstrip("/") + end, body)
    except (OSError, ValueError, AttributeError) as error:
        why = f"{options.pings} can't be read: {type(error).__name__}"
    if why:
        complain(f"the service that watches from outside wasn't reached: {why}")
    return 0
