"""Decode the OTLP messages that a segment holds: attribute values that are no plain ones, events, and links.

A small decoder of protobuf's wire format for these three, so that whoever reads a segment needs no protobuf.  What
it is given may be hostile: each function raises ValueError for what is no such message, and takes time and memory by
its length.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 64  # arrays and maps within each other; the recorder writes 33 at most
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_WORD = (1 << 64) - 1
_IS_REMOTE = 0x200  # SpanFlags

# Fields of AnyValue
_STRING, _BOOL, _INT, _DOUBLE, _ARRAY, _MAP, _RAW = range(1, 8)
_TYPES = {_STRING: _BYTES, _BOOL: _VARINT, _INT: _VARINT, _DOUBLE: _FIXED64, _ARRAY: _BYTES, _MAP: _BYTES, _RAW: _BYTES}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:  # noqa: PLR2004  bits of a word
            raise ValueError("not an OTLP message: a number does not end")
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:  # noqa: PLR2004  the last byte of a number
            return number & _WORD, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Give (field's number, wire type, value): an int of a varint, else bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            number, at = _varint(data, at)
            yield tag >> 3, wire, number
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in _SIZES:
            length = _SIZES[wire]
        else:
            raise ValueError(f"not an OTLP message: wire type {wire}")
        if length > len(data) - at:
            raise ValueError("not an OTLP message: it ends within a field")
        yield tag >> 3, wire, data[at : at + length]
        at += length


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _pair(data: bytes, depth: int) -> tuple[str, Any]:
    key, value = "", None
    for number, wire, content in _fields(data):
        if number == 1 and wire == _BYTES:
            key = _text(content)
        elif number == 2 and wire == _BYTES:  # noqa: PLR2004  KeyValue.value
            value = _any(content, depth)
    return key, value


def _items(data: bytes) -> Iterator[bytes]:
    for number, wire, content in _fields(data):
        if number == 1 and wire == _BYTES:
            yield content


def _any(data: bytes, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("not an OTLP message of ours: arrays and maps are nested too deep")
    value: Any = None
    for number, wire, content in _fields(data):
        if _TYPES.get(number) != wire:
            continue
        if number == _STRING:
            value = _text(content)
        elif number == _BOOL:
            value = content != 0
        elif number == _INT:
            value = content - (content >> 63 << 64)
        elif number == _DOUBLE:
            (value,) = struct.unpack("<d", content)
        elif number == _ARRAY:
            value = tuple(_any(item, depth + 1) for item in _items(content))
        elif number == _MAP:
            value = dict(_pair(item, depth + 1) for item in _items(content))
        else:
            value = content
    return value


def _set(attributes: dict[str, Any], data: bytes) -> None:
    key, attribute = _pair(data, 0)
    attributes[key] = attribute


def value(data: bytes) -> Any:
    """Return what an AnyValue message says: None, a bool, int, float, str, bytes, or a tuple or dict of those."""
    return _any(data, 0)


def event(data: bytes) -> tuple[str, int, dict[str, Any], int]:
    """Return an event's name, Unix ns, attributes, and how many of those were dropped."""
    name, unix_ns, dropped = "", 0, 0
    attributes: dict[str, Any] = {}
    for number, wire, content in _fields(data):
        if (number, wire) == (1, _FIXED64):
            unix_ns = int.from_bytes(content, "little")
        elif (number, wire) == (2, _BYTES):
            name = _text(content)
        elif (number, wire) == (3, _BYTES):
            _set(attributes, content)
        elif (number, wire) == (4, _VARINT):
            dropped = content & 0xFFFF_FFFF
    return name, unix_ns, attributes, dropped


def link(data: bytes) -> tuple[int, int, bool, str, dict[str, Any], int]:
    """Return a link's trace id, span id, whether it is remote, tracestate, attributes, how many were dropped."""
    trace_id, span_id, flags, tracestate, dropped = 0, 0, 0, "", 0
    attributes: dict[str, Any] = {}
    for number, wire, content in _fields(data):
        if (number, wire) == (1, _BYTES):
            trace_id = int.from_bytes(content[:16], "big")
        elif (number, wire) == (2, _BYTES):
            span_id = int.from_bytes(content[:8], "big")
        elif (number, wire) == (3, _BYTES):
            tracestate = _text(content)
        elif (number, wire) == (4, _BYTES):
            _set(attributes, content)
        elif (number, wire) == (5, _VARINT):
            dropped = content & 0xFFFF_FFFF
        elif (number, wire) == (6, _FIXED32):
            flags = int.from_bytes(content, "little")
    return trace_id, span_id, bool(flags & _IS_REMOTE), tracestate, attributes, dropped


def link_trace_flags(data: bytes) -> int:
    """Return the W3C trace flags of a link's span: 1 sampled, 2 its trace id is random."""
    flags = 0
    for number, wire, content in _fields(data):
        if (number, wire) == (6, _FIXED32):
            flags = int.from_bytes(content, "little")
    return flags & 0xFF
