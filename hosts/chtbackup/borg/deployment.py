"""The repository of a deployment as its CHT machine reaches it, by the settings that `pulumi up` laid down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chtbackup.base.errors import NoBackup
from chtbackup.borg import start


@dataclass
class Repository:
    """Where it is, and with what borg opens it."""

    location: str
    """Has the alias `offsite` of ssh_config for the server, which may move without borg taking it for another one."""
    passphrase_file: str
    ssh_config: str
    base_directory: str
    """borg's own files: cache, security directory."""
    lock_wait: int
    """Seconds to wait while a copy or a drill holds the repository."""

    def environment(self) -> dict[str, str]:
        """borg's environment, but for the passphrase."""
        return {**start.environment(self.base_directory, self.ssh_config), "BORG_REPO": self.location}

    def passphrase(self) -> str:
        """Raises NoBackup."""
        try:
            with open(self.passphrase_file, encoding="utf-8") as file:
                return file.read().rstrip("\n")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise NoBackup(f"the passphrase in {self.passphrase_file} can't be read: {why}") from error


def repository_of(settings: dict[str, Any]) -> Repository:
    """The repository by a deployment's settings.json."""
    deployment = settings["deployment"]
    return Repository(
        settings["repository"],
        f"/etc/cht-backup/{deployment}/passphrase",
        f"/etc/cht-backup/{deployment}/ssh_config",
        f"/var/lib/cht-backup/{deployment}/borg",
        settings["lockWait"],
    )
