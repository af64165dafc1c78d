"""What a recovery kit's page knows, as the lines of its part A: typed, or scanned from the QR code.

One fact a line, its name before the first space. The last line, `check`, has two hexadecimal digits for each line
above, so that a mistyped letter is told with its line. What isn't there is asked for. `operations/recovery-kit.ts`
writes the lines.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TITLE = "cht-backup recovery kit 1"
FORMS = {
    "deployment": r"[a-z][a-z0-9-]{0,30}",
    "server": r"\S+ \d{1,5} \S+",
    "host-key": r"\S+ [A-Za-z0-9+/]+=*",
    "repository": r"/.*",
    "id": r"[0-9a-f]{64}",
    "earlier-id": r"[0-9a-f]{64}",
    "bucket": r"\S+ \S+ (path|auto) \S+ ?.*",
    "reader": r"\S+ .+",
    "passphrase": r".+",
}
"""Names of the lines, and what each must look like."""
MEANING = {
    "server": "ADDRESS PORT ACCOUNT",
    "host-key": "TYPE and BASE64, in one line",
    "repository": "the absolute path of a directory",
    "id": "64 hexadecimal digits",
    "earlier-id": "64 hexadecimal digits",
    "bucket": "NAME REGION path|auto ENDPOINT|AWS PREFIX",
    "reader": "ACCESS-KEY-ID SECRET",
}


class Mistyped(Exception):
    """The lines aren't those of a page. The text says what is wrong, and where."""


@dataclass
class Paper:
    """The lines of a page by their names, without the secrets that nobody has typed yet."""

    facts: dict[str, str] = field(default_factory=dict)
    earlier: list[str] = field(default_factory=list)
    """Ids of repositories that were in the same place before."""

    def of(self, name: str, ask: Callable[[str], str]) -> str:
        """A fact; `ask` gets its name where the lines don't have it. Raises Mistyped for what can't be right."""
        if name not in self.facts:
            self.facts[name] = checked(name, ask(name), f"the line `{name}`")
        return self.facts[name]

    def bucket(self, ask: Callable[[str], str], copy_as_of: str | None) -> dict[str, Any]:
        """What `fetch` reads of a bucket. Raises Mistyped."""
        name, region, style, endpoint, *prefix = self.of("bucket", ask).split(" ", 4)
        key, secret = self.of("reader", ask).split(" ", 1)
        return {
            "bucket": name,
            "region": region,
            "pathStyle": style == "path",
            "endpoint": None if endpoint == "AWS" else endpoint,
            "prefix": "".join(prefix),
            "accessKeyId": key,
            "secretAccessKey": secret,
            "asOf": copy_as_of,
            "repositories": [self.of("id", ask), *self.earlier],
        }


def checked(name: str, value: str, where: str) -> str:
    """Raises Mistyped, without the value: it may be a secret."""
    if not re.fullmatch(FORMS[name], value):
        raise Mistyped(f"{where} can't be right; it must be {MEANING.get(name, 'as on the page')}")
    return value


def check_of(lines: list[str]) -> str:
    """The `check` of lines: two hexadecimal digits for each."""
    return " ".join(hashlib.sha256(line.encode()).hexdigest()[:2] for line in lines)


def read(text: str) -> Paper:
    """The page's lines. Empty ones don't count, nor do spaces at the end of others than the passphrase's. Raises
    Mistyped."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    lines = [line if line.startswith("passphrase ") else line.strip() for line in lines if line.strip()]
    paper, taken, check = Paper(), [], None
    for number, line in enumerate(lines, 1):
        name, _, value = line.partition(" ")
        where = f"line {number} (`{name[:20]}`)"
        if check is not None:
            raise Mistyped(f"{where} comes after `check`, which is the page's last line")
        if name == "check":
            check = value.lower().split()
            continue
        taken.append(line)
        if line == TITLE:
            continue
        if name not in FORMS:
            raise Mistyped(f"{where} begins as no line of the page does; known are {', '.join(FORMS)} and check")
        if name == "earlier-id":
            paper.earlier.append(checked(name, value, where))
        elif name in paper.facts:
            raise Mistyped(f"{where} is there twice")
        else:
            paper.facts[name] = checked(name, value, where)
    if check is not None:
        compare(check, taken)
    return paper


def compare(check: list[str], lines: list[str]) -> None:
    """Raises Mistyped, naming the first line in which a letter is wrong."""
    actual = check_of(lines).split()
    for number, (wanted, line) in enumerate(zip(check, lines), 1):
        if wanted != actual[number - 1]:
            raise Mistyped(
                f"line {number} (`{line.split(' ')[0]}`) isn't what the page has: a letter is wrong, a line is missing"
                " before it, or the check is mistyped"
            )
    if len(check) != len(lines):
        raise Mistyped(f"these are {len(lines)} lines, the check is of {len(check)}: are all lines of part A there?")
