"""Read a Compose `.env` file where Compose itself isn't there to be asked (see `files.py`).

Held to what Docker Compose makes of each form by `test/fixtures/env-forms.json`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# What Go's unicode.IsSpace takes for white space. (Python's own list has more: U+001C to U+001F.)
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NO_STATEMENT = re.compile(rf"(?:[{_SPACE}]|#[^\n]*)*")
_END = re.compile(rf"[{_SPACE}]+\Z")
_KEY = re.compile(r"(?:export[\t\v\f\r \x85\xa0]+)?([^=:\n]*)([=:\n]|\Z)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPANDED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?\Z", re.S)
_ESCAPE = re.compile(r'\\(0[0-7]{3}|[abfnrtv"\\$])')
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"',
    "$": "$$",
}  # fmt: skip
# Set wherever Compose runs; what the environment sets wins over the file.
_ALWAYS_SET = frozenset({"HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "USER"})


class NotReadable(ValueError):
    """Compose refuses the file. The text says where and why, without a value of it."""


@dataclass
class Reading:
    values: dict[str, str] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)
    """By name, the variable of the environment that Compose would look at. The value is as if it weren't
    set."""


def parse(text: str) -> Reading:
    """Read a file as Docker Compose 2 does. Raises NotReadable."""
    reading = Reading()
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    at = 0
    while True:
        at = _NO_STATEMENT.match(text, at).end()  # type: ignore[union-attr]
        if at == len(text):
            return reading
        line = text.count("\n", 0, at) + 1
        key = _KEY.match(text, at)
        assert key is not None
        name, at = _END.sub("", key[1]), key.end()
        if not name or any(not (of.isalnum() or of in "_.-[]") for of in name):
            raise NotReadable(f"line {line} is no assignment")
        if key[2] not in ("=", ":"):
            # A name alone stands for the environment's value.
            reading.unsure[name] = name
            continue
        while at < len(text) and text[at] in "\t\v\f\r \x85\xa0":
            at += 1
        expand = _Expansion(reading, line)
        if text[at : at + 1] in ("'", '"'):
            quote = text[at]
            raw, at = _quoted(text, at, line)
            value = raw if quote == "'" else expand(_ESCAPE.sub(_unescaped, raw))
        else:
            raw, _, _ = text[at:].partition("\n")
            at += len(raw)
            value = expand(_END.sub("", raw.split(" #")[0]))
        reading.values[name] = value
        reading.unsure.pop(name, None)
        if name in _ALWAYS_SET:
            expand.missing = name
        if expand.missing:
            reading.unsure[name] = expand.missing


def _quoted(text: str, at: int, line: int) -> tuple[str, int]:
    """What is between the quote at a place and the next of its kind that has no backslash before it, and
    where the rest begins."""
    quote, found, at = text[at], "", at + 1
    while at < len(text):
        if text[at] == quote:
            return found, at + 1
        if text[at] == "\\" and at + 1 < len(text):
            found += text[at + 1] if text[at + 1] == quote else text[at : at + 2]
            at += 2
        else:
            found += text[at]
            at += 1
    raise NotReadable(f"the quote of line {line} has no end")


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    return chr(int(escape[1:], 8)) if escape.startswith("0") else _ESCAPES[escape]


class _Expansion:
    """Puts in the values of variables, by Compose's rules (`${A:-b}` and the like, nested)."""

    def __init__(self, reading: Reading, line: int) -> None:
        self.reading = reading
        self.line = line
        self.missing: str | None = None

    def __call__(self, text: str) -> str:
        result, at = "", 0
        while (dollar := text.find("$", at)) >= 0:
            result += text[at:dollar]
            at = dollar + 1
            if text.startswith("$", at):
                result, at = result + "$", at + 1
            elif text.startswith("{", at):
                end = self._closing(text, at)
                result, at = result + self._braced(text[at + 1 : end]), end + 1
            elif name := _NAME.match(text, at):
                result, at = result + (self._value(name[0]) or ""), name.end()
            else:
                result += "$"
        return result + text[at:]

    def _closing(self, text: str, at: int) -> int:
        deep = 0
        for place in range(at, len(text)):
            if text[place] == "}":
                deep -= 1
                if deep == 0:
                    return place
            elif text[place] == "{" and text[place - 1] == "$":
                deep += 1
        raise NotReadable(f"line {self.line} has a ${{ without its }}")

    def _braced(self, inner: str) -> str:
        match = _EXPANDED.match(inner)
        if match is None:
            raise NotReadable(f"line {self.line} has a ${{…}} that Compose doesn't know")
        name, operator, word = match[1], match[2], match[3]
        value = self._value(name)
        if operator is None:
            return value or ""
        there = value is not None and (value != "" or operator[0] != ":")
        if operator[-1] == "-":
            return value if there else self(word)  # type: ignore[return-value]
        if operator[-1] == "+":
            return self(word) if there else ""
        if not there:
            raise NotReadable(f"line {self.line} needs the variable {name}, which isn't set in the file")
        return value  # type: ignore[return-value]

    def _value(self, name: str) -> str | None:
        known = self.reading.values.get(name)
        if known is None or name in _ALWAYS_SET:
            self.missing = self.missing or name
        else:
            self.missing = self.missing or self.reading.unsure.get(name)
        return known


def expand(text: str, env: Reading, missing: list[str]) -> str:
    """A text of a compose file with the values of a `.env`. What the file doesn't tell is added to `missing`.
    Raises NotReadable."""
    expansion = _Expansion(env, 0)
    expanded = expansion(text)
    if expansion.missing:
        missing.append(expansion.missing)
    return expanded
