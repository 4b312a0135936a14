"""A ring's number of slots, changed between two records: none is lost, and the pages beyond go back to the system."""

from __future__ import annotations

import mmap

from otel_trading import _layout as at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.writer import Writer

LEAST = 64
"""Slots that every ring keeps, where it had as many."""
_TAIL = at.OFF_RING_TAIL // 8
_RESIZED = at.OFF_RING_RESIZED // 8
_CAPACITY = at.OFF_RING_CAPACITY // 8
_REMOVE = getattr(mmap, "MADV_REMOVE", None)


def slots_left(slots: int, shift: int) -> int:
    """Give how many slots a ring has that was made with so many."""
    return max(slots >> shift, min(slots, LEAST))


def resize(writer: Writer, slots: int, done: int, lossy: int = 0) -> bool:
    """Give a ring another number of slots, a power of two; what waits in it goes to its new places.

    So does what was decided from ``done`` on and is not settled yet, where there is room.  False where more waits than
    there is room for; where ``lossy``, 1, the oldest are lost then.  The caller holds the drain's lock, and
    has seen to it that the space is there.
    """
    memory, ring, base = writer.piece.map, writer.ring, writer.slots_at
    old, most, mask = writer.capacity, min(writer.capacity, slots), slots - 1
    capacity = slots | ring[_CAPACITY] >> 32 << 32
    each = at.SIZE_SLOT
    # From here on nothing is called, and the good case does not jump: see writer.py.  Nobody comes in between, and
    # who is in the middle of a record finds another `at` than his own, and begins again.
    writer.at = None
    head = writer.head
    tail = ring[_TAIL]
    tail = tail + (head - most - tail) * (head - most > tail) * lossy
    first = done + (head - most - done) * (head - most > done)
    first = first + (tail - first) * (first > tail)
    first = first + (head - old - first) * (head - old > first)  # what is older has been overwritten
    count = head - first
    if count > most:
        return False
    place = first & old - 1
    part = count + (old - place - count) * (old - place < count)
    waiting = memory[base + each * place : base + each * (place + part)] + memory[base : base + each * (count - part)]
    place = first & mask
    part = count + (slots - place - count) * (slots - place < count)
    memory[base + each * place : base + each * (place + part)] = waiting[: each * part]
    memory[base : base + each * (count - part)] = waiting[each * part :]
    writer.mask = mask
    writer.capacity = slots
    ring[_RESIZED] = first  # readers: what is older is not there any more
    ring[_CAPACITY] = capacity
    return True


def pages_between(writer: Writer, few: int, many: int) -> tuple[int, int]:
    """Give where in the ring's mapping the pages begin that only the larger number of slots needs, and their bytes."""
    size = mmap.PAGESIZE
    start = -(-(writer.slots_at + at.SIZE_SLOT * few) // size) * size
    end = -(-(writer.slots_at + at.SIZE_SLOT * many) // at.PAGE) * at.PAGE // size * size
    return start, max(0, end - start)


def give_back(writer: Writer, few: int, many: int) -> int:
    """Let the pages go that only the larger number of slots needs; how many bytes, 0 where the platform can not."""
    start, size = pages_between(writer, few, many)
    if not size or _REMOVE is None:
        return 0
    try:
        writer.piece.map.madvise(_REMOVE, start, size)
    except (OSError, ValueError):  # a file system without holes
        return 0
    return size
