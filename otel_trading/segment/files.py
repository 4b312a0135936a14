"""The files in a directory of segments: made, found, tidied up, attached."""

from __future__ import annotations

import errno
import os
import stat
import time

from otel_trading import _layout as at
from otel_trading.errors import (
    SegmentDamagedError,
    SegmentDirectoryError,
    SegmentError,
    SegmentForeignError,
    SegmentNotFoundError,
    SegmentSpaceError,
    SegmentTruncatedError,
    SegmentVersionError,
)
from otel_trading.segment.directory import default_directory, open_directory, prepare_directory
from otel_trading.segment.process import boot_id, is_alive
from otel_trading.segment.resource import service_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from otel_trading._native import Reader

_SUFFIX = ".seg"
_KEPT = 8  # segments of processes that died
_KEPT_CLOSED = 16  # segments of processes that were shut down with open orders; little is in them
_LONGEST_NAME = 64  # characters of the service in a file's name
_TRIES = 16
# O_NONBLOCK: opening a pipe that somebody has planted must not wait for its other end
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_KINDS = {
    "foreign": SegmentForeignError,
    "version": SegmentVersionError,
    "truncated": SegmentTruncatedError,
    "damaged": SegmentDamagedError,
}


class CreatedSegment(tuple[int, str]):
    """A new, empty file: (fd, path).  The file descriptor is the caller's to close."""

    __slots__ = ()

    @property
    def fd(self) -> int:
        """The file, open for reading and writing."""
        return self[0]

    @property
    def path(self) -> str:
        """Its absolute path."""
        return self[1]


class FoundSegment:
    """A segment in a directory, as its header describes it."""

    __slots__ = ("alive", "closed", "created_ns", "path", "pid", "service")

    def __init__(self, path: str, header: bytes, boot: tuple[int, int]) -> None:
        """Take what is needed out of a header; ``boot`` is the running system's."""
        self.path = path
        self.pid = _word(header, at.OFF_HEADER_PID, 4)
        self.created_ns = _word(header, at.OFF_HEADER_CREATED_NS, 8)  # Unix time
        self.closed = _word(header, at.OFF_HEADER_CLOSED, 4) != 0  # after an orderly shutdown
        self.service = _service(header)
        theirs = _word(header, at.OFF_HEADER_BOOT_ID, 8), _word(header, at.OFF_HEADER_BOOT_ID + 8, 8)
        same_boot = theirs == boot or not any(theirs) or not any(boot)
        self.alive = not self.closed and same_boot and is_alive(self.pid, _word(header, at.OFF_HEADER_PROCESS_START, 8))

    def __repr__(self) -> str:
        state = "alive" if self.alive else "dead"
        return f"<FoundSegment {self.service} pid {self.pid} {state} {self.path}>"


def _word(header: bytes, offset: int, size: int) -> int:
    return int.from_bytes(header[offset : offset + size], "little")


def _service(header: bytes) -> str:
    import json

    size = min(_word(header, at.OFF_HEADER_RESOURCE_BYTES, 4), at.RESOURCE_BYTES)
    try:
        name = json.loads(header[at.OFF_HEADER_RESOURCE : at.OFF_HEADER_RESOURCE + size])["service.name"]
    except (ValueError, LookupError, TypeError, RecursionError):
        name = None
    return name if isinstance(name, str) else "unknown_service"


def _file_name(service: str, created_ns: int) -> str:
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in service[:_LONGEST_NAME])
    return f"{safe.lstrip('.') or '_'}-{os.getpid()}-{created_ns:x}{_SUFFIX}"


def create(service: str | None = None, directory: str | os.PathLike[str] | None = None) -> CreatedSegment:
    """Make an empty file for this process's segment, with mode 0600; the recorder's ``open`` lays it out.

    Before it, the oldest segments of ended processes are removed: but for the newest 8 of those that died, and the
    newest 16 of those that were shut down with open orders.
    Raises SegmentDirectoryError where the directory is not safe, SegmentSpaceError where there is no room.
    """
    where = os.path.abspath(os.fsdecode(directory) if directory is not None else default_directory())
    directory_fd = prepare_directory(where)
    try:
        _tidy_up(directory_fd, where)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(_TRIES):  # another try is at another time, which is another name
            name = _file_name(service_name(service), time.time_ns())
            try:
                return CreatedSegment((os.open(name, flags, 0o600, dir_fd=directory_fd), os.path.join(where, name)))
            except FileExistsError:
                continue
            except OSError as error:
                kind = SegmentSpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else SegmentDirectoryError
                raise kind(where, f"{name} can not be made ({error.strerror})") from error
        raise SegmentError(where, "all names for a new segment are taken", f"remove files ending in {_SUFFIX} there")
    finally:
        os.close(directory_fd)


