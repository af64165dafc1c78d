"""What can be wrong with a repository or an archive."""

from __future__ import annotations

from chtbackup.base.errors import Refused


class Damaged(Refused):
    """What the repository holds isn't what was stored."""


class Hostile(Refused):
    """Somebody has made an archive that does harm, or changes it under our hands."""


class TooMuch(Hostile):
    """More than any archive holds that a backup of this program makes."""


class Empty(Refused):
    """The repository holds nothing that can be restored."""
