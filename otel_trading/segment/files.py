"""The files in a directory of segments: found, opened, attached."""

from __future__ import annotations

import os
import stat

from otel_trading import _layout as at
from otel_trading.errors import (
    SegmentDamagedError,
    SegmentForeignError,
    SegmentNotFoundError,
    SegmentTruncatedError,
    SegmentVersionError,
)
from otel_trading.segment.directory import default_directory, open_directory
from otel_trading.segment.process import boot_id, is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading._native import Reader

SUFFIX = ".seg"
# O_NONBLOCK: opening a pipe that somebody has planted must not wait for its other end
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_KINDS = {
    "foreign": SegmentForeignError,
    "version": SegmentVersionError,
    "truncated": SegmentTruncatedError,
    "damaged": SegmentDamagedError,
}


class FoundSegment:
    """A segment in a directory, as its header describes it."""

    __slots__ = ("alive", "closed", "created_ns", "path", "pid", "process_start", "service")

    def __init__(self, path: str, header: bytes, boot: tuple[int, int]) -> None:
        """Take what is needed out of a header; ``boot`` is the running system's."""
        self.path = path
        self.pid = word(header, at.OFF_HEADER_PID, 4)
        self.created_ns = word(header, at.OFF_HEADER_CREATED_NS, 8)  # Unix time
        self.closed = word(header, at.OFF_HEADER_CLOSED, 4) != 0  # after an orderly shutdown
        self.service = _service(header)
        theirs = word(header, at.OFF_HEADER_BOOT_ID, 8), word(header, at.OFF_HEADER_BOOT_ID + 8, 8)
        same_boot = theirs == boot or not any(theirs) or not any(boot)
        self.process_start = word(header, at.OFF_HEADER_PROCESS_START, 8)
        self.alive = not self.closed and same_boot and is_alive(self.pid, self.process_start)

    def __repr__(self) -> str:
        state = "alive" if self.alive else "dead"
        return f"<FoundSegment {self.service} pid {self.pid} {state} {self.path}>"


def word(header: bytes, offset: int, size: int) -> int:
    """Read a little-endian number in a header, of ``size`` bytes."""
    return int.from_bytes(header[offset : offset + size], "little")


def _service(header: bytes) -> str:
    import json

    size = min(word(header, at.OFF_HEADER_RESOURCE_BYTES, 4), at.RESOURCE_BYTES)
    try:
        name = json.loads(header[at.OFF_HEADER_RESOURCE : at.OFF_HEADER_RESOURCE + size])["service.name"]
    except (ValueError, LookupError, TypeError, RecursionError):
        name = None
    return name if isinstance(name, str) else "unknown_service"


def _read_header(fd: int) -> bytes | None:
    """Give a file's header, or None where it is not a published segment of this user's in this format."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return None
    header = os.pread(fd, at.SIZE_HEADER, 0)
    fits = len(header) == at.SIZE_HEADER and word(header, at.OFF_HEADER_FILE_BYTES, 8) <= os.fstat(fd).st_size
    known = word(header, 0, 8) == at.MAGIC and word(header, at.OFF_HEADER_VERSION, 4) == at.VERSION
    return header if fits and known else None


def _look(name: str, directory_fd: int | None, where: str, boot: tuple[int, int]) -> FoundSegment | None:
    try:
        fd = os.open(name, _READ, dir_fd=directory_fd)
    except OSError:  # a link, or gone
        return None
    try:
        header = _read_header(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    return None if header is None else FoundSegment(os.path.join(where, name), header, boot)


def walk(directory_fd: int, where: str) -> Iterator[tuple[str, FoundSegment]]:
    """Give each segment in a directory with its name there, in no order; what is not one is passed over."""
    boot = boot_id()
    for name in os.listdir(directory_fd):
        found = _look(name, directory_fd, where, boot) if has_suffix(name) else None
        if found is not None:
            yield name, found


def has_suffix(name: str) -> bool:
    """Tell whether a file has the name of a segment."""
    return name.endswith(SUFFIX)


def find(path: str) -> FoundSegment | None:
    """Describe one segment of this user's; None where the file is not one, or gone."""
    return _look(path, None, "", boot_id())


def segments(directory: str | os.PathLike[str] | None = None) -> list[FoundSegment]:
    """Find the segments in a directory, oldest first; none where there is no such directory.

    Raises SegmentDirectoryError where the directory is not safe.
    """
    where = os.path.abspath(os.fsdecode(directory) if directory is not None else default_directory())
    try:
        directory_fd = open_directory(where)
    except SegmentNotFoundError:
        return []
    try:
        return sorted((found for _, found in walk(directory_fd, where)), key=lambda found: found.created_ns)
    finally:
        os.close(directory_fd)


def open_segment(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file that may be a segment, never through a link.

    Raises SegmentNotFoundError, or SegmentForeignError where it can not be one of this user's.
    """
    try:
        fd = os.open(path, _READ | flags)
    except FileNotFoundError as error:
        raise SegmentNotFoundError(os.fsdecode(path), "there is no such segment") from error
    except OSError as error:
        what = "is a link" if os.path.islink(path) else f"can not be opened ({error.strerror})"
        raise SegmentForeignError(os.fsdecode(path), what) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        what = "is not a regular file"
    elif status.st_uid != os.geteuid() and os.geteuid() != 0:
        what = f"belongs to user {status.st_uid}, not to user {os.geteuid()}"
    else:
        return fd
    os.close(fd)
    raise SegmentForeignError(os.fsdecode(path), what)


def attach(path: str | os.PathLike[str]) -> Reader:
    """Give a reader of the segment in a file; the process that writes it, if it lives, takes no notice.

    Raises SegmentNotFoundError, SegmentForeignError, SegmentVersionError, SegmentTruncatedError or SegmentDamagedError.
    """
    from otel_trading._backend import core

    fd = open_segment(path, os.O_RDONLY)
    try:
        return core.Reader(fd)
    except ValueError as error:
        kind, _, what = str(error).partition(": ")
        raise _KINDS.get(kind, SegmentDamagedError)(os.fsdecode(path), what or str(error)) from error
    finally:
        os.close(fd)
