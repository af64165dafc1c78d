"""Erlang's external term format, as far as CouchDB's files use it (erts, "External Term Format")."""

from __future__ import annotations

import struct
from typing import Any

# Of each tag: how many bytes come after it.
_FIXED = {97: 1, 98: 4, 70: 8, 106: 0}
# Or how a count is written, how many values that is each (0: so many bytes), and how many more there are.
_COUNTED = {
    **{tag: (">B", 0, 0) for tag in (115, 119)},
    **{tag: (">H", 0, 0) for tag in (100, 107, 118)},
    **{109: (">I", 0, 0), 110: (">B", 0, 1), 111: (">I", 0, 1)},
    **{104: (">B", 1, 0), 105: (">I", 1, 0), 108: (">I", 1, 1), 116: (">I", 2, 0)},
}

DEEPEST_TERM = 100


class BadTerm(ValueError):
    """Bytes that are no Erlang term of the kinds CouchDB writes into headers."""


class Atom(str):
    """An Erlang atom, told apart from a binary (`bytes`)."""


def decode_term(data: bytes, levels: int | None = None) -> Any:
    """Decode one value in Erlang's external term format (erts, "External Term Format").

    What is deeper than so many `levels` is passed over, with None in its place; without them a value that is
    nested too deeply is refused. Tuples become `tuple`, lists and strings `list`, maps `dict`, binaries
    `bytes`, atoms `Atom`, numbers `int` or `float`. Raises BadTerm on anything else, on bytes left over and
    on short input.
    """
    if not data or data[0] != 131:
        raise BadTerm("it doesn't begin with the version byte 131")
    try:
        value, end = _decode(data, 1, 0, levels)
    except (struct.error, IndexError, UnicodeDecodeError, TypeError) as error:
        raise BadTerm("it ends too early or is garbled") from error
    if end != len(data):
        raise BadTerm(f"{len(data) - end} bytes are left over")
    return value


def take(data: bytes, at: int, length: int) -> bytes:
    if length > len(data) - at:
        raise BadTerm("it ends too early")
    return data[at : at + length]


def _end(data: bytes, at: int) -> int:
    """Where the value ends that begins there, however deep it is."""
    left = 1
    while left:
        left -= 1
        tag = data[at]
        at += 1
        if tag in _FIXED:
            at += _FIXED[tag]
        elif tag in _COUNTED:
            head, each, more = _COUNTED[tag]
            count = struct.unpack_from(head, data, at)[0]
            at += struct.calcsize(head)
            if each:
                left += count * each + more
            else:
                at += count + more
        else:
            raise BadTerm(f"tag {tag} is unknown")
    return at


def _decode(data: bytes, at: int, depth: int, levels: int | None) -> tuple[Any, int]:
    if levels is not None and depth > levels:
        return None, _end(data, at)
    if depth > DEEPEST_TERM:
        raise BadTerm("it is nested too deeply")
    tag = data[at]
    at += 1
    if tag == 97:  # SMALL_INTEGER_EXT
        return data[at], at + 1
    if tag == 98:  # INTEGER_EXT
        return struct.unpack_from(">i", data, at)[0], at + 4
    if tag == 70:  # NEW_FLOAT_EXT
        return struct.unpack_from(">d", data, at)[0], at + 8
    if tag in (110, 111):  # SMALL_BIG_EXT, LARGE_BIG_EXT
        head = ">B" if tag == 110 else ">I"
        length = struct.unpack_from(head, data, at)[0]
        at += struct.calcsize(head)
        sign = data[at]
        number = int.from_bytes(take(data, at + 1, length), "little")
        return (-number if sign else number), at + 1 + length
    if tag in (100, 118, 119, 115):  # ATOM_EXT, ATOM_UTF8_EXT, SMALL_ATOM_UTF8_EXT, SMALL_ATOM_EXT
        head = ">H" if tag in (100, 118) else ">B"
        length = struct.unpack_from(head, data, at)[0]
        at += struct.calcsize(head)
        encoding = "latin-1" if tag in (100, 115) else "utf-8"
        return Atom(take(data, at, length).decode(encoding)), at + length
    if tag == 109:  # BINARY_EXT
        length = struct.unpack_from(">I", data, at)[0]
        return take(data, at + 4, length), at + 4 + length
    if tag == 107:  # STRING_EXT: a list of bytes
        length = struct.unpack_from(">H", data, at)[0]
        return list(take(data, at + 2, length)), at + 2 + length
    if tag == 106:  # NIL_EXT
        return [], at
    if tag in (104, 105):  # SMALL_TUPLE_EXT, LARGE_TUPLE_EXT
        head = ">B" if tag == 104 else ">I"
        values, at = _decode_many(data, at, head, 1, depth, levels)
        return tuple(values), at
    if tag == 108:  # LIST_EXT: the elements, then a tail which is [] in a proper list
        values, at = _decode_many(data, at, ">I", 1, depth, levels)
        tail, at = _decode(data, at, 0, 0)
        if tail != []:
            raise BadTerm("a list has an improper tail")
        return values, at
    if tag == 116:  # MAP_EXT
        values, at = _decode_many(data, at, ">I", 2, depth, levels)
        return dict(zip(values[::2], values[1::2])), at
    raise BadTerm(f"tag {tag} is unknown")


def _decode_many(data: bytes, at: int, head: str, each: int, depth: int, levels: int | None) -> tuple[list[Any], int]:
    count = struct.unpack_from(head, data, at)[0] * each
    at += struct.calcsize(head)
    if count > len(data) - at:  # every element needs a byte: an absurd count ends here, not in memory
        raise BadTerm("it ends too early")
    values = []
    for _ in range(count):
        value, at = _decode(data, at, depth + 1, levels)
        values.append(value)
    return values, at
