"""The settings of a backup."""

from __future__ import annotations

from typing import Any

from chtbackup.base import contract
from chtbackup.base.errors import NoBackup


def read_settings(path: str) -> dict[str, Any]:
    """Read settings.json. Raises NoBackup naming the file and what is wrong in it."""
    try:
        return contract.read("backup", path)
    except contract.Wrong as error:
        raise NoBackup(str(error)) from None
