"""Who drains a segment: the drain's role is an exclusive lock on its file, so the kernel takes it back from the dead.

The control page says who should have it (``host``) and, as a hint, who has (``host_now``, ``drained_by``).
"""

from __future__ import annotations

import os
import time

from otel_trading import _layout as at
from otel_trading.segment.files import open_segment
from otel_trading.segment.pages import Page, locate

_PAUSE = 0.002  # seconds between two tries


class Hosts:
    """What the control page says of a segment's drain.

    ``host``: who should drain, OT_HOST_*; ``host_now``: who does; ``drained_by``: its pid, 0 = nobody;
    ``can_take_back``: whether the process itself can, as it began embedded, and has a thread that waits to be asked.
    """

    __slots__ = ("can_take_back", "drained_by", "host", "host_now")

    def __init__(self, page: bytes) -> None:
        """Take a control page apart."""

        def word(place: int) -> int:
            return int.from_bytes(page[place : place + 8], "little")

        self.host = word(at.OFF_CONTROL_HOST) & 0xFFFFFFFF
        self.host_now = word(at.OFF_CONTROL_HOST_NOW)
        self.drained_by = word(at.OFF_CONTROL_DRAINED_BY)
        self.can_take_back = word(at.OFF_CONTROL_CAN_TAKE_BACK) == 1


def claim(path: str | os.PathLike[str], patience: float = 0.0) -> int | None:
    """Take the role; it is ours until the file descriptor that is given is closed, or this process ends.

    None where somebody has it, and still has after ``patience`` seconds.  A forked child must close its copy.
    Raises SegmentNotFoundError or SegmentForeignError.
    """
    # A file description of its own: a lock belongs to that, and one that is mapped outlives its file descriptors.
    return locked_within(open_segment(path, os.O_RDWR), patience)


def is_held(path: str | os.PathLike[str]) -> bool:
    """Tell whether somebody has the role now; False where there is no such file."""
    from otel_trading.errors import SegmentError

    try:
        fd = claim(path)
    except SegmentError:
        return False
    if fd is None:
        return True
    os.close(fd)
    return False


def locked_within(fd: int, patience: float) -> int | None:
    """Give the file when it is locked; closed, and None, where another one has it still after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not locked(fd):
        if time.monotonic() >= deadline:
            os.close(fd)
            return None
        time.sleep(_PAUSE)
    return fd


def locked(fd: int) -> bool:
    """Lock a file for this file description alone, without waiting; False where another one has it."""
    try:
        import fcntl
    except ImportError:  # no such locks here: then there is no agent either
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def hosts(fd: int, path: str) -> Hosts:
    """Read what the segment in ``fd`` says of its drain; two system calls.  Raises SegmentError."""
    offset = locate(fd, path, "control page", at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL)
    return Hosts(os.pread(fd, at.SIZE_CONTROL, offset))


def note_embedded(path: str) -> None:
    """Tell agents that this process can take the drain back.  Raises SegmentError."""
    page = Page(path, "control page", at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL)
    try:
        page.words[at.OFF_CONTROL_CAN_TAKE_BACK // 8] = 1
    finally:
        page.close()
