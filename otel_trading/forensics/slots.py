"""Which thread recorded a span: asked of the rings themselves, as readers of spans do not tell."""

from __future__ import annotations

import os
import struct

from otel_trading import _layout as at
from otel_trading.segment.files import word
from otel_trading.segment.rings import ring_headers

_MOST_SLOTS = 200_000  # that are looked at, of all rings
_BATCH = 4_096
_SPAN = struct.Struct(f"<{at.OFF_SLOT_SPAN_ID}xQ{at.SIZE_SLOT - at.OFF_SLOT_SPAN_ID - 8}x")


def threads_of(fd: int) -> dict[int, int]:
    """Give {span id: kernel thread id} of the newest finished spans, and of the open ones; some 10 ms a megabyte.

    The file is not believed: what is nowhere in it is left out.
    """
    size = os.fstat(fd).st_size
    found: dict[int, int] = {}
    left = _MOST_SLOTS
    for _, ring in ring_headers(fd):
        thread = word(ring, at.OFF_RING_THREAD_ID, 8)
        for place, capacity in (
            (word(ring, at.OFF_RING_SLOTS_OFFSET, 8), word(ring, at.OFF_RING_CAPACITY, 4)),
            (word(ring, at.OFF_RING_OPEN_OFFSET, 8), word(ring, at.OFF_RING_OPEN_CAPACITY, 4)),
        ):
            taken = min(capacity, max(0, size - place) // at.SIZE_SLOT, left)
            left -= taken
            _collect(fd, place, taken, thread, found)
    found.pop(0, None)
    return found


def _collect(fd: int, place: int, count: int, thread: int, found: dict[int, int]) -> None:
    for first in range(0, count, _BATCH):
        data = os.pread(fd, min(_BATCH, count - first) * at.SIZE_SLOT, place + first * at.SIZE_SLOT)
        whole = len(data) // at.SIZE_SLOT * at.SIZE_SLOT
        found.update(dict.fromkeys((span for (span,) in _SPAN.iter_unpack(data[:whole])), thread))
