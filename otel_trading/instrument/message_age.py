"""How old a message is: the exchange's own stamp, found in the first bytes of the message without parsing it.

JSON: the first of the venue's field names that is followed by a number of milliseconds (13 digits), microseconds (16)
or nanoseconds (19), in quotes or not.  MEXC's protobuf push: the wrapper's ``sendTime``, else ``createTime``.  What has
nothing of the kind, or a stamp that cannot be one, has no age.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from otel_trading.faults import report

SCANNED = 512
"""Bytes of a message's beginning that are looked at; of OKX's the last 160 too, as its books end with the stamp."""

OLDEST = 86_400.0
"""Seconds; what is older is no stamp of this message (the beginning of a candle, an id that looks like a time)."""

NEWEST = -60.0
"""Seconds; the two clocks may differ by so much."""

# In the order of preference: when the event happened, before when it was sent.
_FIELDS = {
    "gateio": ('"t":', '"create_time_ms":', '"time_ms":'),
    "binance": ('"E":', '"T":'),
    "binanceus": ('"E":', '"T":'),
    "bybit": ('"cts":', '"ts":'),
    "mexc": ('"sendTime":', '"ts":', '"t":'),
    "okx": ('"ts":',),
}
_LAST = {"okx": '"ts":'}
"""Fields that come last, behind a book of any length: looked for in the last bytes too."""

_TAIL = 160
_ANY = ('"E":', '"ts":', '"time_ms":', '"timestamp":', '"T":', '"t":')

_number = re.compile(r'[ ]?"?([0-9]{13,19})(?![0-9])').match
_number_of_bytes = re.compile(rb'[ ]?"?([0-9]{13,19})(?![0-9])').match
_ENDS = frozenset(",}. ")
_FIRST = frozenset("123456789")
_PER_SECOND = {13: 1e3, 16: 1e6, 19: 1e9}


def stamps_of(venue: str | None) -> Callable[[str | bytes], float | None]:
    """Make the function that gives the stamp of a venue's message in Unix seconds, or None.

    Of an unknown venue it looks for the fields that are most used.  About 0.5 µs where the message has a stamp.
    """
    fields = [(field, len(field)) for field in _FIELDS.get(venue or "", _ANY)]
    last = _LAST.get(venue or "", "")
    stamp_in_bytes = _stamps_in_bytes([field for field, _ in fields], last)

    def stamp(message: str | bytes) -> float | None:
        if not isinstance(message, str):
            return stamp_in_bytes(message)
        for field, length in fields:
            at = message.find(field, 0, SCANNED)
            if at >= 0:
                at += length
                try:
                    if message[at + 13] in _ENDS and message[at] in _FIRST:
                        return int(message[at : at + 13]) / 1e3  # nearly always
                except (IndexError, ValueError):
                    pass
                found = _number(message, at)
                if found is not None:
                    return _seconds(found[1])
        return _at_end(message[-_TAIL:], last, _number) if last else None

    return stamp


def _stamps_in_bytes(fields: Sequence[str], last: str) -> Callable[[bytes], float | None]:
    encoded, encoded_last = [field.encode() for field in fields], last.encode()

    def stamp(message: bytes) -> float | None:
        if message[:1] == b"\n":
            return _mexc(message)
        for field in encoded:
            at = message.find(field, 0, SCANNED)
            found = _number_of_bytes(message, at + len(field)) if at >= 0 else None
            if found is not None:
                return _seconds(found[1])
        return _at_end(message[-_TAIL:], encoded_last, _number_of_bytes) if last else None

    return stamp


def _at_end(tail: Any, field: Any, number: Callable[..., Any]) -> float | None:
    at = tail.rfind(field)
    found = number(tail, at + len(field)) if at >= 0 else None
    return None if found is None else _seconds(found[1])


def guarded(extractor: Callable[[str | bytes], float | None]) -> Callable[[str | bytes], float | None]:
    """Wrap the program's own function: what it raises is a fault, and the message has no age."""

    def stamp(message: str | bytes) -> float | None:
        try:
            found = extractor(message)
            return None if found is None else float(found)
        except Exception as error:  # noqa: BLE001  it is the program's, and may do anything
            report("message_age", f"message_age: the extractor raised {type(error).__name__}; the message has no age")
            return None

    return stamp


def _seconds(digits: str | bytes) -> float | None:
    per_second = _PER_SECOND.get(len(digits))
    return None if per_second is None else int(digits) / per_second


# ---- MEXC's push: channel=1 string, symbol=3 string, symbolId=4 string, createTime=5 varint, sendTime=6 varint ----

_CREATE_TIME, _SEND_TIME = 0x28, 0x30
_VARINT, _BYTES = 0, 2
_MOST_FIELDS = 8


def _mexc(message: bytes) -> float | None:
    at, created = 0, None
    for _ in range(_MOST_FIELDS):
        if at >= min(len(message), SCANNED):
            break
        tag = message[at]
        if tag & 0x80:  # a field of the body, which comes after these
            break
        value, at = _varint(message, at + 1)
        if at < 0:
            break
        if tag == _SEND_TIME:
            return value / 1e3
        if tag == _CREATE_TIME:
            created = value / 1e3
        if tag & 7 == _BYTES:
            at += value
        elif tag & 7 != _VARINT:
            break
    return created


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a number; the place behind it, or -1 where there is none."""
    value = shift = 0
    for byte in message[at : at + 10]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  the bit that says that more follows
            return value, at
        shift += 7
    return 0, -1
