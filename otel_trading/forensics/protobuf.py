"""Protobuf's wire format, as far as a trace for Perfetto needs it: each function gives one field, also of a 0."""

from __future__ import annotations

import struct

from otel_trading.drain.protobuf import FIXED64, VARINT, message, present_double, tag, varint

__all__ = ["double", "fixed64", "message", "text", "uint", "varint"]

_WORD = (1 << 64) - 1

double = present_double


def uint(field: int, number: int) -> bytes:
    """Encode an integer, a bool, or an enum's value."""
    return tag(field, VARINT) + varint(number)


def fixed64(field: int, number: int) -> bytes:
    """Encode an integer of a fixed eight bytes."""
    return tag(field, FIXED64) + struct.pack("<Q", number & _WORD)


def text(field: int, content: str) -> bytes:
    """Encode a text; lone surrogates as "?"."""
    return message(field, content.encode("utf-8", "replace"))
