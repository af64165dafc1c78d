"""Words that others chose (names of files, what programs say, what an archive holds), made safe to show: they
must not steer the terminal, the journal or the mail in which an operator reads them.

`toolchain/plain.ts` is the same for the operator's computer; `test/plain.json` holds both to one table.
"""

from __future__ import annotations

import datetime
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

BUG = 70
"""Exit code of a program that is at fault itself (EX_SOFTWARE of sysexits.h). Python's own would be 1, which
means something else in most of them."""

# What moves the cursor, changes colours, turns the direction of writing, begins a line, or can't be seen.
# Tabs do no harm, and some languages and many emoji are written with the two joiners (U+200C, U+200D).
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def plain(text: str) -> str:
    """A text as one line that a terminal shows and does nothing else with: what would do more is escaped,
    visibly."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def plain_lines(text: str) -> str:
    """A text of several lines, each of them plain. They may end as Windows and ssh end them."""
    return "\n".join(plain(line.removesuffix("\r")) for line in text.split("\n"))


def plain_values(value: Any) -> Any:
    """A report's values, each text of them plain: who reads it may show it as it is."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [plain_values(of) for of in value]
    if isinstance(value, dict):
        return {plain(key): plain_values(of) for key, of in value.items()}
    return value


def say(text: object) -> None:
    """A line of what a program does."""
    print(plain(str(text)), flush=True)


def complain(text: object) -> None:
    """A line of what is wrong."""
    print(plain(str(text)), file=sys.stderr, flush=True)


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a program and end with its exit code; with `BUG` when it didn't get so far as to choose one."""
    try:
        code = main()
    except Exception:
        complain_of_bug()
        code = BUG
    sys.exit(code)


def complain_of_bug() -> None:
    """What a programmer needs to find the fault, and a line for everybody else."""
    complain("this is a fault of the program itself, not of what it looked at; please report these lines:")
    for line in traceback.format_exc().splitlines():
        complain(line)


def moment(time_: float) -> str:
    return datetime.datetime.fromtimestamp(time_, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def megabytes(size: float | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


MAX_LINES = 20
