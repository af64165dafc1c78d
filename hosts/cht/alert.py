#!/usr/bin/env python3
"""Tell that a backup failed: in the journal, and to every address in the file `alerts`.

Run by the unit `cht-backup-<deployment>-failed.service` after the backup's unit failed. The addresses are
apprise URLs and hold tokens or passwords: they are never printed, nor is what a library says about them.
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
        text = f"{kept} ({last.get('finished')}): " + "; ".join(problems[:5])
        if len(problems) > 5:
            text += f"; and {len(problems) - 5} more"
    else:
        text = (
            f"the unit ended with {unit.get('Result') or 'an unknown result'}"
            f" (exit status {unit.get('ExecMainStatus') or 'unknown'});"
            f" see: journalctl -u cht-backup-{deployment}"
        )
    if last is not None and last.get("lastSuccessAt") is None:
        text += ". No backup has succeeded so far."
    return title, text


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
        description="Say in the journal, and to the addresses in the file `alerts`, that a backup failed.",
        epilog="Exit codes: 0 said and delivered everywhere, 1 an address didn't take it, 2 wrong settings.",
    )
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup/DEPLOYMENT/settings.json")
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
        last = None
        try:
            with open(f"/var/lib/cht-backup/{deployment}/last-backup.json", encoding="utf-8") as file:
                last = json.load(file)
        except (OSError, ValueError):
            pass
        title, text = describe(
            deployment, platform.node(), last, unit_state(f"cht-backup-{deployment}.service")
        )
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


def unit_state(unit: str) -> dict[str, str]:
    command = ["systemctl", "show", unit, "--property=Result", "--property=ExecMainStatus"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


if __name__ == "__main__":
    sys.exit(main())