def _read_header(fd: int) -> bytes | None:
    """Give a file's header, or None where it is not a published segment of this user's in this format."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return None
    header = os.pread(fd, at.SIZE_HEADER, 0)
    fits = len(header) == at.SIZE_HEADER and _word(header, at.OFF_HEADER_FILE_BYTES, 8) <= os.fstat(fd).st_size
    known = _word(header, 0, 8) == at.MAGIC and _word(header, at.OFF_HEADER_VERSION, 4) == at.VERSION
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


def _walk(directory_fd: int, where: str) -> Iterator[tuple[str, FoundSegment]]:
    """Give each segment in a directory with its name there, in no order; what is not one is passed over."""
    boot = boot_id()
    for name in os.listdir(directory_fd):
        found = _look(name, directory_fd, where, boot) if has_suffix(name) else None
        if found is not None:
            yield name, found


def has_suffix(name: str) -> bool:
    """Tell whether a file has the name of a segment."""
    return name.endswith(_SUFFIX)


def find(path: str) -> FoundSegment | None:
    """Describe one segment of this user's; None where the file is not one, or gone."""
    return _look(path, None, "", boot_id())


def _tidy_up(directory_fd: int, where: str) -> None:
    # Of this very process there is none now: one that is there is of the program that it was before an exec.
    ended = sorted(
        (found.created_ns, name, found.closed)
        for name, found in _walk(directory_fd, where)
        if not found.alive or found.pid == os.getpid()
    )
    died = [name for _, name, closed in ended if not closed]
    closed = [name for _, name, closed in ended if closed]
    for name in died[:-_KEPT] + closed[:-_KEPT_CLOSED]:
        try:
            os.unlink(name, dir_fd=directory_fd)
        except OSError:  # another process tidies up as well
            continue


def release(path: str) -> None:
    """Give back the memory of a closed segment's rings; what is left are its names, its accounts and its orders.

    Where the system can not punch holes into a file, it stays as it is.  Raises OSError.
    """
    import mmap

    if not hasattr(mmap, "MADV_REMOVE"):
        return
    fd = open_segment(path, os.O_RDWR)
    try:
        header = os.pread(fd, at.SIZE_HEADER, 0)
        with mmap.mmap(fd, 0) as whole:
            for start, end in _ring_memory(header, whole):
                first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
                if 0 < first < last <= len(whole):
                    whole.madvise(mmap.MADV_REMOVE, first, last - first)
    finally:
        os.close(fd)


def _ring_memory(header: bytes, whole: Any) -> Iterator[tuple[int, int]]:
    """Give the ranges of a segment's records, open spans and arenas."""
    rings = _word(header, at.OFF_HEADER_RINGS_OFFSET, 8)
    for number in range(min(_word(header, at.OFF_HEADER_RING_COUNT, 4), at.MAX_RINGS)):
        ring = whole[rings + number * at.SIZE_RING : rings + (number + 1) * at.SIZE_RING]
        for offset, size in (
            (at.OFF_RING_SLOTS_OFFSET, _word(ring, at.OFF_RING_CAPACITY, 4) * at.SIZE_SLOT),
            (at.OFF_RING_OPEN_OFFSET, _word(ring, at.OFF_RING_OPEN_CAPACITY, 4) * at.SIZE_SLOT),
            (at.OFF_RING_ARENA_OFFSET, _word(ring, at.OFF_RING_ARENA_BYTES, 8)),
        ):
            start = _word(ring, offset, 8)
            yield start, start + size
    for number in range(min(_word(header, at.OFF_HEADER_EXTENT_COUNT, 4), at.MAX_EXTENTS)):
        start = _word(header, at.OFF_HEADER_EXTENT_OFFSET + 8 * number, 8)
        yield start, start + at.EXTENT_ENTRIES * at.SIZE_SLOT


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
        return sorted((found for _, found in _walk(directory_fd, where)), key=lambda found: found.created_ns)
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
