"""Look at borg's own index of a repository before borg believes it."""

from __future__ import annotations

import struct

# Of borg's index.N: its magic, entries, buckets, size of a key and of a value; then the buckets.
INDEX_HEADER = struct.Struct("<8siibb")
KEY_SIZE, VALUE_SIZE = 32, 8


def mistaken_header(header: bytes, size: int) -> str | None:
    """Why a file of so many bytes, which begins with this header, is no index of a repository; None: it may be one.
    These are the questions that borg asks itself since 1.4.5. Earlier ones believe the file, and end without a word, or
    read what isn't theirs, when it lies."""
    if len(header) < INDEX_HEADER.size:
        return "it is cut off"
    magic, entries, buckets, key, value = INDEX_HEADER.unpack(header)
    if magic != b"BORG_IDX":
        return "it doesn't begin as one"
    if (key, value) != (KEY_SIZE, VALUE_SIZE):
        return f"its keys have {key} bytes and its values {value}, not {KEY_SIZE} and {VALUE_SIZE}"
    if buckets < 1 or not 0 <= entries <= buckets:
        return f"it says that {entries} of {buckets} places are taken"
    if size != INDEX_HEADER.size + buckets * (KEY_SIZE + VALUE_SIZE):
        return f"it has {size} bytes, not those of {buckets} places"
    return None
