#!/usr/bin/env python3
"""Tell that a backup, a restore drill or the copy to the bucket failed: in the journal, and to every address
in the file `alerts`.

Run by the units `cht-backup-<deployment>-failed.service`, `cht-drill-<deployment>-failed.service` and
`cht-bucket-failed-<deployment>.service` after another unit failed. The addresses are apprise URLs and hold
tokens or passwords: they are never printed, nor is what a library says about them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import subprocess
import sys
import time
from typing import Any
from urllib.parse import urlsplit

DELIVERED, UNDELIVERED, WRONG = 0, 1, 2
CRITICAL = "<2>"  # systemd takes such a prefix for the line's priority, see sd-daemon(3)


def describe(
    deployment: str, host: str, last: dict[str, Any] | None, unit: dict[str, str]
) -> tuple[str, str]:
    """Title and text of the message, from last-backup.json and from what systemd knows about the unit.

    The JSON is only believed when it is about a run that failed: a unit that was killed, or whose script
    could not start, leaves the one of the run before.
    """
    title = f"CHT backup {deployment} failed on {host}"
    problems = (last or {}).get("problems") or []
    # Result is "exit-code" when the script itself said so, else what ended it ("timeout", "signal", …).
    if (
        last is not None
        and not last.get("ok")
        and unit.get("Result", "exit-code") == "exit-code"
        and problems
    ):
        kept = (
            f"archive {last['archive']} was made, but is incomplete"
            if last.get("archive")
            else "no backup was made"
        )
        text = f"{kept} ({last.get('finished')}): {some(problems)}"
    else:
        text = ended(unit, f"cht-backup-{deployment}")
    if last is not None and last.get("lastSuccessAt") is None:
        text += ". No backup has succeeded so far."
    return title, text


def some(problems: list[str]) -> str:
    return "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")


def ended(unit: dict[str, str], name: str) -> str:
    return (
        f"the unit ended with {unit.get('Result') or 'an unknown result'}"
        f" (exit status {unit.get('ExecMainStatus') or 'unknown'}); see: journalctl -u {name}"
    )


def describe_drill(
    deployment: str,
    host: str,
    latest: dict[str, Any] | None,
    units: dict[str, dict[str, str]],
    booted: float,
    seen: dict[str, Any] | None = None,
) -> tuple[str, str]:
    """Title and text of the message about a drill, from its latest report and from what systemd knows about
    the drill's units, by name. `booted` is when the machine was started, in seconds since 1970; `seen` is
    what the latest look for what is overdue came to.

    It is about the unit that failed last. A report is only believed when it was written since that unit
    began: a script that could not start leaves the one of the drill before.
    """
    name = f"cht-drill-{deployment}"
    unit, began = failed_last(units, booted, f"{name}.service")
    last = (latest or {}).get("lastSuccessAt")
    past = f"The last good one ended at {moment(last)}." if last else "No drill has succeeded so far."
    problems = (latest or {}).get("problems") or []
    if unit == f"{name}-overdue.service":
        if seen is None or seen["finishedAt"] < began - 5:
            title = f"CHT restore drill {deployment}: whether it is overdue isn't known on {host}"
            return title, ended(units.get(unit, {}), unit.removesuffix(".service"))
        doubts = seen["doubts"]
        if doubts and not seen["late"]:
            return f"CHT backup {deployment}: the copy in the bucket, as {host} sees it", some(doubts)
        title = f"CHT restore drill {deployment} is overdue on {host}"
        text = f"it is too long ago that a restore was proven. {past}"
        if latest is not None and problems:
            text += f" The latest drill failed ({latest['finished']}): {some(problems)}"
        return title, " ".join([text, *(f"The bucket: {of}." for of in doubts)])
    title = f"CHT restore drill {deployment} failed on {host}"
    # The clock may have been set a little meanwhile.
    if latest is not None and not latest["ok"] and problems and latest["finishedAt"] >= began - 5:
        about = f"archive {latest['archive']}" if latest.get("archive") else "no archive was restored"
        text = f"{about} ({latest['finished']}): {some(problems)}"
    else:
        text = ended(units.get(unit, {}), unit.removesuffix(".service"))
    return title, f"{text.removesuffix('.')}. {past}"


def failed_last(units: dict[str, dict[str, str]], booted: float, default: str) -> tuple[str, float]:
    """Which of the units failed last, and when it began, in seconds since 1970."""

    def began(unit: str) -> float:
        return booted + int(units.get(unit, {}).get("ExecMainStartTimestampMonotonic") or 0) / 1e6

    failed = [unit for unit, of in units.items() if of.get("ActiveState") == "failed"]
    unit = max(failed, key=began, default=default)
    return unit, began(unit)


def describe_bucket(
    deployment: str,
    host: str,
    reports: dict[str, dict[str, Any] | None],
    units: dict[str, dict[str, str]],
    booted: float,
) -> tuple[str, str]:
    """Title and text of the message about the copy to the bucket, or the check of it, from their latest
    `reports` (`copy`, `check`) and from what systemd knows about the units, as for a drill."""
    names = {f"cht-bucket-{what}-{deployment}.service": what for what in ("copy", "check")}
    unit, began = failed_last(units, booted, f"cht-bucket-copy-{deployment}.service")
    what, report = names[unit], reports.get(names[unit])
    problems = (report or {}).get("problems") or []
    if report is not None and problems and report["finishedAt"] >= began - 5:
        text = f"({report['finished']}) {some(problems)}"
    else:
        text = ended(units.get(unit, {}), unit.removesuffix(".service"))
    last = (report or {}).get("lastSuccessAt")
    past = f"The last good one ended at {moment(last)}." if last else "None has succeeded so far."
    failed = (
        "Copy of the backups to the bucket failed" if what == "copy" else "Check of the bucket found problems"
    )
    return f"{failed}: {deployment} on {host}", f"{text.removesuffix('.')}. {past}"


def moment(time_: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_))


def read_addresses(path: str) -> list[str]:
    """Apprise URLs, one a line; empty lines and lines that begin with # don't count. No file: none."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except FileNotFoundError:
        return []
    return [line for line in lines if line and not line.startswith("#")]


