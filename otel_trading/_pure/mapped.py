"""The segment's file in its own process: laid out, reserved, mapped.

Every store that a reader may meet is one aligned word through a memoryview of 8 or 4 byte items.  Their order is the
program's on x86-64; this backend has no barriers, so on machines with a weaker order a reader that races a writer may
drop a record that a native writer would have shown whole.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from _thread import RLock
from itertools import count

from otel_trading import _layout as at

CONTROL = at.PAGE
"""Where the control page is: right after the header."""
_TEXT_BYTES = 1 << 20
_MOST_SLOTS = 1 << 24
_MOST_OPEN = 1 << 20
_MOST_ARENA = 1 << 30
_LEAST_NAMES = 16
_MOST_NAMES = 65_535
_BACKEND = 2  # native is 1
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14, which the mmap module does not name
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV)
_ZEROS = bytes(65_536)
_generations = count(1 << 20, 1 << 20)


class Settings:
    """What ``open`` was asked for."""

    __slots__ = ("arena_bytes", "limits", "main_slots", "max_names", "max_orders", "open_spans", "thread_slots")

    def __init__(
        self,
        main_slots: int,
        thread_slots: int,
        open_spans: int,
        arena_bytes: int,
        max_names: int,
        max_orders: int,
        limits: tuple[int, int, int, int, int, int, int],
    ) -> None:
        self.main_slots = main_slots
        self.thread_slots = thread_slots
        self.open_spans = open_spans
        self.arena_bytes = arena_bytes
        self.max_names = max_names
        self.max_orders = max_orders
        self.limits = limits

    def are_possible(self) -> bool:
        """Tell whether a segment can be like that."""
        return (
            _power_of_two(self.main_slots, 1, _MOST_SLOTS)
            and _power_of_two(self.thread_slots, 1, _MOST_SLOTS)
            and _power_of_two(self.arena_bytes, at.PAGE, _MOST_ARENA)
            and 1 <= self.open_spans <= _MOST_OPEN
            and _LEAST_NAMES <= self.max_names <= _MOST_NAMES
        )


class Geometry:
    """The size of a ring's parts; they lie in the order open-span table, arena, slots, marks."""

    __slots__ = ("arena_bytes", "arena_offset", "bytes", "marks_offset", "open_spans", "slots", "slots_offset")

    def __init__(self, slots: int, open_spans: int, arena_bytes: int) -> None:
        self.slots = slots
        self.open_spans = open_spans
        self.arena_bytes = arena_bytes
        self.arena_offset = _pages(open_spans * at.SIZE_SLOT)
        self.slots_offset = self.arena_offset + _pages(arena_bytes)
        self.marks_offset = self.slots_offset + _pages(slots * at.SIZE_SLOT)
        self.bytes = self.marks_offset + _pages(slots)


def main_geometry(settings: Settings) -> Geometry:
    """Give the main thread's ring."""
    return Geometry(settings.main_slots, settings.open_spans, settings.arena_bytes)


