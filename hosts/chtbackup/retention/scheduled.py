"""Have the server remove the archives that its policy no longer keeps.

Run by `cht-retention-DEPLOYMENT.service` on the machine that drills: it has the passphrase, which the server hasn't,
knows what came of the last drill, and which archives drills have seen. Its key for this lets the server do it, and
nothing else. See `--help` for exit codes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import time
from typing import Any

from chtbackup.base import contract
from chtbackup.base.errors import Refused, Stopped
from chtbackup.base.process import end, stop_on_signals
from chtbackup.base.text import complain, megabytes, say
from chtbackup.drill.forget import forget
from chtbackup.drill.reports import Reports
from chtbackup.drill.settings import STATE, read_passphrase
from chtbackup.retention.report import remember

DONE, DOUBTED, IMPOSSIBLE = 0, 1, 2
LARGEST_ANSWER = 64 << 20


def request(settings: dict[str, Any], reports: Reports) -> dict[str, Any]:
    """What the server is told: the passphrase, the last drill, and which archives drills have seen."""
    latest = reports.latest() or {}
    return {
        "passphrase": read_passphrase(settings["deployment"]),
        "seen": reports.ledger().seen(settings["repository"]),
        "drill": {"succeeded": latest.get("lastSuccessAt"), "failed": latest.get("ok") is False},
        "now": time.time(),
    }


def ask(command: list[str], line: str) -> tuple[int, str]:
    """Start it on the server, keep its standard input open, and wait. Returns the exit code and what it prints."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # its exit code says more
                child.stdin.write(line + "\n")
                child.stdin.flush()
            printed = child.stdout.read(LARGEST_ANSWER)
            return child.wait(), printed
        except BaseException:
            end(child)
            raise


class Doubted(Exception):
    """The server has doubts, a line each, and has removed nothing."""


def run(settings: dict[str, Any], reports: Reports) -> dict[str, Any] | None:
    """What was removed and freed; None where every archive stays. Raises Doubted, or Refused: it isn't possible."""
    code, printed = ask(settings["command"], json.dumps(request(settings, reports)))
    if code not in (DONE, DOUBTED):
        raise Refused(f"the server didn't do it (exit code {code}); the lines above say why")
    try:
        result = json.loads(printed.splitlines()[-1])
        doubts, done, removed = result["doubts"], result["done"], result["removedBefore"]
    except (ValueError, IndexError, KeyError, TypeError, RecursionError):
        raise Refused("the server's answer isn't in order") from None
    # Each time: a run that was cut off after it had removed something must not make the next drill miss that.
    forget(reports.ledger().path, list(removed))
    if code == DOUBTED:
        raise Doubted([f"doubt ({name}): {why}" for name, why in doubts.items()])
    if done is None:
        say("every archive stays")
    else:
        say(f"{len(done['removed'])} archives removed, {megabytes(done['freed'])} freed on the server")
    return done


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Have the server remove the archives that the policy no longer keeps.",
        epilog="Exit codes: 0 done, or nothing to do; 1 there are doubts, and nothing was removed; 2 not possible, the"
        " reason is named; 70 the program itself is at fault.",
    )
    parser.add_argument("settings", metavar="SETTINGS", help="/etc/cht-backup/DEPLOYMENT/retention.json")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    stop_on_signals()
    started, done, code, problems = time.time(), None, IMPOSSIBLE, []
    try:
        settings = contract.read("scheduled-retention", options.settings)
    except contract.Wrong as error:
        complain(error)
        return IMPOSSIBLE
    state = f"{STATE}/{settings['deployment']}"
    try:
        done, code = run(settings, Reports(f"{state}/drills")), DONE
    except Doubted as error:
        code, problems = DOUBTED, error.args[0]
    except Stopped as error:
        problems = [f"stopped by {error}; the next run finishes what was begun"]
    except (Refused, OSError) as error:
        problems = [str(error)]
    for text in problems:
        complain(text)
    if code == DOUBTED:
        complain("nothing was removed. What to do: docs/retention.md")
    remember(state, started, problems, done)
    return code
