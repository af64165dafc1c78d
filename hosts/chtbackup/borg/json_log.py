"""What borg says on its standard error with `--log-json`: one JSON object a line, beside lines of other programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# The line of a traceback that names the exception, with or without its module.
_EXCEPTION = re.compile(r"(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:: |$)")
_FRAME = re.compile(r'\s*File "(?:.*/)?borg/([^"]+)"')
# What borg writes about the machine below a traceback, its own and that of the server.
_MACHINE = re.compile(r"(?:Borg server: )?(?:Platform|Linux|Borg|PID|CWD|sys\.argv|SSH_ORIGINAL_COMMAND): ")


@dataclass(frozen=True)
class Message:
    """One line for an operator, and what a program can tell it by."""

    text: str
    id: str = ""
    """borg's name for it (`msgid`), such as `LockTimeout` or `Repository.DoesNotExist`; empty where it gives none, as
    for the warnings of borg 1.2, for the words of ssh and for tracebacks."""
    frames: tuple[str, ...] = ()
    """Of a traceback, borg's own source files, the innermost last."""

    @property
    def kind(self) -> str:
        """The id without the class around it: the server's side gives some without."""
        return self.id.rpartition(".")[2]


def read(line: str) -> list[Message]:
    """What a line says that is worth more than information."""
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return [Message(line.strip())] if line.strip() else []
    if said.get("type") != "log_message" or said.get("levelname") in ("INFO", "DEBUG"):
        return []
    return of_log(str(said.get("message", "")), str(said.get("msgid") or ""))


def of_log(text: str, id_: str = "") -> list[Message]:
    """What a log message of borg says: of a traceback, the line that names the exception."""
    lines = [line for line in text.splitlines() if line.strip() and not _MACHINE.match(line)]
    # It announces a traceback, which says all that it does.
    if id_ == "Exception" and lines == ["Local Exception"]:
        return []
    if not any("Traceback (most recent call last)" in line for line in lines):
        return [Message(line.strip(), id_) for line in lines]
    frames = tuple(found[1] for found in map(_FRAME.match, lines) if found)
    named = [line for line in lines if _EXCEPTION.match(line)]
    return [Message((named or lines)[-1].strip(), id_, frames)]


def read_all(text: str) -> list[Message]:
    """What all lines say, each once."""
    return list(dict.fromkeys(message for line in text.splitlines() for message in read(line)))


def texts(messages: Iterable[Message]) -> list[str]:
    return [message.text for message in messages]


def done_so_far(line: str) -> int | None:
    """Bytes that an extraction has done, where the line tells."""
    try:
        said: Any = json.loads(line)
    except ValueError:
        return None
    if isinstance(said, dict) and said.get("type") == "progress_percent" and said.get("msgid") == "extract":
        return int(said["current"]) if said.get("current") is not None else None
    return None
