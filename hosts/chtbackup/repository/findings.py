"""What the audit says, and when it raises the alarm."""

from __future__ import annotations

from typing import Any

from chtbackup.base.text import moment
from chtbackup.repository.ledger import Finding

DAY = 86400
BLOCKS_PER_SECOND = 1 << 31  # as in guard.py
NAMED = 5
ALARM_AGAIN = 20 * 3600  # seconds


def wrong_counter(before: int, now: int, at: float) -> str | None:
    """What is wrong with the counter for encryption; None where nothing is. `before` is the highest seen."""
    if now < before:
        return "the counter for encryption went back: a client that trusted it would use counters twice"
    if now > int(at + 2 * DAY) * BLOCKS_PER_SECOND:
        return "the counter for encryption is near its end, at which no client can make a backup any more"
    return None


def alarm_due(findings: list[Finding], alarmed: dict[str, Any], now: float) -> bool:
    """Whether somebody must be told: of what is new at once, of the rest once a day. Whoever can make findings, as
    often as he likes, must not be able to hide one among a thousand mails. `alarmed` says what was told last, when."""
    kinds = {what for _at, what, _count, _transaction in findings}
    return bool(kinds) and (not kinds <= set(alarmed.get("kinds", [])) or now - alarmed.get("at", 0) > ALARM_AGAIN)


def told(findings: list[Finding]) -> list[str]:
    """Findings as lines for the operator: what, how often, since when."""
    groups: dict[str, list[tuple[int, int, int | None]]] = {}
    for at, what, count, transaction in findings:
        groups.setdefault(what, []).append((at, count, transaction))
    lines = []
    for what, of in groups.items():
        numbers = sorted({number for _at, _count, number in of if number is not None})
        where = f", in transaction {', '.join(map(str, numbers[:NAMED]))}" if numbers else ""
        more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
        total = sum(count for _at, count, _number in of)
        first, last = min(at for at, *_ in of), max(at for at, *_ in of)
        when = moment(first) if first == last else f"{moment(first)} to {moment(last)}"
        lines.append(f"{what} ({total} ×{where}{more}; {when})")
    return lines
