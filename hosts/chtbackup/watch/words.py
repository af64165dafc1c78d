"""Figures and times as people read them, and words of machines as a page may show them. Pure."""

from __future__ import annotations

import html
import re
from typing import Any

from chtbackup.base.text import moment, plain
from chtbackup.watch.overview import number

UNKNOWN = "unknown"

# What the CHT and CouchDB name after a person: a database and an account for each user.
_PERSONAL = re.compile(r"(medic-user-|org\.couchdb\.user:)[^\s,;\"']+")
# Addresses for pings and alarms are secrets; so is what may be in one before an @.
_ADDRESS = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*)://\S+")


def shown(words: str) -> str:
    """Words of a machine as HTML: they do nothing in a browser, and name neither people nor addresses."""
    return html.escape(plain(_ADDRESS.sub(r"\1://…", _PERSONAL.sub(r"\1…", words))))


def age(seconds: float) -> str:
    """How long something took or is ago, in the one unit that matters: `3 days`."""
    seconds = max(seconds, 0)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def ago(at: Any, now: float) -> str:
    at = number(at)
    return "never" if at is None else f"{age(now - at)} ago"


def clock(at: Any) -> str:
    """A time to the minute, UTC: `2026-11-28 02:10`."""
    at = number(at)
    return UNKNOWN if at is None or not 0 <= at < 1e11 else moment(at)[:16].replace("T", " ")


def size(value: Any) -> str:
    """Bytes with three digits, in powers of 1000 as disks are sold: `12.3 GB`."""
    amount = number(value)
    if amount is None:
        return UNKNOWN
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(amount) < 999.5:
            return f"{amount:.0f} {unit}" if unit == "bytes" or abs(amount) >= 99.95 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def count(value: Any, one: str, many: str = "") -> str:
    """`1 file`, `2 files`."""
    amount = number(value)
    if amount is None:
        return f"{UNKNOWN} {many or one + 's'}"
    return f"{amount:,.0f} {one if amount == 1 else many or one + 's'}"
