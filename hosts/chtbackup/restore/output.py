"""What a restore says while it works."""

from __future__ import annotations

from chtbackup.base.text import MAX_LINES, complain, say
from chtbackup.manifest.verify import Verdict


class Output:
    """Tells the operator what is found, at once. A drill keeps it for its report, too."""

    def remark(self, text: str) -> None:
        """Worth knowing, not wrong."""
        say(f"note: {text}")

    def suspect(self, text: str) -> None:
        """Say what doesn't make the archive wrong, but must be looked into."""
        self.remark(text)

    def right(self, text: str) -> None:
        say(f"right: {text}")

    def wrong(self, text: str) -> None:
        complain(f"WRONG: {text}")

    def verdict(self, verdict: Verdict) -> None:
        for text in verdict.checked:
            self.right(text)
        for text in verdict.notes[:MAX_LINES]:
            self.remark(text)
        for text in verdict.problems:
            self.wrong(text)
