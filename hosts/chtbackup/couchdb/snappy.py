"""Unpack Snappy, in which CouchDB compresses terms (google/snappy, format_description.txt)."""

from __future__ import annotations

from chtbackup.couchdb.term import BadTerm, take

# A real header has some hundred bytes, a view's some thousand. The limit keeps garbage from filling memory.
LARGEST_HEADER = 16 * 1024 * 1024


def unpack_snappy(data: bytes, largest: int = LARGEST_HEADER) -> bytes:
    """Undo snappy's compression (google/snappy, `format_description.txt`). Raises BadTerm, also for more than
    `largest` bytes."""
    size, at, shift = 0, 0, 0
    try:
        while True:
            size |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not data[at - 1] & 0x80:
                break
        if size > largest:
            raise BadTerm("it is too large")
        out = bytearray()
        while at < len(data):
            tag = data[at]
            at += 1
            if tag & 3 == 0:
                length = tag >> 2
                if length >= 60:  # that many bytes more hold it
                    wide = length - 59
                    length = int.from_bytes(data[at : at + wide], "little")
                    at += wide
                out += take(data, at, length + 1)
                at += length + 1
            else:
                if tag & 3 == 1:
                    length, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at]
                    at += 1
                else:
                    wide = 2 if tag & 3 == 2 else 4
                    length, offset = (tag >> 2) + 1, int.from_bytes(data[at : at + wide], "little")
                    at += wide
                if not 0 < offset <= len(out):
                    raise BadTerm("its compression is garbled")
                # What it repeats may be shorter than what it makes of it.
                start = len(out) - offset
                piece = out[start : start + length]
                out += (piece * (length // offset + 1))[:length]
            if len(out) > size:
                raise BadTerm("its compression is garbled")
    except IndexError as error:
        raise BadTerm("it ends too early") from error
    if len(out) != size:
        raise BadTerm("its compression is garbled")
    return bytes(out)
