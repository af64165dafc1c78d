#!/usr/bin/env python3
"""Tell that a backup, a restore drill, the copy to the bucket, or the sealing or the audit of the repository
failed: in the journal, and to every address in the file `alerts`.

Run by the units `cht-backup-<deployment>-failed.service`, `cht-drill-<deployment>-failed.service`,
`cht-bucket-failed-<deployment>.service` and `cht-repository-failed-<deployment>.service` after another unit
failed; and by `cht-alert-later-<deployment>.service` and `cht-repository-alert-later-<deployment>.service`
while an alarm hasn't reached everybody. The addresses are apprise URLs and hold tokens or passwords: they are
never printed, nor is what a library says about them.

It runs in no environment, so that what takes away the programs that it watches doesn't silence it: the
system's own Python takes apprise from any of the environments on the machine. All that apprise needs is plain
Python, which works with a newer Python than the one that it was installed for.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import logging
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from alert_queue import Queue, moment, send_until_empty
from plain import BUG, complain, exit_with, plain, say

DELIVERED, UNDELIVERED, WRONG = 0, 1, 2
SILENCE, LIMIT = 30, 120  # seconds that a server may say nothing, and that one message may take
CRITICAL = "<2>"  # systemd takes such a prefix for the line's priority, see sd-daemon(3)


def describe(
    deployment: str, host: str, last: dict[str, Any] | None, unit: dict[str, str], booted: float = 0
) -> tuple[str, str]:
    """Title and text of the message, from last-backup.json and from what systemd knows about the unit.
    `booted` is when the machine was started, in seconds since 1970.

    The JSON is only believed when it is about a run that failed, and was written since the unit began: a
    unit that was killed, or whose script could not start, leaves the one of the run before.
    """
    started = int(unit.get("ExecMainStartTimestampMonotonic") or 0)
    began = booted + started / 1e6 if started else 0  # systemd may have failed to say
    title = f"CHT backup {deployment} failed on {host}"
    problems = (last or {}).get("problems") or []
    # Result is "exit-code" when the script itself said so, else what ended it ("timeout", "signal", …).
    if (
        last is not None
        and not last.get("ok")
        and unit.get("Result", "exit-code") == "exit-code"
        and problems
        # The clock may have been set a little meanwhile.
        and last.get("finishedAt", 0) >= began - 5
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
    status = unit.get("ExecMainStatus") or "unknown"
    meaning = ", a fault of the program itself" if status == str(BUG) else ""
    return (
        f"the unit ended with {unit.get('Result') or 'an unknown result'}"
        f" (exit status {status}{meaning}); see: journalctl -u {name}"
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


def describe_repository(
    deployment: str,
    host: str,
    report: dict[str, Any] | None,
    units: dict[str, dict[str, str]],
    booted: float,
) -> tuple[str, str]:
    """Title and text of the message about the repository on the server, from the audit's latest report and
    from what systemd knows about the units that seal and audit, as for a drill."""
    audit = f"cht-repository-audit-{deployment}.service"
    unit, began = failed_last(units, booted, audit)
    problems = (report or {}).get("problems") or []
    if unit == audit and report is not None and problems and report["finishedAt"] >= began - 5:
        return f"CHT backup {deployment}: somebody must look at the repository on {host}", some(problems)
    what = "audited" if unit == audit else "sealed"
    title = f"CHT backup {deployment}: the repository on {host} can't be {what}"
    return title, ended(units.get(unit, {}), unit.removesuffix(".service"))


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


def packages(here: str = os.path.dirname(os.path.abspath(__file__))) -> list[str]:
    """Where pip has installed packages, for whichever Python: beside this program first."""
    beside = [f"{here}/venv", f"{os.path.dirname(here)}/venv", "/opt/cht-backup*/*/*venv"]
    found = [path for of in beside for path in sorted(glob.glob(f"{of}/lib/python3*/site-packages"))]
    return list(dict.fromkeys(found))


def load_apprise(places: list[str]) -> Any:
    """apprise from the first of the places that has one which works, else the system's own."""
    for place in places:
        known = set(sys.modules)
        sys.path.insert(0, place)
        try:
            import apprise

            return apprise
        except Exception:  # an environment may be half made
            sys.path.remove(place)
            for name in set(sys.modules) - known:
                del sys.modules[name]
    import apprise

    return apprise


def join(text: str, hint: str) -> str:
    return f"{text.removesuffix('.')}. {hint}" if hint else text


