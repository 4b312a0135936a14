"""Another process's segment, mapped in order to drain it.

Its file is hostile.  Where its tables lie is checked once, as a reader does it, and taken from the checked copy of the
header; a ring's geometry when the ring is met, and its capacity again whenever that changes.  All else that is read is
masked, or bounded by what was checked, so that no content leads outside the mapping.
"""

from __future__ import annotations

import os
import struct
from _thread import RLock

from otel_trading import _layout as at
from otel_trading._pure import segment_file
from otel_trading._pure.mapped import CONTROL, Piece, SegmentFile, Settings, boot_id
from otel_trading._pure.segment_file import Ring, u32, u64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.cursors import Cursor
    from otel_trading._pure.writer import Writer

_MOST_SLOTS = 1 << 24
_MOST_KIND = 4
_MOST_SHIFT = 24
_MOST_NAME_BYTES = 1 << 26  # of all names together; writers have 1 MiB
_HALF = (1 << 32) - 1
_BOOT = at.OFF_HEADER_BOOT_ID
_CAPACITY = at.OFF_RING_CAPACITY // 8
_RESIZED = at.OFF_RING_RESIZED // 8
_HEAD = at.OFF_RING_HEAD // 8
_BUFFERS_NOW = (CONTROL + at.OFF_CONTROL_BUFFERS_NOW) // 8
_NAME = struct.Struct(at.FORMAT_NAME)
_PROBE = struct.Struct(at.FORMAT_PROBE)
_INSTRUMENT = struct.Struct(at.FORMAT_INSTRUMENT)


def _power_of_two(number: int, most: int) -> bool:
    return 0 < number <= most and not number & (number - 1)


