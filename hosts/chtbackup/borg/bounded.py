"""What borg prints of an archive, read with an end: the archive may be of somebody who means harm."""

from __future__ import annotations

import json
from typing import IO, Any

from chtbackup.base.text import megabytes
from chtbackup.borg.errors import TooMuch

# What borg may say of an archive, as a few bytes of it can become any number here. A CHT of 100,000 files makes a list
# of 30 MB, manifests of as much, and has 200,000 objects in them.
MOST_ITEMS = 500_000
LONGEST_LINE = 64 * 1024
LONGEST_LIST = 256 * 1024**2
MOST_OBJECTS = 2_000_000


def whole(stream: IO[str], most: int = LONGEST_LIST) -> str:
    """All that a stream holds. Raises TooMuch where it is more than so many characters."""
    text = stream.read(most + 1)
    if len(text) > most:
        raise TooMuch(f"more than {megabytes(most)}, which no backup of this program makes")
    return text


def entries(stream: IO[str]) -> list[dict[str, Any]]:
    """The items of borg's list of an archive, one JSON object a line. Raises TooMuch where there are too many."""
    found: list[dict[str, Any]] = []
    size = 0
    while (line := stream.readline(LONGEST_LINE)).endswith("\n"):
        size += len(line)
        if len(found) == MOST_ITEMS or size > LONGEST_LIST:
            raise TooMuch(f"more than {len(found):,} files")
        of = json.loads(line)
        found.append({name: of.get(name) for name in ("type", "path", "size", "isomtime", "linktarget")})
    if len(line) == LONGEST_LINE:
        raise TooMuch("a path that is longer than any on a disk")
    return found  # what is left is of a borg that was cut off; its exit code says so


def parts(text: str) -> dict[str, Any]:
    """A manifest's parts by their names. Raises TooMuch, or ValueError where it isn't one."""
    if text.count("{") + text.count("[") > MOST_OBJECTS:
        raise TooMuch(f"more than {MOST_OBJECTS:,} objects")
    found: dict[str, Any] = {}
    try:
        while text := text.lstrip():
            part, end = json.JSONDecoder().raw_decode(text)
            found[part["part"]] = part
            text = text[end:]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("it isn't JSON with a part's name") from None
    return found
