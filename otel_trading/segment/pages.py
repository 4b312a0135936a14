"""Where the pages of a segment are: found through its header, which is not believed."""

from __future__ import annotations

import mmap
import os

from otel_trading import _layout as at
from otel_trading.errors import (
    SegmentDamagedError,
    SegmentForeignError,
    SegmentTruncatedError,
    SegmentVersionError,
)
from otel_trading.segment.files import open_segment

_FARTHEST = 1 << 20  # where a page may be: they follow the header


def locate(fd: int, path: str, what: str, field: int, size: int) -> int:
    """Give the offset of the page, ``size`` bytes long, whose place is in the header's ``field``.

    ``what`` is its name in messages.  Raises SegmentForeignError, SegmentVersionError, SegmentTruncatedError or
    SegmentDamagedError.
    """
    header = os.pread(fd, at.SIZE_HEADER, 0)

    def word(offset: int, length: int) -> int:
        return int.from_bytes(header[offset : offset + length], "little")

    if word(at.OFF_HEADER_MAGIC, 8) != at.MAGIC:
        raise SegmentForeignError(path, "not a segment of otel-trading")
    if len(header) < at.SIZE_HEADER:
        raise SegmentTruncatedError(path, "the file ends within the header")
    version = word(at.OFF_HEADER_VERSION, 4)
    if version == 0:
        raise SegmentDamagedError(path, "the segment was never published; its process ended while it made it")
    if version != at.VERSION:
        raise SegmentVersionError(
            path, f"the segment has format {version}, this release reads and steers format {at.VERSION}"
        )
    offset = word(field, 8)
    if offset % at.PAGE or not at.PAGE <= offset <= _FARTHEST:
        raise SegmentDamagedError(path, f"the {what} is nowhere that it can be")
    if offset + size > os.fstat(fd).st_size:
        raise SegmentTruncatedError(path, f"the file ends before its {what} does")
    return offset


class Page:
    """A page of a segment, mapped to be read and written a word at a time; usable as ``with``.

    Raises what ``open_segment`` and ``locate`` do.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, field: int, size: int) -> None:
        """Map the file up to the page's end, and nothing behind it."""
        fd = open_segment(path, os.O_RDWR)
        try:
            offset = locate(fd, os.fsdecode(path), what, field, size)
            self._map = mmap.mmap(fd, offset + size)
        finally:
            os.close(fd)
        # As "Q", an item is read and written by one 8 byte access, and the page is aligned.
        self.words = memoryview(self._map)[offset:].cast("Q")

    def close(self) -> None:
        """Let the file go.  Idempotent."""
        self.words.release()
        self._map.close()
