"""What a process has left in the directory, once its end is looked into: marked, made small, put away."""

from __future__ import annotations

import os

from otel_trading import _layout as at
from otel_trading.segment.files import open_segment, word
from otel_trading.segment.pages import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_REQUESTED = {1, 2, 15}  # SIGHUP, SIGINT, SIGTERM


def mark_closed(path: str) -> None:
    """Mark a segment as that of a process that has ended, whoever was to do so.  Raises SegmentError."""
    fd = open_segment(path, os.O_RDWR)
    try:
        os.pwrite(fd, (1).to_bytes(4, "little"), at.OFF_HEADER_CLOSED)
    finally:
        os.close(fd)


def mark_died(path: str) -> None:
    """Mark a closed segment as one of a process that died, for agents and forensics to find.  Raises SegmentError."""
    fd = open_segment(path, os.O_RDWR)
    try:
        os.pwrite(fd, bytes(4), at.OFF_HEADER_CLOSED)
    finally:
        os.close(fd)


def has_crashed(path: str) -> bool:
    """Tell whether a process is ending as none should: by an exception, or a signal that asks for no end.

    By what it has told itself, so far.  Raises SegmentError.
    """
    fd = open_segment(path, os.O_RDONLY)
    try:
        offset = locate(fd, path, "life page", at.OFF_HEADER_LIFE_OFFSET, at.SIZE_LIFE)
        life = os.pread(fd, at.SIZE_LIFE, offset)
    finally:
        os.close(fd)
    kind, code = word(life, at.OFF_LIFE_ENDING, 8), word(life, at.OFF_LIFE_ENDING_CODE, 8)
    return kind == at.ENDING_EXCEPTION or (kind == at.ENDING_SIGNAL and code not in _REQUESTED)


def put_away(path: str) -> None:
    """Remove a segment of which all is settled; where orders are open it stays, without its rings, for their acks.

    Raises SegmentError and OSError.
    """
    from otel_trading.segment.neighbours import has_open_orders

    if has_open_orders(path):
        release(path)
    else:
        os.unlink(path)


def trim(path: str) -> None:
    """Give back the memory of a closed segment's rings that was never written to.  Raises SegmentError and OSError."""
    release(path, unused_memory)


def release(path: str, memory: Callable[[bytes, Any], Iterator[tuple[int, int]]] | None = None) -> None:
    """Give back the memory of a closed segment's rings; what is left are its names, its accounts and its orders.

    ``memory`` gives the ranges of the file, by its header and all of it, where it is not to be those.  Where the system
    can not punch holes into a file, it stays as it is.  Raises OSError.
    """
    import mmap

    if not hasattr(mmap, "MADV_REMOVE"):
        return
    fd = open_segment(path, os.O_RDWR)
    try:
        header = os.pread(fd, at.SIZE_HEADER, 0)
        with mmap.mmap(fd, 0) as whole:
            for start, end in (memory or ring_memory)(header, whole):
                first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
                if 0 < first < last <= len(whole):
                    whole.madvise(mmap.MADV_REMOVE, first, last - first)
    finally:
        os.close(fd)


def ring_memory(header: bytes, whole: Any) -> Iterator[tuple[int, int]]:
    """Give the ranges of a segment's records, open spans and arenas."""
    rings = word(header, at.OFF_HEADER_RINGS_OFFSET, 8)
    for number in range(min(word(header, at.OFF_HEADER_RING_COUNT, 4), at.MAX_RINGS)):
        ring = whole[rings + number * at.SIZE_RING : rings + (number + 1) * at.SIZE_RING]
        for offset, size in (
            (at.OFF_RING_SLOTS_OFFSET, word(ring, at.OFF_RING_CAPACITY, 4) * at.SIZE_SLOT),
            (at.OFF_RING_OPEN_OFFSET, word(ring, at.OFF_RING_OPEN_CAPACITY, 4) * at.SIZE_SLOT),
            (at.OFF_RING_ARENA_OFFSET, word(ring, at.OFF_RING_ARENA_BYTES, 8)),
        ):
            start = word(ring, offset, 8)
            yield start, start + size
    for number in range(min(word(header, at.OFF_HEADER_EXTENT_COUNT, 4), at.MAX_EXTENTS)):
        start = word(header, at.OFF_HEADER_EXTENT_OFFSET + 8 * number, 8)
        yield start, start + at.EXTENT_ENTRIES * at.SIZE_SLOT


def unused_memory(header: bytes, whole: Any) -> Iterator[tuple[int, int]]:
    """Give the ranges of a segment's records and arenas that were never written to."""
    rings = word(header, at.OFF_HEADER_RINGS_OFFSET, 8)
    for number in range(min(word(header, at.OFF_HEADER_RING_COUNT, 4), at.MAX_RINGS)):
        ring = whole[rings + number * at.SIZE_RING : rings + (number + 1) * at.SIZE_RING]
        for offset, used, size in (
            (
                at.OFF_RING_SLOTS_OFFSET,
                word(ring, at.OFF_RING_HEAD, 8) * at.SIZE_SLOT,
                word(ring, at.OFF_RING_CAPACITY, 4) * at.SIZE_SLOT,
            ),
            (at.OFF_RING_ARENA_OFFSET, word(ring, at.OFF_RING_ARENA_HEAD, 8), word(ring, at.OFF_RING_ARENA_BYTES, 8)),
        ):
            start = word(ring, offset, 8)
            if used < size:
                yield start + used, start + size


def note_missing_drain(path: str) -> None:
    """Tell whoever looks that the process ended with nobody to drain its segment.  Raises SegmentError."""
    from otel_trading.segment.pages import Page

    life = Page(path, "life page", at.OFF_HEADER_LIFE_OFFSET, at.SIZE_LIFE)
    try:
        life.words[at.OFF_LIFE_DRAIN_MISSING // 8] = 1
    finally:
        life.close()
