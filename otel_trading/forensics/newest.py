"""A copy of a segment in memory in which the rings begin late: so that its newest spans can be read without all others.

A reader gives the oldest record first, and begins where a ring says that it was made anew (``ring.resized``).  In the
copy each ring says so of the place from which on its records are wanted.
"""

from __future__ import annotations

import os

from otel_trading import _layout as at
from otel_trading.segment.files import word
from otel_trading.segment.rings import ring_headers

_LARGEST = 256 << 20  # bytes of a segment that is copied
_FEWEST = 8_192  # records; fewer are read as they are
_CHUNK = 1 << 20


def late_copy(fd: int, records: int) -> int | None:
    """Copy a segment whose rings hold many more than ``records`` records each; gives a file descriptor of the copy.

    None where that is not worth it, or can not be.  Takes some 0.3 ms a megabyte.
    """
    size = os.fstat(fd).st_size
    if size > _LARGEST or not hasattr(os, "memfd_create"):
        return None
    begins = _begins(fd, records)
    if not begins:
        return None
    copy = os.memfd_create("otel-trading-newest", os.MFD_CLOEXEC)
    try:
        offset = 0
        while offset < size:
            chunk = os.pread(fd, _CHUNK, offset)
            if not chunk:
                break
            os.pwrite(copy, chunk, offset)
            offset += len(chunk)
        for place, first in begins.items():
            os.pwrite(copy, first.to_bytes(8, "little"), place)
    except OSError:  # no memory for it
        os.close(copy)
        return None
    return copy


def _begins(fd: int, records: int) -> dict[int, int]:
    """Give {place in the file: number of the first record that is wanted} of the rings that hold many."""
    found = {}
    for offset, ring in ring_headers(fd):
        head, capacity = word(ring, at.OFF_RING_HEAD, 8), word(ring, at.OFF_RING_CAPACITY, 4)
        first = max(head - records, word(ring, at.OFF_RING_RESIZED, 8))
        if min(head, capacity) > max(_FEWEST, 2 * records) and first <= head:
            found[offset + at.OFF_RING_RESIZED] = first
    return found
