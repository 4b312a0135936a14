"""The market data of a segment: the newest update of each symbol."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from otel_trading import _layout as at
from otel_trading.errors import SegmentTruncatedError
from otel_trading.segment.files import open_segment
from otel_trading.segment.pages import locate

_MARKET = struct.Struct(at.FORMAT_MARKET)
_NAME = struct.Struct("<II")
_WORD = struct.Struct("<Q")


class Market(NamedTuple):
    """What is known of one symbol."""

    symbol: str
    exchange_ns: int
    """The exchange's stamp of the newest update, Unix time; 0: it had none."""
    received_ns: int
    """Unix time."""
    updates: int
    """So far."""
    price: float
    """NaN: none yet."""
    volume: float
    """Sum so far."""


class Markets:
    """The market table of a segment, of this process or of any other.  ``read`` takes some 10 µs, and 1 µs a symbol.

    Raises SegmentNotFoundError, SegmentForeignError, SegmentVersionError, SegmentTruncatedError or SegmentDamagedError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file and find the table."""
        self._path = os.fsdecode(path)
        self._names: dict[int, str] = {}
        self._fd = open_segment(path, os.O_RDONLY)
        try:
            self._offset = locate(
                self._fd, self._path, "market data", at.OFF_HEADER_MARKETS_OFFSET, at.MARKETS * at.SIZE_MARKET
            )
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Let the file go.  Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self) -> list[Market]:
        """Give what is known now, by symbol in the order in which they first came."""
        header = self._fetch(0, at.SIZE_HEADER)
        count = min(int.from_bytes(header[at.OFF_HEADER_MARKET_COUNT :][:4], "little"), at.MARKETS)
        table = self._fetch(self._offset, count * at.SIZE_MARKET)
        found = []
        for words in _MARKET.iter_unpack(table):
            symbol = self._name(header, words[0])
            price, volume = (struct.unpack("<d", _WORD.pack(word))[0] for word in words[5:7])
            found.append(Market(symbol, words[2], words[3], words[4], price, volume))
        return found

    def _name(self, header: bytes, number: int) -> str:
        """Give a name by its id, "" for one that is nowhere that it can be."""
        known = self._names.get(number)
        if known is not None:
            return known

        def word(offset: int, size: int) -> int:
            return int.from_bytes(header[offset : offset + size], "little")

        if number >= min(word(at.OFF_HEADER_NAME_COUNT, 4), word(at.OFF_HEADER_MAX_NAMES, 4)):
            return ""
        entry = os.pread(self._fd, at.SIZE_NAME, word(at.OFF_HEADER_NAMES_OFFSET, 8) + number * at.SIZE_NAME)
        if len(entry) != at.SIZE_NAME:
            return ""
        start, size = _NAME.unpack(entry)
        if size > at.NAME_BYTES or start + size > word(at.OFF_HEADER_TEXT_BYTES, 8):
            return ""
        text = os.pread(self._fd, size, word(at.OFF_HEADER_TEXT_OFFSET, 8) + start).decode(errors="replace")
        self._names[number] = text
        return text

    def _fetch(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) != size:
            raise SegmentTruncatedError(self._path, "the file ends before its market data do")
        return data