def outdated(venv: str) -> str:
    """What to know of an environment that was made for another Python than the system has now, or nothing."""
    made_for = [os.path.basename(path) for path in glob.glob(f"{venv}/lib/python3*")]
    now = f"python3.{sys.version_info.minor}"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = [f"{venv}/bin/python3", "-I", "--version"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
        now = "python" + ".".join(said.removeprefix("Python ").split(".")[:2])
    if not made_for or now in made_for:
        return ""
    return (
        f"The packages in {venv} are for {made_for[0]}, and the system has {now} now:"
        " `npm run pulumi -- up` installs them anew."
    )


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """End what waits for longer, with a TimeoutError."""

    def end(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def deliver(address: str, title: str, text: str) -> str:
    """Send the message to an address. Returns why it didn't take it, or nothing.

    It quotes the words of whatever failed: so it is a text, never HTML or Markdown, and the title, which
    becomes a header of a mail, is one line.
    """
    # apprise logs addresses, and requests logs hosts and paths with tokens.
    logging.disable(logging.CRITICAL)
    socket.setdefaulttimeout(SILENCE)
    try:
        apprise = load_apprise(packages())  # here, so that the journal's line doesn't depend on it
    except Exception:
        return "was not delivered: no apprise on this machine works; `npm run pulumi -- up` installs it"
    sender = apprise.Apprise()
    try:
        if not sender.add(address):
            return "is no address that apprise knows"
        with limited(LIMIT):
            sent = sender.notify(
                title=plain(title),
                body=plain(text),
                notify_type=apprise.NotifyType.FAILURE,
                body_format=apprise.NotifyFormat.TEXT,
            )
    except Exception:  # its text may hold the address
        sent = False
    return "" if sent else "was not delivered"


def say_what_came_of_it(addresses: list[str], refused: dict[str, str]) -> None:
    for number, address in enumerate(addresses, 1):
        if address in refused:
            complain(f"alert {number} of {len(addresses)} ({kind(address)}) {refused[address]}")
    if not refused:
        say(f"{len(addresses)} alert(s) delivered")


def send_kept(queue: Queue, addresses: list[str]) -> bool:
    """Try to send all that is kept, and say what came of it. Returns whether nothing is left."""
    with queue.alone():
        if queue.empty():
            return True
        refused, given_up = queue.send(addresses, deliver, time.time())
    say_what_came_of_it(addresses, refused)
    if given_up:
        complain(f"{priority()}{given_up} alert(s) couldn't be delivered for days, and are given up")
    return queue.empty()


def raise_alarm(queue: Queue | None, addresses: list[str], title: str, text: str) -> int:
    """Keep the message, and try to send it. One that can't be kept, on a full disk, is sent all the same."""
    if not addresses:
        return DELIVERED
    if queue is not None:
        try:
            queue.keep(title, text, time.time())
            return DELIVERED if send_kept(queue, addresses) else UNDELIVERED
        except OSError as error:
            complain(f"the alert can't be kept in {queue.directory}: {error.strerror}")
    refused = {address: why for address in addresses if (why := deliver(address, title, text))}
    say_what_came_of_it(addresses, refused)
    return UNDELIVERED if refused else DELIVERED


def priority() -> str:
    return CRITICAL if os.environ.get("JOURNAL_STREAM") else ""


def keep_trying(
    queue: Queue, read: Callable[[], list[str]], sleep: Callable[[float], None] = time.sleep
) -> None:
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


def unreadable(error: OSError) -> str:
    return f"the file of alert addresses can't be read: {error.strerror}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="alert.py",
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
        "--about", choices=("backup", "drill", "bucket", "repository"), default="backup", help="what failed"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--test", action="store_true", help="send a test message instead")
    instead.add_argument(
        "--later", action="store_true", help="send what is kept instead, until nothing is left"
    )
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
        return WRONG
    if options.test:
        title, text = f"CHT backup {deployment}: test", f"Alerts from {platform.node()} arrive here."
        queue = None
    else:
        title, text = what_happened(options.about, deployment)
        say(f"{priority()}{title}: {text}")
    try:
        addresses = read()
    except OSError as error:
        complain(unreadable(error))
        return WRONG
    if options.test and not addresses:
        complain("there is nobody to send a test to: cht-backup:alerts names no address")
        return WRONG
    return raise_alarm(queue, addresses, title, text)


def what_happened(about: str, deployment: str) -> tuple[str, str]:
    """Title and text of the message, from what lies on this machine."""
    host, state = platform.node(), f"/var/lib/cht-backup/{deployment}"
    booted = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    if about == "backup":
        last = read_report(f"{state}/last-backup.json")
        unit = unit_state(f"cht-backup-{deployment}.service")
        title, text = describe(deployment, host, last, unit, booted)
        return title, join(text, outdated(f"/opt/cht-backup/{deployment}/venv"))
    names = {
        "drill": [f"cht-drill-{deployment}{part}.service" for part in ("", "-cleanup", "-overdue")],
        "bucket": [f"cht-bucket-{part}-{deployment}.service" for part in ("copy", "check")],
        "repository": [f"cht-repository-{part}-{deployment}.service" for part in ("seal", "audit")],
    }[about]
    units = {name: unit_state(name) for name in names}
    if about == "drill":
        latest, seen = (read_report(f"{state}/drills/{of}.json") for of in ("latest", "overdue"))
        title, text = describe_drill(deployment, host, latest, units, booted, seen)
        return title, join(text, outdated(f"/opt/cht-backup/{deployment}/venv"))
    if about == "repository":
        report = read_report(f"/var/lib/cht-backup-server/{deployment}/last-audit.json")
        return describe_repository(deployment, host, report, units, booted)
    state = f"/var/lib/cht-backup-bucket/{deployment}"
    reports = {what: read_report(f"{state}/last-{what}.json") for what in ("copy", "check")}
    title, text = describe_bucket(deployment, host, reports, units, booted)
    return title, join(text, outdated(f"/opt/cht-backup-bucket/{deployment}/venv"))


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
    exit_with(main)
