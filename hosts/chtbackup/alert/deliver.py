"""Send a message to an address, with apprise from any environment that works."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from chtbackup.base.programs import PACKAGE
from chtbackup.base.text import plain

SILENCE, LIMIT = 30, 120  # seconds that a server may say nothing, and that one message may take


def kind(address: str) -> str:
    """What may be said of an address: its scheme, such as `mailtos`."""
    scheme = urlsplit(address).scheme
    return scheme if re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else "unknown kind"


def packages(here: str = os.path.dirname(PACKAGE)) -> list[str]:
    """Where pip has installed packages, for whichever Python: beside this package first."""
    beside = [f"{here}/venv", "/opt/cht-backup*/*/*venv"]
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


def deliver(address: str, title: str, text: str, good: bool = False) -> str:
    """Send the message to an address, as one about a failure unless it is `good`: many services colour it, or call
    somebody out, by that. Returns why the address didn't take it, or nothing.

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
    # Its own limit of 4 s would have a slow service told again of what it has taken. The system's may have none.
    with contextlib.suppress(AttributeError):
        apprise.URLBase.socket_connect_timeout = apprise.URLBase.socket_read_timeout = SILENCE
    sender = apprise.Apprise()
    try:
        if not sender.add(address):
            return "is no address that apprise knows"
        with limited(LIMIT):
            sent = sender.notify(
                title=plain(title),
                body=plain(text),
                notify_type=apprise.NotifyType.SUCCESS if good else apprise.NotifyType.FAILURE,
                body_format=apprise.NotifyFormat.TEXT,
            )
    except Exception:  # its text may hold the address
        sent = False
    return "" if sent else "was not delivered"
