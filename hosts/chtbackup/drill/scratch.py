"""What a drill leaves on the machine while it runs: its scratch directory and containers."""

from __future__ import annotations

import os
import shutil
from typing import Any

from chtbackup.base.errors import Refused
from chtbackup.base.files import write_atomically
from chtbackup.docker import Docker

LABEL = "cht-backup.drill"
MARKER = ".made-by-cht-drill"


class Scratch:
    """The directory of a drill inside the configured one, which is never touched itself."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.parent: str = settings["scratch"]
        self.path = f"{self.parent}/cht-drill-{settings['deployment']}"
        self.copy = f"{os.path.realpath(self.parent)}/{os.path.basename(self.path)}/copy"

    def make(self) -> None:
        """Raises Refused where something else is in its place."""
        self.remove()
        if not os.path.isdir(os.path.dirname(self.parent)):
            raise Refused(f"the scratch directory {self.parent} doesn't exist: is its disk mounted?")
        try:
            os.makedirs(self.parent, mode=0o700, exist_ok=True)
            os.mkdir(self.path, 0o700)
            write_atomically(f"{self.path}/{MARKER}", "", 0o600)
        except OSError as error:
            raise Refused(f"the scratch directory {self.parent} can't be used: {error.strerror}") from error

    def there(self) -> bool:
        return os.path.lexists(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it. Raises Refused when it isn't a drill's."""
        if not self.there():
            return
        if os.path.islink(self.path) or not os.path.isdir(self.path):
            raise Refused(f"{self.path} isn't a directory that a drill made; remove it yourself")
        if not os.path.exists(f"{self.path}/{MARKER}"):
            try:
                os.rmdir(self.path)  # killed before it wrote its mark
                return
            except OSError:
                raise Refused(f"{self.path} has no mark of a drill ({MARKER}); remove it yourself") from None
        # The mark goes last, so that an interrupted removal is finished by the next.
        for entry in list(os.scandir(self.path)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name != MARKER:
                os.remove(entry.path)
        os.remove(f"{self.path}/{MARKER}")
        os.rmdir(self.path)


def own_containers(docker: Docker, deployment: str) -> list[str]:
    return docker.run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}={deployment}").split()