def thread_geometry(settings: Settings) -> Geometry:
    """Give any other thread's ring."""
    return Geometry(
        settings.thread_slots, max(64, settings.open_spans // 8), max(4 * at.PAGE, settings.arena_bytes // 8)
    )


class Piece:
    """A mapped piece of the file; ``start`` is the file's offset at which it begins."""

    __slots__ = ("map", "start", "words")

    def __init__(self, fd: int, offset: int, size: int) -> None:
        """Map ``size`` bytes from ``offset``, which are there."""
        self.start = offset - offset % mmap.ALLOCATIONGRANULARITY  # a page of the machine may be larger than ours
        self.map = mmap.mmap(fd, offset + size - self.start, offset=self.start)
        self.words = memoryview(self.map).cast("Q")

    def populate(self, offset: int, size: int) -> None:
        """Have the pages in memory now, so that the first records do not pay for faults; best effort."""
        start = offset - self.start
        start -= start % mmap.PAGESIZE
        try:
            self.map.madvise(_POPULATE_WRITE, start, size)
        except (OSError, ValueError, AttributeError):  # an older kernel, or none of Linux
            return


class SegmentFile:
    """The file of this process's segment."""

    __slots__ = (
        "accounts",
        "created_ns",
        "decisions",
        "end",
        "extents",
        "fd",
        "halves",
        "instruments",
        "life",
        "lock",
        "map",
        "markets",
        "names",
        "orders",
        "piece",
        "policy",
        "probes",
        "progress",
        "pulses",
        "readings",
        "rings",
        "settings",
        "size",
        "text",
        "vitals",
        "words",
    )

    other_boot = False
    """It is of a time before the machine was started anew: its monotonic clock was another one."""

    def __init__(self, fd: int, resource: bytes, settings: Settings) -> None:
        """Lay everything out but the rings' headers, unpublished.  Raises OSError with nothing left open."""
        if not settings.are_possible() or len(resource) > at.RESOURCE_BYTES:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.settings = settings
        place = _Places()
        place.take(at.SIZE_CONTROL)
        self.accounts = place.take(at.SIZE_ACCOUNTS)
        self.policy = place.take(at.SIZE_POLICY)
        self.readings = place.take(at.SIZE_READINGS)
        self.decisions = place.take(at.SIZE_DECISION * at.DECISIONS)
        self.markets = place.take(at.SIZE_MARKET * at.MARKETS)
        self.life = place.take(at.SIZE_LIFE)
        self.vitals = place.take(at.SIZE_VITAL * at.VITALS)
        self.pulses = place.take(at.SIZE_PULSE * at.PULSES)
        self.progress = place.take(at.SIZE_PROGRESS * at.MAX_RINGS)
        self.rings = place.take(at.SIZE_RING * at.MAX_RINGS)
        self.probes = place.take(at.SIZE_PROBE * at.MAX_PROBES)
        self.instruments = place.take(at.SIZE_INSTRUMENT * at.MAX_INSTRUMENTS)
        self.names = place.take(at.SIZE_NAME * settings.max_names)
        self.text = place.take(_TEXT_BYTES)
        self.orders = place.take(at.SIZE_ORDER * settings.max_orders)
        self.size = place.offset
        self.fd = os.dup(fd)
        try:
            reserve(self.fd, 0, self.size + main_geometry(settings).bytes)
            self.piece = Piece(self.fd, 0, self.size + main_geometry(settings).bytes)
        except BaseException:
            os.close(self.fd)
            raise
        self.map = self.piece.map
        self.words = self.piece.words
        self.halves = memoryview(self.map).cast("I")
        self.created_ns = time.time_ns()
        self.end = self.size + main_geometry(settings).bytes
        self.extents = 0
        self.lock = RLock()
        self._write_header(resource)

    def _write_header(self, resource: bytes) -> None:
        words, halves = self.words, self.halves
        words[at.OFF_HEADER_MAGIC // 8] = at.MAGIC
        halves[at.OFF_HEADER_HEADER_BYTES // 4] = at.SIZE_HEADER
        words[at.OFF_HEADER_BOOT_ID // 8], words[at.OFF_HEADER_BOOT_ID // 8 + 1] = boot_id()
        words[at.OFF_HEADER_PROCESS_START // 8] = _process_start()
        words[at.OFF_HEADER_CREATED_NS // 8] = self.created_ns
        halves[at.OFF_HEADER_PID // 4] = os.getpid()
        halves[at.OFF_HEADER_UID // 4] = os.getuid()
        halves[at.OFF_HEADER_CLOCK // 4] = at.CLOCK_MONOTONIC_NS
        halves[at.OFF_HEADER_BACKEND // 4] = _BACKEND
        words[at.OFF_HEADER_CONTROL_OFFSET // 8] = CONTROL
        words[at.OFF_HEADER_ACCOUNTS_OFFSET // 8] = self.accounts
        words[at.OFF_HEADER_POLICY_OFFSET // 8] = self.policy
        words[at.OFF_HEADER_READINGS_OFFSET // 8] = self.readings
        words[at.OFF_HEADER_DECISIONS_OFFSET // 8] = self.decisions
        words[at.OFF_HEADER_MARKETS_OFFSET // 8] = self.markets
        words[at.OFF_HEADER_LIFE_OFFSET // 8] = self.life
        words[at.OFF_HEADER_VITALS_OFFSET // 8] = self.vitals
        words[at.OFF_HEADER_PULSES_OFFSET // 8] = self.pulses
        words[at.OFF_HEADER_PROGRESS_OFFSET // 8] = self.progress
        words[at.OFF_HEADER_RINGS_OFFSET // 8] = self.rings
        words[at.OFF_HEADER_PROBES_OFFSET // 8] = self.probes
        words[at.OFF_HEADER_INSTRUMENTS_OFFSET // 8] = self.instruments
        words[at.OFF_HEADER_NAMES_OFFSET // 8] = self.names
        words[at.OFF_HEADER_TEXT_OFFSET // 8] = self.text
        words[at.OFF_HEADER_TEXT_BYTES // 8] = _TEXT_BYTES
        halves[at.OFF_HEADER_MAX_RINGS // 4] = at.MAX_RINGS
        halves[at.OFF_HEADER_MAX_PROBES // 4] = at.MAX_PROBES
        halves[at.OFF_HEADER_MAX_INSTRUMENTS // 4] = at.MAX_INSTRUMENTS
        halves[at.OFF_HEADER_MAX_NAMES // 4] = self.settings.max_names
        halves[at.OFF_HEADER_MAX_ORDERS // 4] = self.settings.max_orders
        words[at.OFF_HEADER_ORDERS_OFFSET // 8] = self.orders
        limits = self.settings.limits
        halves[at.OFF_HEADER_ATTRIBUTE_LIMIT // 4] = limits[0]
        halves[at.OFF_HEADER_EVENT_LIMIT // 4] = limits[1]
        halves[at.OFF_HEADER_LINK_LIMIT // 4] = limits[2]
        halves[at.OFF_HEADER_RESOURCE_BYTES // 4] = len(resource)
        self.map[at.OFF_HEADER_RESOURCE : at.OFF_HEADER_RESOURCE + len(resource)] = resource
        for tier in range(at.TIERS):
            for field in (at.OFF_CONTROL_TIER_WORD, at.OFF_CONTROL_ASKED, at.OFF_CONTROL_SHED):
                words[(CONTROL + field) // 8 + tier] = at.TIER_ON
        # each segment begins elsewhere, so that what was learnt in one is not taken for true in the next
        words[(CONTROL + at.OFF_CONTROL_GENERATION) // 8] = next(_generations)
        words[(CONTROL + at.OFF_CONTROL_SWITCHES) // 8] = at.SWITCH_RECORD | at.SWITCH_EXPORT
        words[at.OFF_HEADER_FILE_BYTES // 8] = self.end

    def append(self, size: int) -> tuple[Piece, int] | None:
        """Make the file longer; gives the new piece and its offset, or None where there is no room."""
        with self.lock:
            # A signal's handler may come in between and append too: the place is taken before anything is called.
            offset = self.end
            self.end = offset + size
            try:
                reserve(self.fd, offset, size)
                piece = Piece(self.fd, offset, size)
            except (OSError, ValueError):
                if self.end == offset + size:
                    self.end = offset
                return None
            word = at.OFF_HEADER_FILE_BYTES // 8
            self.words[word] = max(self.words[word], offset + size)
        return piece, offset

    def append_extent(self, ring: int) -> tuple[Piece, int] | None:
        """Have more entries for a ring's open-span table; gives them as ``append`` does."""
        with self.lock:
            number = self.extents
            if number >= at.MAX_EXTENTS:
                return None
            self.extents = number + 1
            appended = self.append(at.EXTENT_ENTRIES * at.SIZE_SLOT)
            if appended is None:
                self.extents = min(self.extents, number)
                return None
            self.words[at.OFF_HEADER_EXTENT_OFFSET // 8 + number] = appended[1]
            self.map[at.OFF_HEADER_EXTENT_RING + number] = ring
            self.halves[at.OFF_HEADER_EXTENT_COUNT // 4] = self.extents
        return appended

    def count(self, offset: int) -> None:
        """Add one to a word of the header."""
        words, index = self.words, offset // 8
        words[index] = words[index] + 1

    def publish(self) -> None:
        """Let readers in."""
        self.words[at.OFF_HEADER_PUBLISHED_NS // 8] = time.time_ns()
        self.halves[at.OFF_HEADER_VERSION // 4] = at.VERSION

    def resident_bytes(self) -> int:
        """Tell how much room the file takes."""
        return os.fstat(self.fd).st_blocks * 512

    def close(self) -> None:
        """Let the file go; the memory goes with the last record that is still being written."""
        os.close(self.fd)
        self.fd = -1


class _Places:
    """Hands out whole pages, after the header's."""

    def __init__(self) -> None:
        self.offset = at.PAGE

    def take(self, size: int) -> int:
        offset = self.offset
        self.offset += _pages(size)
        return offset


def _pages(size: int) -> int:
    return -(-size // at.PAGE) * at.PAGE


def _power_of_two(number: int, least: int, most: int) -> bool:
    return least <= number <= most and not number & (number - 1)


def reserve(fd: int, offset: int, size: int) -> None:
    """Have the space now: a full file system must be an error here, and not a SIGBUS at a record."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, offset, size)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return
    while size > 0:
        done = os.pwrite(fd, _ZEROS[:size], offset)
        if done <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        offset, size = offset + done, size - done


def boot_id() -> tuple[int, int]:
    """Tell since which start of the machine this is; zeros where it can not be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            digits = file.read(64).strip().replace("-", "")
        return int(digits[:16], 16), int(digits[16:32], 16)
    except (OSError, ValueError):
        return 0, 0


def _process_start() -> int:
    """Field 22 of /proc/self/stat, in clock ticks since boot; the command name before it may hold anything."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return int(file.read(4096).rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
