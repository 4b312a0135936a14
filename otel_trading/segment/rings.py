"""The headers of a segment's rings, for who looks at the rings themselves and not at spans."""

from __future__ import annotations

import os

from otel_trading import _layout as at
from otel_trading.segment.files import word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def ring_headers(fd: int) -> Iterator[tuple[int, bytes]]:
    """Give (place in the file, header) of each ring.  It is not believed: what is not whole ends the row."""
    size = os.fstat(fd).st_size
    header = os.pread(fd, at.SIZE_HEADER, 0)
    if len(header) < at.SIZE_HEADER:
        return
    rings = word(header, at.OFF_HEADER_RINGS_OFFSET, 8)
    for number in range(min(word(header, at.OFF_HEADER_RING_COUNT, 4), at.MAX_RINGS)):
        offset = rings + number * at.SIZE_RING
        if offset > size - at.SIZE_RING:
            return
        ring = os.pread(fd, at.SIZE_RING, offset)
        if len(ring) < at.SIZE_RING:
            return
        yield offset, ring
