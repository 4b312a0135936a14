"""Whether anything is left in a segment for a drain, as its marks tell."""

from __future__ import annotations

import struct

from otel_trading import _layout as at
from otel_trading._pure.segment_file import WORD, u64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.segment_file import Ring, SegmentFile

_SLOT = struct.Struct(at.FORMAT_SLOT)
_BATCH = 256  # slots fetched at once: 32 KiB
_STATE = 8  # where `state` is in an unpacked slot
_LAPS = 1 << (8 - at.MARK_BITS)
_MARK = (1 << at.MARK_BITS) - 1
_UNSETTLED = (at.MARK_NONE, at.MARK_OFFERED)


def drained(file: SegmentFile) -> bool:
    """Tell whether somebody drains it, as far as it says itself."""
    return bool(file.fetch_word(file.control + at.OFF_CONTROL_DRAINED_BY))


def rings(file: SegmentFile) -> bool:
    """Tell whether no ring holds a span without a mark; a ring whose header can not be right holds none."""
    found = ((index, file.ring(index)) for index in range(file.ring_count()))
    return all(_ring(file, index, ring) for index, ring in found if ring is not None)


def _ring(file: SegmentFile, index: int, ring: Ring) -> bool:
    marks = u64(ring.header, at.OFF_RING_MARKS_OFFSET)
    progress = file.fetch(file.progress + index * at.SIZE_PROGRESS, at.SIZE_PROGRESS)
    if progress is None:
        return False
    side = u64(progress, at.OFF_PROGRESS_SIDE) & 1
    oldest = max(ring.head - ring.capacity, ring.resized, 0)
    n = max(u64(progress, at.OFF_PROGRESS_DONE + 8 * side), oldest)
    while n < ring.head:
        place = n % ring.capacity
        count = min(_BATCH, ring.head - n, ring.capacity - place)
        slots = file.fetch(ring.slots + place * at.SIZE_SLOT, count * at.SIZE_SLOT)
        marked = file.fetch(marks + place, count)
        if slots is None or marked is None:
            return False
        lap = n // ring.capacity % _LAPS
        for number, slot in enumerate(_SLOT.iter_unpack(slots)):
            if slot[0] != (2 * (n + number) + 2) & WORD:
                return False
            mark = marked[number]
            is_marked = mark >> at.MARK_BITS == lap and mark & _MARK not in _UNSETTLED
            if slot[_STATE] != at.SLOT_VALUE and not is_marked:
                return False
        n += count
    return True
