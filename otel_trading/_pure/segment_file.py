"""The file of a segment as a reader sees it: fetched with pread, believed only where it fits the file's size."""

from __future__ import annotations

import os
import struct

from otel_trading import _layout as at

WORD = (1 << 64) - 1
_MOST_NAMES = 65_535
_MOST_ORDERS = 1 << 20
_MOST_NAME_BYTES = 1 << 26  # of all names together; writers have 1 MiB
_MOST_SLOTS = 1 << 24
_MOST_OPEN = 1 << 20
_MOST_ARENA = 1 << 30
_MOST_BLOCK_BYTES = 1 << 28
LAST_TIME = (1 << 63) - 1  # ns since 1970
_SLOWEST, _FASTEST = 1e6, 1e-6  # ns a tick: no clock lies outside
_TRIES = 16

_NAME = struct.Struct(at.FORMAT_NAME)
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_F64 = struct.Struct("<d")

_TABLES = (
    # name, offset, number of entries (a field, or the number itself), bytes of one, most entries
    ("control page", at.OFF_HEADER_CONTROL_OFFSET, None, at.SIZE_CONTROL, 1),
    ("accounts", at.OFF_HEADER_ACCOUNTS_OFFSET, None, at.SIZE_ACCOUNTS, 1),
    ("policy", at.OFF_HEADER_POLICY_OFFSET, None, at.SIZE_POLICY, 1),
    ("readings", at.OFF_HEADER_READINGS_OFFSET, None, at.SIZE_READINGS, 1),
    ("decisions", at.OFF_HEADER_DECISIONS_OFFSET, None, at.SIZE_DECISION * at.DECISIONS, 1),
    ("market data", at.OFF_HEADER_MARKETS_OFFSET, None, at.SIZE_MARKET * at.MARKETS, 1),
    ("life page", at.OFF_HEADER_LIFE_OFFSET, None, at.SIZE_LIFE, 1),
    ("critical events", at.OFF_HEADER_VITALS_OFFSET, None, at.SIZE_VITAL * at.VITALS, 1),
    ("pulses", at.OFF_HEADER_PULSES_OFFSET, None, at.SIZE_PULSE * at.PULSES, 1),
    ("progress", at.OFF_HEADER_PROGRESS_OFFSET, at.OFF_HEADER_MAX_RINGS, at.SIZE_PROGRESS, at.MAX_RINGS),
    ("ring headers", at.OFF_HEADER_RINGS_OFFSET, at.OFF_HEADER_MAX_RINGS, at.SIZE_RING, at.MAX_RINGS),
    ("probes", at.OFF_HEADER_PROBES_OFFSET, at.OFF_HEADER_MAX_PROBES, at.SIZE_PROBE, at.MAX_PROBES),
    (
        "instruments",
        at.OFF_HEADER_INSTRUMENTS_OFFSET,
        at.OFF_HEADER_MAX_INSTRUMENTS,
        at.SIZE_INSTRUMENT,
        at.MAX_INSTRUMENTS,
    ),
    ("names", at.OFF_HEADER_NAMES_OFFSET, at.OFF_HEADER_MAX_NAMES, at.SIZE_NAME, _MOST_NAMES),
    ("orders", at.OFF_HEADER_ORDERS_OFFSET, at.OFF_HEADER_MAX_ORDERS, at.SIZE_ORDER, _MOST_ORDERS),
)


def u32(data: bytes, offset: int) -> int:
    """Give the 4 byte word at ``offset``."""
    value: int = _U32.unpack_from(data, offset)[0]
    return value


def u64(data: bytes, offset: int) -> int:
    """Give the 8 byte word at ``offset``."""
    value: int = _U64.unpack_from(data, offset)[0]
    return value


def signed(word: int) -> int:
    """Give an 8 byte word's value in two's complement."""
    return word - (1 << 64) if word >> 63 else word


def _power_of_two(number: int, most: int) -> bool:
    return 0 < number <= most and not number & (number - 1)


class Ring:
    """A ring's header, as it was at one moment."""

    def __init__(self, header: bytes) -> None:
        self.header = header
        self.slots = u64(header, at.OFF_RING_SLOTS_OFFSET)
        self.open = u64(header, at.OFF_RING_OPEN_OFFSET)
        self.arena = u64(header, at.OFF_RING_ARENA_OFFSET)
        self.arena_bytes = u64(header, at.OFF_RING_ARENA_BYTES)
        self.capacity = u32(header, at.OFF_RING_CAPACITY)
        self.open_capacity = u32(header, at.OFF_RING_OPEN_CAPACITY)
        self.head = u64(header, at.OFF_RING_HEAD)
        self.resized = u64(header, at.OFF_RING_RESIZED)
        # Bytes of arena blocks that one call reads, however often a damaged file counts the same ones; a good arena may
        # come round several times meanwhile.
        self.room = max(self.arena_bytes, min(16 * self.arena_bytes, _MOST_BLOCK_BYTES))

    def lies_within(self, size: int) -> bool:
        """Tell whether all of the ring is within ``size`` bytes, and of a size that a ring can have."""
        return (
            _power_of_two(self.capacity, _MOST_SLOTS)
            and self.open_capacity <= _MOST_OPEN
            and _power_of_two(self.arena_bytes, _MOST_ARENA)
            and not (self.slots | self.open | self.arena) % 8
            and self.slots + self.capacity * at.SIZE_SLOT <= size
            and self.open + self.open_capacity * at.SIZE_SLOT <= size
            and self.arena + self.arena_bytes <= size
        )

    def state(self) -> dict[str, int]:
        """Give what ``info`` tells of a ring."""
        tail = u64(self.header, at.OFF_RING_TAIL)
        return {
            "thread_id": u64(self.header, at.OFF_RING_THREAD_ID),
            "capacity": self.capacity,
            "head": self.head,
            "tail": tail,
            "backlog": max(self.head - tail, 0),
            "backlog_max": u64(self.header, at.OFF_RING_BACKLOG_MAX),
        }


