"""What a condition is: something that somebody should hear of, as alarms, metrics, status and the runbook have it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

WARNING, CRITICAL = "warning", "critical"
CHT, SERVER, DRILL = "cht", "server", "drill"
"""The machines by what they do for a deployment: run the CHT, keep the backups, restore them where the CHT isn't."""
OPERATOR = "operator"
"""The computer from which `npm run status` asks them."""

BY_WATCH, BY_UNIT, BY_UNIT_DAILY = "watch", "unit", "unit, daily"
"""Who tells first. A unit that fails raises its own alarm at once; then the watch only reminds and gives the
all-clear. Where that unit fails once a day as long as the condition lasts, it reminds, too."""


@dataclass(frozen=True)
class Condition:
    """One thing that can be wrong."""

    id: str
    """Its name in reports, metrics, alert rules, and its anchor in docs/runbook.md."""
    severity: str
    """`critical`: data is at risk now; `warning`: it will be, when nobody looks."""
    title: str
    """What is wrong, as the subject of a mail has it."""
    text: str
    """What is wrong here, with the figures that `judge` puts in (`{days}`), as a sentence."""
    todo: str
    """What to do, in words for somebody who reads them on a phone."""
    meaning: str
    """How it is seen and why it matters, for the runbook."""
    seen: tuple[str, ...] = (CHT,)
    """From which machines: `cht`, `server`, `drill`; `operator`: from the computer that asks them, and only `npm run
    status` tells it. Empty: only from outside, by who collects the metrics."""
    commands: tuple[str, ...] = ()
    """What to type, for the runbook. DEPLOYMENT and STACK stand for the names."""
    hidden_by: tuple[str, ...] = ()
    """Conditions of the same machine from which this one follows: while one of them holds, it is told alone."""
    told_by: str = BY_WATCH
    patient: bool = False
    """Whether it must hold for a while (`graceMinutes`) before it counts: a reboot isn't worth a message."""

    @property
    def link(self) -> str:
        return f"docs/runbook.md#{self.id}"


def described(conditions: tuple[Condition, ...]) -> list[dict[str, Any]]:
    """The conditions as JSON: what alert rules, dashboard and runbook are made of (`chtbackup watch catalogue`)."""
    return [{**asdict(of), "link": of.link} for of in conditions]