def kind(address: str) -> str:
    """What may be said of an address: its scheme, such as `mailtos`."""
    scheme = urlsplit(address).scheme
    return scheme if re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else "unknown kind"


def deliver(addresses: list[str], title: str, text: str) -> list[str]:
    """Send the message to each address. Returns one line for each that didn't take it."""
    import apprise  # here, so that the journal's line doesn't depend on it

    # apprise logs addresses, and requests logs hosts and paths with tokens.
    logging.disable(logging.CRITICAL)
    failed = []
    for number, address in enumerate(addresses, 1):
        sender = apprise.Apprise()
        try:
            taken = sender.add(address)
            sent = taken and sender.notify(title=title, body=text, notify_type=apprise.NotifyType.FAILURE)
        except Exception:  # its text may hold the address
            taken, sent = True, False
        if not sent:
            why = "was not delivered" if taken else "is no address that apprise knows"
            failed.append(f"alert {number} of {len(addresses)} ({kind(address)}) {why}")
    return failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="alert.py",
        description="Say in the journal, and to the addresses in the file `alerts`, that a backup, a"
        " restore drill or the copy to the bucket failed.",
        epilog="Exit codes: 0 said and delivered everywhere, 1 an address didn't take it, 2 wrong settings.",
    )
    parser.add_argument(
        "settings",
        metavar="SETTINGS",
        help="/etc/cht-backup/DEPLOYMENT/settings.json, drill.json there, or"
        " /etc/cht-backup-bucket/DEPLOYMENT/bucket.json",
    )
    parser.add_argument(
        "--about", choices=("backup", "drill", "bucket"), default="backup", help="what failed"
    )
    parser.add_argument("--test", action="store_true", help="send a test message instead")
    options = parser.parse_args(arguments)
    try:
        with open(options.settings, encoding="utf-8") as file:
            deployment = json.load(file)["deployment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{options.settings}: can't be read as settings: {error}", file=sys.stderr)
        return WRONG
    if options.test:
        title, text = f"CHT backup {deployment}: test", f"Alerts from {platform.node()} arrive here."
    else:
        state = f"/var/lib/cht-backup/{deployment}"
        if options.about == "backup":
            last = read_report(f"{state}/last-backup.json")
            title, text = describe(
                deployment, platform.node(), last, unit_state(f"cht-backup-{deployment}.service")
            )
        else:
            names = (
                [f"cht-drill-{deployment}{part}.service" for part in ("", "-cleanup", "-overdue")]
                if options.about == "drill"
                else [f"cht-bucket-{part}-{deployment}.service" for part in ("copy", "check")]
            )
            units = {name: unit_state(name) for name in names}
            booted = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
            if options.about == "drill":
                latest, seen = (read_report(f"{state}/drills/{of}.json") for of in ("latest", "overdue"))
                title, text = describe_drill(deployment, platform.node(), latest, units, booted, seen)
            else:
                state = f"/var/lib/cht-backup-bucket/{deployment}"
                reports = {what: read_report(f"{state}/last-{what}.json") for what in ("copy", "check")}
                title, text = describe_bucket(deployment, platform.node(), reports, units, booted)
        prefix = CRITICAL if os.environ.get("JOURNAL_STREAM") else ""
        print(f"{prefix}{title}: {text}", flush=True)
    try:
        addresses = read_addresses(os.path.join(os.path.dirname(os.path.abspath(options.settings)), "alerts"))
    except OSError as error:
        print(f"the file of alert addresses can't be read: {error.strerror}", file=sys.stderr)
        return WRONG
    failed = deliver(addresses, title, text) if addresses else []
    for line in failed:
        print(line, file=sys.stderr)
    if addresses and not failed:
        print(f"{len(addresses)} alert(s) delivered")
    return UNDELIVERED if failed else DELIVERED


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


if __name__ == "__main__":
    sys.exit(main())
