"""Protobuf's wire format, as far as a trace for Perfetto needs it: each function gives one encoded field."""

from __future__ import annotations

import struct

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_WORD = (1 << 64) - 1
_LAST = 0x7F


def varint(number: int) -> bytes:
    """Encode a number; a negative one as its 64 bit complement, as protobuf does."""
    number &= _WORD
    out = bytearray()
    while number > _LAST:
        out.append(number & _LAST | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def uint(field: int, number: int) -> bytes:
    """Encode an integer, a bool, or an enum's value."""
    return varint(field << 3 | _VARINT) + varint(number)


def fixed64(field: int, number: int) -> bytes:
    """Encode an integer of a fixed eight bytes."""
    return varint(field << 3 | _FIXED64) + struct.pack("<Q", number & _WORD)


def double(field: int, number: float) -> bytes:
    """Encode a double."""
    return varint(field << 3 | _FIXED64) + struct.pack("<d", number)


def message(field: int, content: bytes) -> bytes:
    """Encode bytes, or an encoded message."""
    return varint(field << 3 | _BYTES) + varint(len(content)) + content


def text(field: int, content: str) -> bytes:
    """Encode a text; lone surrogates as "?"."""
    return message(field, content.encode("utf-8", "replace"))