class SegmentFile:
    """A segment's file, its header checked.

    The file descriptor is duplicated.  A file that can not be a segment gives ValueError, whose first word is its kind.
    """

    def __init__(self, fd: int, /) -> None:
        self._fd = -1
        self._fd = os.dup(fd)
        self._size = 0
        self._names: dict[int, str] = {}
        self._anchor_ticks = 0
        self._anchor_unix_ns = 0
        self._ns_per_tick = 1.0
        try:
            self.header = self._checked_header()
        except BaseException:
            self.close()
            raise
        self._most_probes = u32(self.header, at.OFF_HEADER_MAX_PROBES)
        self._most_rings = u32(self.header, at.OFF_HEADER_MAX_RINGS)
        self._most_names = u32(self.header, at.OFF_HEADER_MAX_NAMES)
        self.control = u64(self.header, at.OFF_HEADER_CONTROL_OFFSET)
        self.accounts = u64(self.header, at.OFF_HEADER_ACCOUNTS_OFFSET)
        self.orders = u64(self.header, at.OFF_HEADER_ORDERS_OFFSET)
        self.most_orders = u32(self.header, at.OFF_HEADER_MAX_ORDERS)
        self.life = u64(self.header, at.OFF_HEADER_LIFE_OFFSET)
        self.vitals = u64(self.header, at.OFF_HEADER_VITALS_OFFSET)
        self.pulses = u64(self.header, at.OFF_HEADER_PULSES_OFFSET)
        self.progress = u64(self.header, at.OFF_HEADER_PROGRESS_OFFSET)
        self.markets = u64(self.header, at.OFF_HEADER_MARKETS_OFFSET)
        self.instruments = u64(self.header, at.OFF_HEADER_INSTRUMENTS_OFFSET)
        self._most_instruments = u32(self.header, at.OFF_HEADER_MAX_INSTRUMENTS)
        self._ring_headers = u64(self.header, at.OFF_HEADER_RINGS_OFFSET)
        self.probe_table = u64(self.header, at.OFF_HEADER_PROBES_OFFSET)
        self._name_table = u64(self.header, at.OFF_HEADER_NAMES_OFFSET)
        self._text = u64(self.header, at.OFF_HEADER_TEXT_OFFSET)
        self._text_bytes = u64(self.header, at.OFF_HEADER_TEXT_BYTES)
        self._name_room = min(self._text_bytes, _MOST_NAME_BYTES)  # no two names share bytes, so this holds them all
        self.refresh()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go; further calls find nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # ---- fetching ----

    def fetch(self, offset: int, size: int) -> bytes | None:
        """Give exactly these bytes of the file, or None where it does not have them."""
        if self._fd < 0 or offset + size > self._size:
            return None
        try:
            data = os.pread(self._fd, size, offset)
        except OSError:
            return None
        return data if len(data) == size else None

    def fetch_word(self, offset: int) -> int | None:
        """Give the 8 byte word there, or None where the file does not have it."""
        data = self.fetch(offset, 8)
        return None if data is None else u64(data, 0)

    def _measure(self) -> None:
        self._size = os.fstat(self._fd).st_size if self._fd >= 0 else 0

    def _checked_header(self) -> bytes:
        # The header comes before the size: a file that grows in between is not taken for a truncated one.
        try:
            header = os.pread(self._fd, at.SIZE_HEADER, 0)
        except OSError:
            header = b""  # a pipe, a directory
        self._measure()
        if len(header) < _U64.size or u64(header, 0) != at.MAGIC:
            raise ValueError("foreign: not a segment of otel-trading")
        if len(header) < at.SIZE_HEADER:
            raise ValueError("truncated: the file ends within the header")
        version = u32(header, at.OFF_HEADER_VERSION)
        if version == 0:
            raise ValueError("damaged: the segment was never published; its process ended while it made it")
        if version != at.VERSION:
            raise ValueError(f"version: the segment has format {version}, this release reads format {at.VERSION}")
        if u32(header, at.OFF_HEADER_HEADER_BYTES) != at.SIZE_HEADER:
            raise ValueError("damaged: the header has another size than its version says")
        if u32(header, at.OFF_HEADER_RESOURCE_BYTES) > at.RESOURCE_BYTES:
            raise ValueError("damaged: the resource is longer than the format allows")
        expected = u64(header, at.OFF_HEADER_FILE_BYTES)
        if expected > self._size:
            raise ValueError(f"truncated: the file has {self._size} of {expected} bytes")
        self._check_tables(header)
        return header

    def _check_tables(self, header: bytes) -> None:
        for name, offset_field, count_field, each, most in _TABLES:
            count = 1 if count_field is None else u32(header, count_field)
            if count > most or (count_field == at.OFF_HEADER_MAX_ORDERS and count & (count - 1)):
                raise ValueError(f"damaged: the table of {name} is larger than the format allows")
            if count:
                self._check_region(name, u64(header, offset_field), count * each)
        self._check_region("texts", u64(header, at.OFF_HEADER_TEXT_OFFSET), u64(header, at.OFF_HEADER_TEXT_BYTES))

    def _check_region(self, name: str, offset: int, size: int) -> None:
        if offset % 8 or offset < at.PAGE or offset + size > self._size:
            raise ValueError(f"truncated: the {name} lie outside the file ({self._size} bytes)")

    def refresh(self) -> None:
        """Take the counts that grow, and the calibration; the geometry stays what was checked."""
        self._measure()
        self.header = self.fetch(0, at.SIZE_HEADER) or self.header
        for _ in range(_TRIES):
            before = self.fetch_word(self.control + at.OFF_CONTROL_CALIBRATION)
            control = self.fetch(self.control, at.SIZE_CONTROL)
            after = self.fetch_word(self.control + at.OFF_CONTROL_CALIBRATION)
            if control is None:
                return
            self._calibrate(control)  # after the last try too: a process may have died between the two stores
            if before == after and before is not None and not before % 2:
                return

    def _calibrate(self, control: bytes) -> None:
        rate: float = _F64.unpack_from(control, at.OFF_CONTROL_NS_PER_TICK)[0]
        self._ns_per_tick = rate if _FASTEST < rate < _SLOWEST else 1.0  # NaN is not in between either
        self._anchor_ticks = u64(control, at.OFF_CONTROL_ANCHOR_TICKS)
        self._anchor_unix_ns = u64(control, at.OFF_CONTROL_ANCHOR_UNIX_NS)

    def unix_ns(self, ticks: int) -> int:
        """Give the Unix time of a tick in ns, from 0 to 2**63 - 1 whatever the file says."""
        difference = signed((ticks - self._anchor_ticks) & WORD)
        # a float has 53 bits: enough for the 100 days around the anchor, to the nanosecond
        moment = self._anchor_unix_ns + int(difference * self._ns_per_tick)
        return min(max(moment, 0), LAST_TIME)

    def ring_count(self) -> int:
        """Give how many rings there were at the last refresh."""
        return min(u32(self.header, at.OFF_HEADER_RING_COUNT), self._most_rings)

    def probe_count(self) -> int:
        """Give how many probes there were at the last refresh."""
        return min(u32(self.header, at.OFF_HEADER_PROBE_COUNT), self._most_probes)

    def instrument_count(self) -> int:
        """Give how many instruments there were at the last refresh."""
        return min(u32(self.header, at.OFF_HEADER_INSTRUMENT_COUNT), self._most_instruments)

    def market_count(self) -> int:
        """Give of how many symbols there was market data at the last refresh."""
        return min(u32(self.header, at.OFF_HEADER_MARKET_COUNT), at.MARKETS)

    def has_probe(self, number: int) -> bool:
        """Tell whether there is such a probe, now."""
        return number < self._most_probes and self._published(at.OFF_HEADER_PROBE_COUNT, number)

    def _published(self, count_field: int, number: int) -> bool:
        if number < u32(self.header, count_field):
            return True
        # a record may be younger than the last refresh, but not than the entry it speaks of
        fresh = self.fetch(count_field, 4)
        return fresh is not None and number < u32(fresh, 0)

    def ring(self, index: int) -> Ring | None:
        """Give a ring's header as it is now, or None where it can not be one."""
        header = self.fetch(self._ring_headers + index * at.SIZE_RING, at.SIZE_RING)
        if header is None:
            return None
        ring = Ring(header)
        return ring if ring.lies_within(self._size) else None

    def ring_word(self, index: int, field: int) -> int | None:
        """Give one word of a ring's header as it is now."""
        return self.fetch_word(self._ring_headers + index * at.SIZE_RING + field)

    def name(self, number: int) -> str:
        """Give a text of the name table, "other" where there is none."""
        known = self._names.get(number)
        if known is not None:
            return known
        if number >= self._most_names or not self._published(at.OFF_HEADER_NAME_COUNT, number):
            return "other"
        entry = self.fetch(self._name_table + number * at.SIZE_NAME, at.SIZE_NAME)
        if entry is None:
            return "other"
        offset, size = _NAME.unpack(entry)
        if size > min(at.NAME_BYTES, self._name_room) or offset + size > self._text_bytes:
            return "other"
        text = self.fetch(self._text + offset, size)
        if text is None:
            return "other"
        self._name_room -= size
        name = self._names[number] = text.decode("utf-8", "replace")
        return name
