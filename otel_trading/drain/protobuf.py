"""Writing protobuf's wire format: as much of it as OTLP's resources, scopes, attributes and metrics take.

The library for it takes 2.5 MB, and the messages' classes more, of a budget of 30; spans are encoded in C.  What is
written is what the library writes: fields in the order of their numbers, and none that has its default.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types."""

_DOUBLE = struct.Struct("<d").pack
_FIXED = struct.Struct("<Q").pack
_SIGNED_FIXED = struct.Struct("<q").pack
_ALL = (1 << 64) - 1
_MOST_SHIFT = 63


def varint(value: int) -> bytes:
    """Encode a whole number, one below 0 as its two's complement of 64 bits."""
    value &= _ALL
    if value < 0x80:  # noqa: PLR2004
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire: int) -> bytes:
    """Give what stands before a field."""
    return varint(number << 3 | wire)


def message(number: int, body: bytes) -> bytes:
    """Give a field that holds a message, or bytes, or packed numbers; an empty one is there as well."""
    return tag(number, LENGTH) + varint(len(body)) + body


def text(number: int, value: str) -> bytes:
    """Give a string's field; nothing for an empty one.  Raises UnicodeEncodeError for half a surrogate pair."""
    return message(number, value.encode()) if value else b""


def raw(number: int, value: bytes) -> bytes:
    """Give the field of bytes; nothing for none."""
    return message(number, value) if value else b""


def whole(number: int, value: int) -> bytes:
    """Give the field of an int32, int64, uint32, uint64, bool or enum; nothing for 0."""
    return tag(number, VARINT) + varint(value) if value else b""


def zigzag(number: int, value: int) -> bytes:
    """Give the field of a sint32 or sint64; nothing for 0."""
    return tag(number, VARINT) + varint(value << 1 ^ value >> _MOST_SHIFT) if value else b""


def fixed(number: int, value: int) -> bytes:
    """Give the field of a fixed64; nothing for 0.  Raises struct.error out of range."""
    return tag(number, FIXED64) + _FIXED(value) if value else b""


def double(number: int, value: float) -> bytes:
    """Give a double's field; nothing for 0, but for one below it."""
    return present_double(number, value) if value or _DOUBLE(value) != bytes(8) else b""


def present_double(number: int, value: float) -> bytes:
    """Give the field of a double that tells whether it is there: one of 0 as well."""
    return tag(number, FIXED64) + _DOUBLE(value)


def present_signed_fixed(number: int, value: int) -> bytes:
    """Give the field of such an sfixed64.  Raises struct.error out of range."""
    return tag(number, FIXED64) + _SIGNED_FIXED(value)


def packed(number: int, values: Iterable[int], one: Callable[[int], bytes]) -> bytes:
    """Give the field of repeated numbers, each encoded by ``one``; nothing for none."""
    return raw(number, b"".join(map(one, values)))


def attributes(number: int, found: Mapping[str, object]) -> bytes:
    """Give repeated ``KeyValue`` fields: strings, bools, whole numbers, floats, bytes, and sequences of them.

    An attribute that can not be encoded is left out, as the stock exporters do.
    """
    fields = []
    for key, value in found.items():
        try:
            fields.append(message(number, _pair(key, value)))
        except (TypeError, ValueError):
            continue
    return b"".join(fields)


def scope(name: str, version: str | None, found: Mapping[str, object] | None) -> bytes:
    """Encode an ``InstrumentationScope``."""
    return text(1, name) + text(2, version or "") + attributes(3, found or {})


def _pair(key: str, value: object) -> bytes:
    return text(1, key) + message(2, any_value(value))


def any_value(value: object) -> bytes:
    """Encode an ``AnyValue``; None is an empty one.  Raises TypeError and ValueError for what has no place in one."""
    if value is None:
        return b""
    encode = _VALUES.get(type(value)) or next((one for kind, one in _VALUES.items() if isinstance(value, kind)), None)
    if encode is None:
        raise TypeError(f"{type(value).__name__} is no attribute's value")
    return encode(value)


def _int_value(value: int) -> bytes:
    if not -1 << 63 <= value < 1 << 63:
        raise ValueError(f"{value} is too large")
    return tag(3, VARINT) + varint(value)


_VALUES: dict[type, Callable[[Any], bytes]] = {
    bool: lambda value: tag(2, VARINT) + varint(value),  # before int, which it is as well
    str: lambda value: message(1, value.encode()),
    int: _int_value,
    float: lambda value: present_double(4, value),
    bytes: lambda value: message(7, value),
    list: lambda value: message(5, b"".join(message(1, any_value(item)) for item in value)),
    tuple: lambda value: message(5, b"".join(message(1, any_value(item)) for item in value)),
    dict: lambda value: message(6, b"".join(message(1, _pair(str(key), item)) for key, item in value.items())),
}


def read(body: bytes) -> dict[int, int | bytes]:
    """Read a message's fields, the last of each number: whole numbers of varints, bytes of all else.

    Raises ValueError for what is no message.
    """
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(body):
        key, at = _varint_at(body, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            found[number], at = _varint_at(body, at)
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(wire, -1)
        if wire == LENGTH:
            size, at = _varint_at(body, at)
        if size < 0 or at + size > len(body):
            raise ValueError("this is no protobuf message")
        found[number] = body[at : at + size]
        at += size
    return found


def bytes_of(found: Mapping[int, int | bytes], number: int) -> bytes:
    """Give a message's field of bytes, b"" where it is not there.  Raises ValueError where it is a number."""
    value = found.get(number, b"")
    if isinstance(value, int):
        raise ValueError(f"field {number} is a number")  # noqa: TRY004  of what somebody has sent
    return value


def whole_of(found: Mapping[int, int | bytes], number: int) -> int:
    """Give a message's whole number, 0 where it is not there.  Raises ValueError where it is none."""
    value = found.get(number, 0)
    if isinstance(value, bytes):
        raise ValueError(f"field {number} is no number")  # noqa: TRY004  as above
    return value


def _varint_at(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value & _ALL, at
    raise ValueError("this is no protobuf message")
