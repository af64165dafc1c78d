"""What takes a network or a while to find out, once a run and each with a limit: whether the server answers as the one
that it is and lets this machine in, until when the CHT's certificate holds, when a machine that drills came last."""

from __future__ import annotations

import calendar
import os
import re
import socket
import ssl
import subprocess
import time
from typing import Any

DAY = 86400
LIMIT = 10  # seconds
AWAY = 20  # seconds after which sshd lets somebody try again, see `greeting`
SSH_FAILED = 255  # where it is ssh that fails, and not what runs there; ssh(1)
CHT = ("127.0.0.1", 443)


def server(place: dict[str, Any], now: float) -> dict[str, Any]:
    """Whether the server answers on its SSH port, with its own host key, and lets this machine in.

    `answers` and `reason` say whether something speaks SSH there; `known` whether its key is the pinned one and
    `accepts` whether it takes this machine's key, None where that can't be said.
    """
    address, port = place["address"], place["port"]
    found: dict[str, Any] = {"at": round(now), "address": f"{address}:{port}", "answers": True, "reason": ""}
    found |= {"known": None, "accepts": None}
    try:
        banner = greeting(address, port)
    except OSError as error:
        return {**found, "answers": False, "reason": error.strerror or str(error) or type(error).__name__}
    if not banner.startswith(b"SSH-"):
        return {**found, "answers": False, "reason": "what answers there isn't SSH"}
    known = is_known(place)
    return {**found, "known": known, "accepts": accepts(place) if known else None}


def greeting(address: str, port: int) -> bytes:
    """What a server says first. Raises OSError.

    OpenSSH from 9.8 on keeps an address away for a while whose login failed (PerSourcePenalties in sshd_config(5): 15
    seconds at least), and says so instead of its version. Whoever is refused each hour would be called unreachable.
    """
    for wait in (AWAY, 0):
        with socket.create_connection((address, port), LIMIT) as there:
            there.settimeout(LIMIT)
            said = there.recv(255)
        if not said.startswith(b"Not allowed at this time"):
            break
        time.sleep(wait)
    return said


def is_known(place: dict[str, Any]) -> bool | None:
    """Whether the server shows the host key that is pinned on this machine; None where neither can be read."""
    try:
        with open(place["knownHosts"], encoding="utf-8") as file:
            pinned = {tuple(line.split()[1:3]) for line in file if line.strip()}
        kinds = ",".join(sorted(kind.replace("ssh-", "").replace("-nistp256", "") for kind, _key in pinned))
        command = ["ssh-keyscan", "-T", str(LIMIT), "-t", kinds, "-p", str(place["port"]), "--", place["address"]]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT, check=False).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    keys = {tuple(line.split()[1:3]) for line in shown.splitlines() if line and not line.startswith("#")}
    return bool(keys & pinned) if keys and pinned else None


def accepts(place: dict[str, Any]) -> bool | None:
    """Whether the server takes this machine's key: it logs in with the configuration beside the pinned key, as a backup
    does, and says nothing. None where that can't be said."""
    config = os.path.join(os.path.dirname(place["knownHosts"]), "ssh_config")
    # LogLevel: what a banner or the distribution's configuration adds isn't looked for.
    command = ["ssh", "-F", config, "-o", f"ConnectTimeout={LIMIT}", "-o", "LogLevel=ERROR", "-T", "offsite"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True, errors="replace", timeout=2 * LIMIT, check=False)  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode != SSH_FAILED:
        return True
    # ssh(1) has one exit code for all that fails, and the server's other reasons aren't about the key.
    return False if "Permission denied (" in done.stderr else None


def certificate_ends(place: tuple[str, int] = CHT) -> int | None:
    """Until when the certificate that a web server shows holds, in seconds since 1970; None where none is shown."""
    context = ssl.create_default_context()
    # Whose it is doesn't matter here, and one that has ended is shown, too.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(place, LIMIT) as connection:
            with context.wrap_socket(connection) as there:
                shown = there.getpeercert(binary_form=True) or b""
        command = ["openssl", "x509", "-inform", "DER", "-noout", "-enddate"]
        said = subprocess.run(command, input=shown, capture_output=True, timeout=LIMIT, check=True).stdout.decode()
        return calendar.timegm(time.strptime(said.strip(), "notAfter=%b %d %H:%M:%S %Y GMT"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def last_login(fingerprints: list[str], now: float) -> int | None:
    """When somebody logged in here with one of these keys last, in seconds since 1970; None where sshd has noted none
    in the last two days. Its message has been `Accepted publickey for USER from …: TYPE FINGERPRINT` for ten years
    (OpenSSH's auth.c), at the log level that it has unless told otherwise."""
    if not fingerprints:
        return None
    keys = "|".join(map(re.escape, fingerprints))
    # From OpenSSH 9.8 on, a session has a program of its own.
    who = ["SYSLOG_IDENTIFIER=sshd", "SYSLOG_IDENTIFIER=sshd-session"]
    command = ["journalctl", "--quiet", "--no-pager", "--output=short-unix", "--lines=1", *who]
    command += [f"--since=@{now - 2 * DAY:.0f}", f"--grep=^Accepted publickey for .* ({keys})$"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False).stdout
        return round(float(said.split()[0]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def look(settings: dict[str, Any], before: dict[str, Any], now: float) -> dict[str, Any]:
    """All of it, as `facts.py` takes it from the memory. `before` is what was found the last time: the journal may have
    forgotten a login since."""
    found: dict[str, Any] = {}
    if settings["drillLogin"] is not None:
        found["drillSeenAt"] = last_login(settings["drillLogin"]["fingerprints"], now) or before.get("drillSeenAt")
    if settings["server"] is not None:
        found["server"] = server(settings["server"], now)
    if settings["certificate"]:
        found["certificateEnds"] = certificate_ends()
    return found
