"""Making a segment's file, and the retention of those of processes that have ended."""

from __future__ import annotations

import errno
import os
import time

from otel_trading import _layout as at
from otel_trading.errors import SegmentDirectoryError, SegmentError, SegmentSpaceError
from otel_trading.segment import role
from otel_trading.segment.directory import default_directory, prepare_directory
from otel_trading.segment.files import SUFFIX, attach, open_segment, walk
from otel_trading.segment.resource import service_name

_KEPT = 8  # segments of processes that died
_KEPT_CLOSED = 16  # segments of processes that were shut down with open orders; little is in them
_KEPT_FOR_AGENT = 256  # segments of processes that were shut down, and that an agent has still to export …
_KEPT_BYTES = 256 << 20  # … as long as they take no more space than that
_LONGEST_NAME = 64  # characters of the service in a file's name
_TRIES = 16


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


def _file_name(service: str, created_ns: int) -> str:
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in service[:_LONGEST_NAME])
    return f"{safe.lstrip('.') or '_'}-{os.getpid()}-{created_ns:x}{SUFFIX}"


def create(service: str | None = None, directory: str | os.PathLike[str] | None = None) -> CreatedSegment:
    """Make an empty file for this process's segment, with mode 0600; the recorder's ``open`` lays it out.

    Before it, the oldest segments of ended processes are removed: but for the newest 8 of those that died, the newest
    16 of those that were shut down with open orders, and what an agent has still to export, up to 256 MB.
    Raises SegmentDirectoryError where the directory is not safe, SegmentSpaceError where there is no room.
    """
    where = os.path.abspath(os.fsdecode(directory) if directory is not None else default_directory())
    directory_fd = prepare_directory(where)
    try:
        tidy_up(directory_fd, where)
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
        raise SegmentError(where, "all names for a new segment are taken", f"remove files ending in {SUFFIX} there")
    finally:
        os.close(directory_fd)


def tidy_up(directory_fd: int, where: str) -> None:
    """Remove the oldest segments of ended processes, by the rules of ``create``."""
    # Of this very process there is none now: one that is there is of the program that it was before an exec.
    ended = sorted(
        (found.created_ns, name, found.closed)
        for name, found in walk(directory_fd, where)
        if not found.alive or found.pid == os.getpid()
    )
    died = [name for _, name, closed in ended if not closed]
    closed = [name for _, name, closed in ended if closed]
    if len(closed) > _KEPT_CLOSED:
        waiting = _for_agent(closed, where)
        closed = [name for name in closed if name not in waiting]
    for name in died[:-_KEPT] + closed[:-_KEPT_CLOSED]:
        if role.is_held(os.path.join(where, name)):
            continue  # an agent is at work on it
        try:
            os.unlink(name, dir_fd=directory_fd)
        except OSError:  # another process tidies up as well
            continue


def _for_agent(names: list[str], where: str) -> set[str]:
    """Give those of closed segments that are left to an agent, the newest of them, as far as there is room."""
    found: set[str] = set()
    space = 0
    for name in reversed(names):
        path = os.path.join(where, name)
        try:
            if is_left_to_agent(path):
                space += os.stat(path).st_blocks * 512
                if space > _KEPT_BYTES or len(found) == _KEPT_FOR_AGENT:
                    break
                found.add(name)
        except (SegmentError, OSError):  # gone, or damaged: nobody will miss it
            continue
    return found


def is_left_to_agent(path: str) -> bool:
    """Tell whether something in a closed segment is still to be drained by an agent.  Raises SegmentError."""
    fd = open_segment(path, os.O_RDONLY)
    try:
        if role.hosts(fd, path).host != at.HOST_AGENT:
            return False  # its own process has drained it
    finally:
        os.close(fd)
    reader = attach(path)
    try:
        return not reader.settled()
    finally:
        reader.close()
