"""The way to the bucket: credentials, and what keeps them from arriving."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from typing import Any

from chtbackup.bucket.client import Bucket
from chtbackup.bucket.credentials import read_credentials
from chtbackup.bucket.plan import NoCopy

STAND_IN = b"none"  # SetCredential= of the units


def credentials_path(settings: dict[str, Any]) -> str | None:
    """The file with the access key: systemd's copy of it where the unit has one (LoadCredential=). None: the machine's
    role is what counts."""
    if settings["credentials"] is None:
        return None
    given = os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), "bucket")
    if os.path.isabs(given) and os.path.exists(given):
        with open(given, "rb") as file:
            if file.read(len(STAND_IN) + 1) == STAND_IN:
                raise NoCopy(not_handed_over(settings))
        return given
    # systemd's own variable: a unit that was told of no credential can't read the file, which is root's.
    if "INVOCATION_ID" in os.environ and not os.access(settings["credentials"], os.R_OK):
        raise NoCopy(not_handed_over(settings))
    return settings["credentials"]


def not_handed_over(settings: dict[str, Any]) -> str:
    """Why the unit has no key, in one line."""
    words = f"systemd didn't hand the bucket's key ({settings['credentials']}) to this unit"
    if not os.path.exists(settings["credentials"]):
        return f"{words}: the file is missing; `npm run pulumi -- up` writes it"
    units = [f"cht-bucket-{what}-{settings['deployment']}.service" for what in ("copy", "check")]
    found = [path for path in drop_ins(units) if clears_credentials(path)]
    if not found:
        return f"{words}: `systemctl cat {units[0]}` must show LoadCredential=bucket:{settings['credentials']}"
    return (
        f"{words}: LoadCredential= is taken away again in {', '.join(found)} (LXC puts such a file into its"
        " containers). Take that line out, then: systemctl daemon-reload"
    )


def drop_ins(units: list[str]) -> list[str]:
    """What systemd reads after the units' own files; where it doesn't say so, what lies in its directories."""
    command = ["systemctl", "show", *units, "--property=DropInPaths", "--value"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        said = []
    names = ["service", *units]
    folders = [f"{root}/systemd/system/{of}.d" for root in ("/etc", "/run", "/usr/lib") for of in names]
    return sorted(set(said)) or [path for folder in folders for path in sorted(glob.glob(f"{folder}/*.conf"))]


def clears_credentials(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(re.fullmatch(r"LoadCredential\s*=\s*", line.strip()) for line in file)
    except OSError:
        return False


def connect(settings: dict[str, Any]) -> Bucket:
    path = credentials_path(settings)
    return Bucket(settings, read_credentials(path) if path else {})
