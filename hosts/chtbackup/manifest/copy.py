"""Where the parts of an archive are in a copy of it."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass
class Copy:
    """Where a copy's parts are. A path of the archive is found at the base of the longest root above it,
    followed by the whole path; `bases` has the root "" for what no other root holds."""

    bases: dict[str, str]

    def at(self, path: str) -> str:
        roots = (root for root in self.bases if path == root or path.startswith(f"{root}/"))
        return self.bases[max(roots, key=len)] + path

    def plain(self, text: str) -> str:
        """A message about the copy with the paths of the archive in it."""
        for base in sorted(self.bases.values(), key=len, reverse=True):
            if base:
                text = text.replace(base, "")
        return text

    def paths(self, places: list[str]) -> list[str]:
        """Every path in the copy below `places`, those included, as in the archive."""
        found: list[str] = []

        def visit(path: str) -> None:
            found.append(path)
            actual = self.at(path)
            if os.path.isdir(actual) and not os.path.islink(actual):
                for name in sorted(os.listdir(actual)):
                    visit(f"{path}/{name}")

        for place in places:
            if os.path.lexists(self.at(place)):
                visit(place)
        return found
