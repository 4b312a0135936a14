"""OTLP messages of values, events and links, byte for byte as protobuf's own encoder writes them."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
_WORD = (1 << 64) - 1
_DEEPEST = 32  # values within values
HAS_IS_REMOTE, IS_REMOTE = 0x100, 0x200
"""Bits of SpanFlags next to the trace's own."""
_double = struct.Struct("<d").pack
_fixed64 = struct.Struct("<Q").pack
_fixed32 = struct.Struct("<I").pack


def varint(number: int) -> bytes:
    """Encode a whole number of 0 to 2**64 - 1."""
    if number < 0x80:  # noqa: PLR2004  one byte
        return bytes((number,))
    data = bytearray()
    while number > 0x7F:  # noqa: PLR2004  seven bits a byte
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def delimited(tag: int, payload: bytes) -> bytes:
    """Encode a field of bytes, of text, or of a message; of a number below 16."""
    return bytes((tag << 3 | 2,)) + varint(len(payload)) + payload


def of_int(number: int) -> bytes:
    """Encode an AnyValue of 64 bits."""
    return b"\x18" + varint(number & _WORD)


def of_bool(value: bool) -> bytes:  # noqa: FBT001  a value
    """Encode an AnyValue."""
    return b"\x10\x01" if value else b"\x10\x00"


def of_double(number: float) -> bytes:
    """Encode an AnyValue."""
    return b"\x21" + _double(number)


def of_text(data: bytes) -> bytes:
    """Encode an AnyValue of UTF-8."""
    return delimited(1, data)


def key_value(key: bytes, value: bytes) -> bytes:
    """Encode a KeyValue message; ``value`` is an AnyValue message."""
    return (delimited(1, key) if key else b"") + delimited(2, value)


class TooLongError(Exception):
    """A value has no room in a block."""


class Rules:
    """How values of any type become messages."""

    __slots__ = ("api", "cut", "longest", "most", "room")

    def __init__(self, longest: int | None, most: int, room: int, api: bool) -> None:  # noqa: FBT001
        self.longest = longest  # characters of a text
        self.most = most  # bytes of one
        self.room = room  # bytes of a message: who meets an endless one stops there
        self.api = api  # by the SDK's rules; else numbers of other libraries are numbers
        self.cut = False  # whether a text was, to so many bytes

    def text(self, text: str, longest: int | None = None) -> bytes:
        """Give the UTF-8 of a text, cut between two characters.  Raises UnicodeEncodeError for lone surrogates."""
        whole = len(text) if longest is None else min(len(text), longest)
        data = text[: min(whole, self.most)].encode()  # a character is a byte at least
        if whole <= self.most and len(data) <= self.most:
            return data
        self.cut = True
        if len(data) > self.most:
            end = self.most
            while end and data[end] & 0xC0 == 0x80:  # noqa: PLR2004  the middle of a character
                end -= 1
            data = data[:end]
        return data

    def message(self, value: object, depth: int = 0) -> bytes:  # noqa: PLR0911  one a type
        """Give the AnyValue message.  Raises TooLongError, and whatever the value's own code raises."""
        if value is None:
            return b""
        if isinstance(value, bool):
            return of_bool(value)
        if isinstance(value, str):
            return of_text(self.text(value, self.longest))
        if isinstance(value, int):
            if INT_MIN <= value <= INT_MAX:
                return of_int(value)
            return of_text(self.text(str(value), self.longest))
        if isinstance(value, float):
            return of_double(value)
        if isinstance(value, bytes):
            return delimited(7, value)
        if isinstance(value, (Sequence, Mapping)):
            return self._container(value, depth) if depth < _DEEPEST else b""
        number = None if self.api else number_of(value)
        if number is not None:
            return self.message(number, depth)
        text = text_of(value)
        return b"" if text is None else of_text(self.text(text))

    def _container(self, value: Sequence[Any] | Mapping[Any, Any], depth: int) -> bytes:
        if isinstance(value, Sequence):
            return delimited(5, self._joined(self.message(item, depth + 1) for item in value))
        pairs = ((key_of(key), item) for key, item in value.items())
        return delimited(6, self._joined(self.pair(key, item, depth + 1) for key, item in pairs if key is not None))

    def _joined(self, messages: Iterable[bytes]) -> bytes:
        parts, size = [], 0
        for message in messages:
            part = delimited(1, message)
            size += len(part)
            if size > self.room:
                raise TooLongError
            parts.append(part)
        return b"".join(parts)

    def pair(self, key: str, value: object, depth: int = 0) -> bytes:
        """Give a KeyValue message."""
        return key_value(self.text(key), self.message(value, depth))

    def bounded(self, attributes: Mapping[Any, Any], most: int) -> tuple[list[bytes], int]:
        """Give the KeyValue messages of the newest attributes, and how many were dropped.

        What can not be encoded is left out, as the stock exporter does.
        """
        pairs = [(key_of(key), value) for key, value in attributes.items()]
        found = [(key, value) for key, value in pairs if key is not None]
        found = found[max(0, len(found) - most) :]
        messages = []
        for key, value in found:
            try:
                messages.append(self.pair(key, value))
            except TooLongError:
                raise
            except Exception:  # noqa: BLE001, S112  the value's own code, or lone surrogates
                continue
        return messages, len(pairs) - len(found)


def number_of(value: Any) -> int | float | None:
    """Give the number that a number of another library is; None for what is none."""
    if hasattr(value, "__index__"):  # numpy's integers
        return operator.index(value)
    if hasattr(value, "__float__"):  # Decimal, numpy's floats
        return math.ldexp(value, 0)
    return None


def text_of(value: object) -> str | None:
    """Give the text of a value of an unknown type as the SDK does; None where it would say nothing."""
    kind = type(value)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        return None
    return str(value)


def key_of(key: object) -> str | None:
    """Give an attribute's key as the SDK takes it from a mapping; None for what can not be one."""
    if not key:
        return None
    return key if isinstance(key, str) else text_of(key)


def event(name: bytes, unix_ns: int, attributes: Iterable[bytes], dropped: int) -> bytes:
    """Encode a Span.Event message."""
    return b"".join(
        [
            b"\x09" + _fixed64(unix_ns & _WORD) if unix_ns else b"",
            delimited(2, name) if name else b"",
            *[delimited(3, attribute) for attribute in attributes],
            b"\x20" + varint(dropped) if dropped else b"",
        ]
    )


def link(
    trace: bytes,
    span: bytes,
    tracestate: bytes,
    attributes: Iterable[bytes],
    dropped: int,
    flags: int,
) -> bytes:
    """Encode a Span.Link message; the ids are big-endian."""
    return b"".join(
        [
            delimited(1, trace),
            delimited(2, span),
            delimited(3, tracestate) if tracestate else b"",
            *[delimited(4, attribute) for attribute in attributes],
            b"\x28" + varint(dropped) if dropped else b"",
            b"\x35" + _fixed32(flags),
        ]
    )
