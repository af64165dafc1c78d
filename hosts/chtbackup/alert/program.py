"""Tell that a backup, a restore drill, the copy to the bucket, the sealing or the audit of the repository, or the watch
failed: in the journal, and to every address in the file `alerts`.

Run by the units `cht-backup-<deployment>-failed.service`, `cht-drill-<deployment>-failed.service`,
`cht-bucket-failed-<deployment>.service` and `cht-repository-failed-<deployment>.service` after another unit failed, and
by the watch's unit after itself; and by `cht-alert-later-<deployment>.service` and
`cht-repository-alert-later-<deployment>.service` while an alarm hasn't reached everybody. The addresses are apprise
URLs and hold tokens or passwords: they are never printed, nor is what a library says about them.

It runs in no environment, so that what takes away the programs that it watches doesn't silence it: the
system's own Python takes apprise from any of the environments on the machine. All that apprise needs is plain
Python, which works with a newer Python than the one that it was installed for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any

from chtbackup.alert.deliver import outdated
from chtbackup.alert.describe import (
    begun,
    describe,
    describe_bucket,
    describe_drill,
    describe_repository,
    describe_retention,
    describe_watch,
    failed_last,
)
from chtbackup.alert.lately import once_a_day, was_told
from chtbackup.alert.queue import Queue, send_until_empty
from chtbackup.alert.tell import DELIVERED, WRONG, priority, raise_alarm, read_addresses, send_kept, unreadable
from chtbackup.base.text import complain, say


def join(text: str, hint: str) -> str:
    return f"{text.removesuffix('.')}. {hint}" if hint else text


def keep_trying(queue: Queue, read: Callable[[], list[str]], sleep: Callable[[float], None] = time.sleep) -> None:
    """Send what is kept until all of it is delivered. Where there is nobody to tell any more it goes."""

    def once() -> None:
        try:
            addresses = read()
        except OSError as error:
            complain(unreadable(error))
            return
        if not addresses:
            complain("there is no address any more: the alerts that are kept are dropped")
        send_kept(queue, addresses)

    send_until_empty(queue, once, sleep)


def deliver_later(queue: Queue | None, read: Callable[[], list[str]]) -> int:
    if queue is None:
        complain("$STATE_DIRECTORY isn't set, where systemd keeps the alerts for the unit")
        return WRONG
    try:
        keep_trying(queue, read)
        return DELIVERED
    except OSError as error:
        complain(f"the alerts kept in {queue.directory} can't be used: {error.strerror}")
        return WRONG


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Say in the journal, and to the addresses in the file `alerts`, that a backup, a"
        " restore drill, the copy to the bucket, or the sealing or the audit of the repository failed. What"
        " isn't delivered is kept in $STATE_DIRECTORY, where systemd gives one.",
        epilog="Exit codes: 0 said and delivered everywhere, 1 an address didn't take it, 2 wrong settings,"
        " 70 the program itself is at fault.",
    )
    parser.add_argument(
        "settings",
        metavar="SETTINGS",
        help="/etc/cht-backup/DEPLOYMENT/settings.json, drill.json there, or"
        " /etc/cht-backup-server/DEPLOYMENT/repository.json; the file `alerts` lies beside it",
    )
    parser.add_argument(
        "--about",
        choices=("backup", "drill", "bucket", "repository", "retention", "watch"),
        default="backup",
        help="what failed",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--test", action="store_true", help="send a test message instead")
    instead.add_argument("--later", action="store_true", help="send what is kept instead, until nothing is left")
    options = parser.parse_args(arguments)
    directory = os.environ.get("STATE_DIRECTORY")
    queue = Queue(directory) if directory else None

    def read() -> list[str]:
        return read_addresses(os.path.join(os.path.dirname(os.path.abspath(options.settings)), "alerts"))

    if options.later:
        return deliver_later(queue, read)
    try:
        with open(options.settings, encoding="utf-8") as file:
            deployment = json.load(file)["deployment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        complain(f"{options.settings}: can't be read as settings: {error}")
        # They may be what failed. The directory carries the deployment's name, too.
        deployment = os.path.basename(os.path.dirname(os.path.abspath(options.settings)))
    if options.test:
        title, text = f"CHT backup {deployment}: test", f"Alerts from {platform.node()} arrive here."
        queue = None
    else:
        title, text, began = what_happened(options.about, deployment)
        say(f"{priority()}{title}: {text}")
    try:
        addresses = read()
    except OSError as error:
        complain(unreadable(error))
        return WRONG
    if not options.test and not is_news(options.about, deployment, text, directory, began):
        say("somebody was told of this within the last day")
        return DELIVERED
    if options.test and not addresses:
        complain("there is nobody to send a test to: cht-backup:alerts names no address")
        return WRONG
    return raise_alarm(queue, addresses, title, text)


def is_news(about: str, deployment: str, text: str, directory: str | None, began: float) -> bool:
    """Whether somebody must be told now, and wasn't of the same trouble within a day. `directory` keeps alarms; `began`
    is as `what_happened` says it."""
    now = time.time()
    if about == "watch":
        try:
            return directory is None or once_a_day(f"{directory}/../watch-failed", now)
        except OSError:
            return True
    # What the watch on this machine remembers.
    kept = "cht-backup" if about in ("backup", "drill") else "cht-backup-server"
    return not was_told(f"/var/lib/{kept}/{deployment}/watch-state.json", about, text, now, began)


def what_happened(about: str, deployment: str) -> tuple[str, str, float]:
    """Title and text of the message, from what lies on this machine; and when the run that failed began, in seconds
    since 1970, 0 where that isn't known."""
    host, state = platform.node(), f"/var/lib/cht-backup/{deployment}"
    if about == "watch":
        # systemd says so to what runs after the unit.
        result, status = (os.environ.get(name, "") for name in ("SERVICE_RESULT", "EXIT_STATUS"))
        return *describe_watch(deployment, host, result, status, f"'cht-*watch-{deployment}'"), 0
    booted = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    if about == "backup":
        last = read_report(f"{state}/last-backup.json")
        unit = unit_state(f"cht-backup-{deployment}.service")
        title, text = describe(deployment, host, last, unit, booted)
        return title, join(text, outdated(f"/opt/cht-backup/{deployment}/venv")), begun(unit, booted)
    names = {
        "drill": [f"cht-drill-{deployment}{part}.service" for part in ("", "-cleanup", "-overdue")],
        "bucket": [f"cht-bucket-{part}-{deployment}.service" for part in ("copy", "check")],
        "repository": [f"cht-repository-{part}-{deployment}.service" for part in ("seal", "audit")],
        "retention": [f"cht-retention-{deployment}.service"],
    }[about]
    units = {name: unit_state(name) for name in names}
    _, began = failed_last(units, booted, names[0])
    if about == "drill":
        latest, seen = (read_report(f"{state}/drills/{of}.json") for of in ("latest", "overdue"))
        title, text = describe_drill(deployment, host, latest, units, booted, seen)
        return title, join(text, outdated(f"/opt/cht-backup/{deployment}/venv")), began
    if about == "retention":
        report = read_report(f"{state}/last-retention.json")
        return *describe_retention(deployment, host, report, units, booted), began
    if about == "repository":
        report = read_report(f"/var/lib/cht-backup-server/{deployment}/last-audit.json")
        return *describe_repository(deployment, host, report, units, booted), began
    state = f"/var/lib/cht-backup-bucket/{deployment}"
    reports = {what: read_report(f"{state}/last-{what}.json") for what in ("copy", "check")}
    title, text = describe_bucket(deployment, host, reports, units, booted)
    return title, join(text, outdated(f"/opt/cht-backup-bucket/{deployment}/venv")), began


def read_report(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def unit_state(unit: str) -> dict[str, str]:
    properties = "Result,ExecMainStatus,ActiveState,ExecMainStartTimestampMonotonic"
    command = ["systemctl", "show", unit, f"--property={properties}"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