class AdoptedRing:
    """A ring as the drain sees it; it belongs to a thread of the other process."""

    __slots__ = (
        "arena",
        "arena_size",
        "capacity",
        "extents",
        "index",
        "marks_at",
        "mask",
        "open_at",
        "open_capacity",
        "overwritten",
        "piece",
        "ring",
        "slots_at",
        "values_overwritten",
    )

    def __init__(self, file: AdoptedFile, index: int, piece: Piece, header: Ring) -> None:
        """Take a ring whose header was checked against the piece, which is the whole file."""
        first = (file.rings + at.SIZE_RING * index) // 8
        self.index = index
        self.piece = piece
        self.ring = file.words[first : first + at.SIZE_RING // 8]
        self.capacity = header.capacity
        self.mask = header.capacity - 1
        self.slots_at = header.slots
        self.marks_at = u64(header.header, at.OFF_RING_MARKS_OFFSET)
        self.arena = header.arena
        self.arena_size = header.arena_bytes
        self.open_at = header.open
        self.open_capacity = header.open_capacity
        self.extents: list[tuple[Piece, int, int]] = []
        self.overwritten = [0] * at.TIERS
        self.values_overwritten = 0

    @property
    def tables(self) -> list[tuple[Piece, int, int]]:
        """The pieces of its open-span table: where, from which byte on, and how many entries."""
        return [(self.piece, self.open_at, self.open_capacity), *self.extents]

    def refresh(self, cursor: Cursor | None) -> None:
        """Follow the writer, where it has given the ring another number of slots."""
        capacity = self.ring[_CAPACITY] & _HALF
        if capacity == self.capacity:
            return
        size = len(self.piece.map)
        if (
            not _power_of_two(capacity, _MOST_SLOTS)
            or self.slots_at + capacity * at.SIZE_SLOT > size
            or self.marks_at + capacity > size
        ):
            return  # damaged: what was true goes on
        self.capacity, self.mask = capacity, capacity - 1
        if cursor is not None:
            first = min(self.ring[_RESIZED], self.ring[_HEAD])
            cursor.progress.resized(capacity, first)


class _Probe:
    """An entry of the other process's table."""

    __slots__ = ("id", "kind", "leaf", "name", "scope", "sla_ns", "tier")

    def __init__(self, number: int, entry: tuple[int, ...], tables: AdoptedTables) -> None:
        name, tier, leaf, kind, _, sla_ns, scope, _ = entry
        self.id = number
        self.name = tables.name(name)
        self.tier = tier % at.TIERS
        self.leaf = leaf != 0
        self.kind = kind if kind <= _MOST_KIND else 0
        self.sla_ns = sla_ns
        self.scope = tables.name(scope) if scope else ""


class _Instrument:
    """An entry of the other process's table."""

    __slots__ = ("attributes", "description", "id", "kind", "name", "off_cpu", "tier", "unit")

    def __init__(self, number: int, entry: tuple[int, ...], tables: AdoptedTables) -> None:
        name, unit, description, attributes, kind, tier, off_cpu = entry[:7]
        self.id = number
        self.name = tables.name(name)
        self.unit = tables.name(unit) if unit else ""
        self.description = tables.name(description) if description else ""
        self.attributes = tables.name(attributes) if attributes else ""
        self.kind = kind
        self.tier = tier % at.TIERS
        self.off_cpu = off_cpu


class AdoptedTables:
    """The names, probes and instruments of the other process, as far as they have been read."""

    def __init__(self, file: AdoptedFile, header: bytes) -> None:
        self._file = file
        self._names = u64(header, at.OFF_HEADER_NAMES_OFFSET)
        self._text = u64(header, at.OFF_HEADER_TEXT_OFFSET)
        self._text_bytes = u64(header, at.OFF_HEADER_TEXT_BYTES)
        self._most = {
            field: u32(header, most)
            for field, most in (
                (at.OFF_HEADER_NAME_COUNT, at.OFF_HEADER_MAX_NAMES),
                (at.OFF_HEADER_PROBE_COUNT, at.OFF_HEADER_MAX_PROBES),
                (at.OFF_HEADER_INSTRUMENT_COUNT, at.OFF_HEADER_MAX_INSTRUMENTS),
            )
        }
        self._room = min(self._text_bytes, _MOST_NAME_BYTES)  # no two names share bytes, so this holds them all
        self._known: dict[int, str] = {}
        self.probes: list[_Probe] = []
        self.instruments: list[_Instrument] = []
        fields = (at.OFF_HEADER_ATTRIBUTE_LIMIT, at.OFF_HEADER_EVENT_LIMIT, at.OFF_HEADER_LINK_LIMIT)
        self.limits = (u32(header, fields[0]), u32(header, fields[1]), u32(header, fields[2]))

    def count(self, field: int) -> int:
        """Give how many entries a table has now, and no more than it can have."""
        return min(self._file.halves[field // 4], self._most[field])

    def name(self, number: int) -> str:
        """Give the text of an id, "other" for an unknown one."""
        known = self._known.get(number)
        if known is not None:
            return known
        if number >= self.count(at.OFF_HEADER_NAME_COUNT):
            return "other"
        offset, size = _NAME.unpack_from(self._file.map, self._names + number * at.SIZE_NAME)
        if size > min(at.NAME_BYTES, self._room) or offset + size > self._text_bytes:
            return "other"
        start = self._text + offset
        self._room -= size
        text = self._known[number] = self._file.map[start : start + size].decode("utf-8", "replace")
        return text

    def texts(self) -> list[str]:
        """Give all names by id."""
        return [self.name(number) for number in range(self.count(at.OFF_HEADER_NAME_COUNT))]

    def refresh(self) -> None:
        """Take in what has been registered since."""
        file = self._file
        for number in range(len(self.probes), self.count(at.OFF_HEADER_PROBE_COUNT)):
            entry = _PROBE.unpack_from(file.map, file.probes + at.SIZE_PROBE * number)
            self.probes.append(_Probe(number, entry, self))
        for number in range(len(self.instruments), self.count(at.OFF_HEADER_INSTRUMENT_COUNT)):
            entry = _INSTRUMENT.unpack_from(file.map, file.instruments + at.SIZE_INSTRUMENT * number)
            self.instruments.append(_Instrument(number, entry, self))


class AdoptedFile(SegmentFile):
    """The file of another process's segment, with the attributes of one's own."""

    __slots__ = ("_header", "_rings", "drained", "other_boot", "tables")

    def __init__(self, fd: int) -> None:
        """Check and map it; the descriptor is duplicated.

        Raises ValueError, as ``Reader``, for a file that can not be a segment, and OSError.
        """
        checked = segment_file.SegmentFile(fd)
        header = self._header = checked.header
        checked.close()
        size = os.fstat(fd).st_size
        if size % at.PAGE:
            raise ValueError(f"damaged: the file has {size} bytes, which are no whole pages")
        if u64(header, at.OFF_HEADER_CONTROL_OFFSET) != CONTROL:
            raise ValueError("damaged: the control page is not where every segment has it")
        for field, most in (
            (at.OFF_HEADER_MAX_RINGS, at.MAX_RINGS),
            (at.OFF_HEADER_MAX_PROBES, at.MAX_PROBES),
            (at.OFF_HEADER_MAX_INSTRUMENTS, at.MAX_INSTRUMENTS),
        ):
            if u32(header, field) != most:
                raise ValueError("damaged: a table has another size than every segment's has")
        self.fd = os.dup(fd)
        try:
            self._map(size)
        except BaseException:
            os.close(self.fd)
            self.fd = -1
            raise
        for name, field in _OFFSETS:
            setattr(self, name, u64(header, field))
        self.words = self.piece.words
        self.map = self.piece.map
        self.halves = memoryview(self.map).cast("I")
        self.created_ns = u64(header, at.OFF_HEADER_CREATED_NS)
        self.end = size
        here = boot_id()
        self.other_boot = here != (0, 0) and here != (u64(header, _BOOT), u64(header, _BOOT + 8))
        self.extents = 0
        self.size = 0
        self.lock = RLock()
        self._rings: dict[int, AdoptedRing] = {}
        self.drained: list[Writer] = []
        self.tables = AdoptedTables(self, header)
        self.tables.refresh()
        self._find_rings()
        self.settings = self._settings()

    def _map(self, size: int) -> None:
        self.piece = Piece(self.fd, 0, size)

    def _settings(self) -> Settings:
        """Tell what the segment was made with, as far as it shows."""
        shift = min(self.words[_BUFFERS_NOW], _MOST_SHIFT)
        rings = self.drained
        main = rings[0].capacity if rings else 1
        other = rings[1].capacity if len(rings) > 1 else main
        return Settings(
            min(main << shift, _MOST_SLOTS),
            min(other << shift, _MOST_SLOTS),
            self._rings[0].open_capacity if 0 in self._rings else 1,
            rings[0].arena_size if rings else at.PAGE,
            u32(self._header, at.OFF_HEADER_MAX_NAMES),
            u32(self._header, at.OFF_HEADER_MAX_ORDERS),
            (*self.tables.limits, *(at.NO_LIMIT,) * 4),  # seven
        )

    def _find_rings(self) -> None:
        """Take in rings that are new."""
        count = min(self.halves[at.OFF_HEADER_RING_COUNT // 4], u32(self._header, at.OFF_HEADER_MAX_RINGS))
        if count <= len(self._rings):
            return
        size = os.fstat(self.fd).st_size // at.PAGE * at.PAGE
        if size > len(self.piece.map):
            # Rings that are known stay with the mapping that they have: it is of the same file.
            try:
                self._map(size)
            except (OSError, ValueError):
                return
        for index in range(count):
            if index in self._rings:
                continue
            start = self.rings + at.SIZE_RING * index
            header = Ring(self.map[start : start + at.SIZE_RING])
            marks = u64(header.header, at.OFF_RING_MARKS_OFFSET)
            if header.lies_within(size) and marks + header.capacity <= size:
                ring = self._rings[index] = AdoptedRing(self, index, self.piece, header)
                self.drained.append(ring)  # type: ignore[arg-type]  # it has what the drain needs of a writer

    def refresh(self, cursors: dict[int, Cursor]) -> bool:
        """Follow the other process, before a pass; False where the file is not what it was, and can not be read."""
        if self.fd < 0 or os.fstat(self.fd).st_size < len(self.piece.map):
            return False
        self._find_rings()
        for index, ring in self._rings.items():
            ring.refresh(cursors.get(index))
        return True

    def rings_damaged(self) -> int:
        """Tell of how many rings nothing can be read."""
        return min(self.halves[at.OFF_HEADER_RING_COUNT // 4], at.MAX_RINGS) - len(self._rings)

    def inherited(self) -> list[AdoptedRing]:
        """Give the rings, with all pieces of their open-span tables."""
        words, size = self.words, len(self.piece.map)
        for number in range(min(self.halves[at.OFF_HEADER_EXTENT_COUNT // 4], at.MAX_EXTENTS)):
            offset = words[at.OFF_HEADER_EXTENT_OFFSET // 8 + number]
            ring = self._rings.get(self.map[at.OFF_HEADER_EXTENT_RING + number])
            if ring is not None and not offset % 8 and offset + at.EXTENT_ENTRIES * at.SIZE_SLOT <= size:
                ring.extents.append((self.piece, offset, at.EXTENT_ENTRIES))
        return list(self._rings.values())

    def append(self, size: int) -> tuple[Piece, int] | None:  # noqa: ARG002
        """Add nothing to a file of another process, even where it is inherited."""
        return None

    def close(self) -> None:
        """Let the file go."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_OFFSETS = (
    ("accounts", at.OFF_HEADER_ACCOUNTS_OFFSET),
    ("policy", at.OFF_HEADER_POLICY_OFFSET),
    ("readings", at.OFF_HEADER_READINGS_OFFSET),
    ("decisions", at.OFF_HEADER_DECISIONS_OFFSET),
    ("markets", at.OFF_HEADER_MARKETS_OFFSET),
    ("life", at.OFF_HEADER_LIFE_OFFSET),
    ("vitals", at.OFF_HEADER_VITALS_OFFSET),
    ("pulses", at.OFF_HEADER_PULSES_OFFSET),
    ("progress", at.OFF_HEADER_PROGRESS_OFFSET),
    ("rings", at.OFF_HEADER_RINGS_OFFSET),
    ("probes", at.OFF_HEADER_PROBES_OFFSET),
    ("instruments", at.OFF_HEADER_INSTRUMENTS_OFFSET),
    ("names", at.OFF_HEADER_NAMES_OFFSET),
    ("text", at.OFF_HEADER_TEXT_OFFSET),
    ("orders", at.OFF_HEADER_ORDERS_OFFSET),
)
