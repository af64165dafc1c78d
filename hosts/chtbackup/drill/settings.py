"""A drill's settings, `drill.json`."""

from __future__ import annotations

import os
from typing import Any

from chtbackup.base import contract
from chtbackup.base.errors import Refused

STATE = "/var/lib/cht-backup"
SETTINGS = "/etc/cht-backup"


def read_settings(path: str) -> dict[str, Any]:
    """Read drill.json. Raises Refused naming the file and what is wrong in it."""
    try:
        settings = contract.read("drill", path)
    except contract.Wrong as error:
        raise Refused(str(error)) from None
    if settings["from"] != "server" and "bucket" not in settings:
        raise Refused(f"{path}: bucket must be what says where the bucket is, as from is {settings['from']}")
    if os.path.normpath(settings["scratch"]) != settings["scratch"]:
        raise Refused(f"{path}: scratch must be an absolute path, without . or .. in it")
    if f"{settings['scratch']}/".startswith(("/tmp/", "/var/tmp/")):
        # The unit has a /tmp of its own, which Docker doesn't see.
        raise Refused(f"{path}: scratch must not be below /tmp or /var/tmp")
    return settings


def read_passphrase(deployment: str) -> str:
    """The repository's passphrase on this machine. Raises Refused."""
    path = f"{SETTINGS}/{deployment}/passphrase"
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\n")
    except OSError as error:
        raise Refused(f"{path} can't be read ({error.strerror}): `pulumi up` makes it") from None


def source_of(wanted: str, latest: dict[str, Any] | None) -> str:
    """`server` or `bucket`: where a drill takes the repository from. `wanted` may also be `alternating`: then it is the
    one that the `latest` report (None: there is none) isn't about."""
    if wanted != "alternating":
        return wanted
    return "bucket" if (latest or {}).get("from", "server") == "server" else "server"


def project(settings: dict[str, Any]) -> str:
    """Name of the Compose project of a drill's containers."""
    return f"cht-drill-{settings['deployment']}"
