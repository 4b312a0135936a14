"""Flight records: copies of this process's own segment while it goes on, for any tool that reads a segment."""

from __future__ import annotations

import errno
import os
import time

from otel_trading import _layout as at
from otel_trading import lifecycle
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUFFIX = ".flight"
"""How the name of a flight record ends: not as a segment's, so that no agent takes it for one."""

_CHUNK = 8 << 20  # that the kernel is told to copy at once
_PIECE = 1 << 20  # where it can not
_LONGEST_NAME = 64  # characters of the service
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_BYTES = slice(at.OFF_HEADER_FILE_BYTES, at.OFF_HEADER_FILE_BYTES + 8)
_OTHER_WAY = (errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP)


def dump(path: str | os.PathLike[str] | None = None) -> str:
    """Write a flight record, and give its path: what is recorded and open now, orders, critical events, pulses.

    ``path`` is a file that is not there yet, or a directory that is; without it the record goes to
    ``forensics.directory``, named by service, pid and time.  The file has mode 0600, is never made through a link, and
    has the segment's holes.  ``otel-trading forensics PATH`` reads it, as all that takes a segment.

    The copy is made while the program goes on, so of what is recorded meanwhile there may be a part; what was there at
    the call is, but for the oldest records that are overwritten in these milliseconds.  Takes some 1 ms for each 2 MB,
    in the calling thread, with the GIL released.

    Never raises: where nothing is recorded, the file is there already, or there is no room, that is a fault, and the
    result is "".
    """
    own = lifecycle.own_segment()
    if own is None:
        report("dump:segment", "dump: nothing is recorded in this process, so there is nothing to write; see configure")
        return ""
    try:
        return _dump(own, path)
    except (OSError, ValueError, TypeError, OtelTradingError) as error:
        shown = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        report("dump", f"dump: no flight record is written: {shown} ({path if path is not None else directory()})")
        return ""


def directory() -> str:
    """Say where flight records go: ``forensics.directory``, else below the user's state directory."""
    settings = lifecycle.settings()
    told = None if settings is None else settings.values.get("forensics.directory")
    if told:
        return os.path.abspath(os.fspath(str(told)))
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "otel-trading", "crashes")


def _dump(own: str, path: str | os.PathLike[str] | None) -> str:
    from otel_trading.segment.directory import prepare_directory
    from otel_trading.segment.files import has_suffix, open_segment

    directory_fd = None
    source = open_segment(own, os.O_RDONLY)
    try:
        if path is None:
            where = directory()
            directory_fd = prepare_directory(where)
            name = _name()
            target = os.path.join(where, name)
        else:
            target = os.path.abspath(os.fsdecode(path))
            name = target = os.path.join(target, _name()) if os.path.isdir(target) else target
            if has_suffix(target) and os.path.dirname(target) == os.path.dirname(own):
                raise ValueError("a segment's directory takes no flight record under a segment's name")
        made = os.open(name, _NEW, 0o600, dir_fd=directory_fd)
        try:
            _copy(source, made)
        except BaseException:
            os.unlink(name, dir_fd=directory_fd)
            raise
        finally:
            os.close(made)
        return target
    finally:
        os.close(source)
        if directory_fd is not None:
            os.close(directory_fd)


def _name() -> str:
    from otel_trading.segment import service_name

    settings = lifecycle.settings()
    service = service_name(None if settings is None else settings.service)[:_LONGEST_NAME]
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in service)
    return f"{safe.lstrip('.') or '_'}-{os.getpid()}-{time.time_ns():x}{SUFFIX}"


def _copy(source: int, target: int) -> None:
    """Copy what the segment holds, its holes left out.

    The rings' headers come first, and stay as they were then.  So what they count was recorded before all else was
    copied, and the tables know its names.
    """
    header = os.pread(source, at.SIZE_HEADER, 0)
    size = os.fstat(source).st_size  # after the header, which then tells no more
    rings = int.from_bytes(header[at.OFF_HEADER_RINGS_OFFSET :][:8], "little")
    heads = os.pread(source, at.SIZE_RING * at.MAX_RINGS, rings)
    os.ftruncate(target, size)
    copy = _way(source, target)
    for start, end in _data(source, size):
        place = start
        while place < end:
            done = copy(place, min(end - place, _CHUNK))
            if done <= 0:  # it has become shorter, which no segment does
                break
            place += done
    _write(target, heads, rings)
    _write(target, header[_FILE_BYTES], _FILE_BYTES.start)  # it may have grown


def _data(source: int, size: int) -> Iterator[tuple[int, int]]:
    """Give the parts of a file that are not holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
            end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = end, size  # a file system that knows of none
        except AttributeError:  # a system
            start, end = end, size
        yield start, end


def _way(source: int, target: int) -> Callable[[int, int], int]:
    """Give what copies so many bytes from a position, and tells how many it did; the kernel does it where it can."""
    can = hasattr(os, "sendfile")

    def copy(start: int, count: int) -> int:
        nonlocal can
        if can:
            try:
                os.lseek(target, start, os.SEEK_SET)
                return os.sendfile(target, source, start, count)
            except OSError as error:
                if error.errno not in _OTHER_WAY:
                    raise
                can = False
        data = os.pread(source, min(count, _PIECE), start)
        _write(target, data, start)
        return len(data)

    return copy


def _write(target: int, data: bytes, start: int) -> None:
    while data:
        done = os.pwrite(target, data, start)
        data, start = data[done:], start + done
