"""What a machine needs for a restore."""

from __future__ import annotations

import shutil
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.docker import Docker


def would_install_docker(request: dict[str, Any]) -> bool:
    """Whether this is a dry run of a restore that would have installed Docker."""
    return bool(request.get("dryRun") and request.get("installDocker")) and shutil.which("docker") is None


def require_docker(request: dict[str, Any]) -> None:
    """Raises Refused where Docker doesn't answer."""
    if (why := Docker().stopped) and not would_install_docker(request):
        raise Refused(
            f"Docker is needed for a CHT's volumes, and doesn't answer: {why}. Nothing was fetched. Add"
            " --install-docker, or install and start it yourself"
        )
