"""What a drill finds: it is said at once, and kept for the report."""

from __future__ import annotations

from typing import Any

from chtbackup.drill.reports import Reports
from chtbackup.restore.output import Output
from chtbackup.restore.secrets import scrub


class Findings(Output):
    def __init__(self, report: dict[str, Any], reports: Reports, secrets: list[str]) -> None:
        self.report = report
        self.reports = reports
        self.secrets = secrets
        """What must be in no text of a problem."""

    def remark(self, text: str) -> None:
        self.report["notes"].append(text)
        super().remark(text)

    def suspect(self, text: str) -> None:
        """Nobody watches a drill, so what must be looked into makes it fail."""
        self.wrong(text)

    def right(self, text: str) -> None:
        self.report["checked"].append(text)
        super().right(text)

    def wrong(self, text: str) -> None:
        text = scrub(text, self.secrets)
        self.report["problems"].append(text)
        super().wrong(text)

    def stage(self, text: str) -> None:
        """Note how far the drill has come."""
        self.report["stage"] = text
        self.reports.mark(self.report)
