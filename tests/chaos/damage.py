"""Damages a segment in every way that a random choice finds, and puts it right again."""

from __future__ import annotations

import mmap
import os
import random
import struct
from typing import TYPE_CHECKING

from otel_trading import _layout as at

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = (0, 1, 2, 7, 255, 4_095, 65_535, 1 << 31, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1)


class Damage:
    """A copy of a segment that is damaged and restored, in place.

    ``fd`` is the file; the same random seed does the same damage.
    """

    def __init__(self, original: Path, copy: Path, seed: int) -> None:
        """Copy the segment."""
        copy.write_bytes(original.read_bytes())
        self.fd = os.open(copy, os.O_RDWR)
        self.size = os.fstat(self.fd).st_size
        self.map = mmap.mmap(self.fd, self.size)
        self.random = random.Random(seed)
        self._undo: list[tuple[int, bytes]] = []
        self._hot = self._places()

    def close(self) -> None:
        """Let the file go."""
        self.map.close()
        os.close(self.fd)

    def _places(self) -> list[tuple[int, int]]:
        """Give what readers look at first: the header, the tables' first entries, the first ring's header and slots."""

        def word(offset: int) -> int:
            value: int = struct.unpack_from("<Q", self.map, offset)[0]
            return value

        places = [(0, 1024), (at.PAGE, at.SIZE_CONTROL)]
        for field, size in (
            (at.OFF_HEADER_ACCOUNTS_OFFSET, at.SIZE_ACCOUNTS),
            (at.OFF_HEADER_POLICY_OFFSET, at.SIZE_POLICY),
            (at.OFF_HEADER_READINGS_OFFSET, at.SIZE_READINGS),
            (at.OFF_HEADER_DECISIONS_OFFSET, at.SIZE_DECISION * 4),
            (at.OFF_HEADER_MARKETS_OFFSET, at.SIZE_MARKET * 4),
            (at.OFF_HEADER_LIFE_OFFSET, at.SIZE_LIFE),
            (at.OFF_HEADER_VITALS_OFFSET, at.SIZE_VITAL * 16),
            (at.OFF_HEADER_PULSES_OFFSET, at.SIZE_PULSE * 16),
            (at.OFF_HEADER_PROGRESS_OFFSET, at.SIZE_PROGRESS * 2),
            (at.OFF_HEADER_RINGS_OFFSET, at.SIZE_RING * 2),
            (at.OFF_HEADER_PROBES_OFFSET, at.SIZE_PROBE * 16),
            (at.OFF_HEADER_INSTRUMENTS_OFFSET, at.SIZE_INSTRUMENT * 8),
            (at.OFF_HEADER_NAMES_OFFSET, at.SIZE_NAME * 64),
            (at.OFF_HEADER_TEXT_OFFSET, 2_048),
            (at.OFF_HEADER_ORDERS_OFFSET, at.SIZE_ORDER * 64),
        ):
            places.append((word(field), size))
        rings = word(at.OFF_HEADER_RINGS_OFFSET)
        for field, size in (
            (at.OFF_RING_SLOTS_OFFSET, at.SIZE_SLOT * 64),
            (at.OFF_RING_OPEN_OFFSET, at.SIZE_SLOT * 64),
            (at.OFF_RING_ARENA_OFFSET, 8_192),
            (at.OFF_RING_MARKS_OFFSET, 64),
        ):
            places.append((word(rings + field), size))
        return [(start, min(size, self.size - start)) for start, size in places if 0 <= start < self.size - 8]

    def _write(self, offset: int, data: bytes) -> None:
        data = data[: self.size - offset]
        self._undo.append((offset, self.map[offset : offset + len(data)]))
        self.map[offset : offset + len(data)] = data

    def _somewhere(self) -> int:
        if self.random.random() < 0.8:
            start, size = self.random.choice(self._hot)
            return start + self.random.randrange(max(1, size))
        return self.random.randrange(self.size)

    def _word(self) -> int:
        choice = self.random.random()
        if choice < 0.5:
            return self.random.choice(_WORDS)
        if choice < 0.7:
            return self.random.randrange(self.size + 4_096)
        return self.random.getrandbits(64)

    def once(self) -> None:
        """Do some damage at one place."""
        kind = self.random.randrange(6)
        place = self._somewhere()
        if kind <= 1:
            self._write(place - place % 8, struct.pack("<Q", self._word()))
        elif kind == 2:
            self._write(place - place % 4, struct.pack("<I", self._word() & 0xFFFFFFFF))
        elif kind == 3:
            self._write(place, bytes([self.map[place] ^ 1 << self.random.randrange(8)]))
        elif kind == 4:
            self._write(place, self.random.randbytes(self.random.randrange(1, 64)))
        else:
            other = self._somewhere()
            self._write(place, self.map[other : other + self.random.randrange(1, 256)])

    def some(self) -> None:
        """Do some damage at a few places."""
        for _ in range(1 + min(15, int(self.random.expovariate(0.6)))):
            self.once()

    def truncate(self) -> None:
        """Cut the file off somewhere."""
        os.ftruncate(self.fd, self.random.randrange(self.size))

    def restore(self) -> None:
        """Undo all of it."""
        if os.fstat(self.fd).st_size < self.size:
            raise RuntimeError("a file that was cut off can not be restored")
        while self._undo:
            offset, data = self._undo.pop()
            self.map[offset : offset + len(data)] = data
