"""The agent's files in a directory of segments: its lock, its page, its socket."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import time

from otel_trading import _layout as at
from otel_trading.errors import OtelTradingError, SegmentDirectoryError, SegmentSpaceError
from otel_trading.segment.directory import open_directory, prepare_directory
from otel_trading.segment.process import is_alive, start_of
from otel_trading.segment.role import locked_within

LOCK, PAGE, SOCKET, ONCE = "agent.lock", "agent.page", "agent.sock", "agent.once"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class AgentFileError(SegmentDirectoryError):
    """A file of the agent's is something else: a link, another user's, no regular file."""

    remedy = "remove it; an agent makes a new one when it starts"


def _opened(where: str, name: str) -> int:
    """Open a file of ours in a directory of segments, made with mode 0600 where it is not there."""
    directory_fd = prepare_directory(where)
    try:
        fd = os.open(name, _FLAGS, 0o600, dir_fd=directory_fd)
    except OSError as error:
        kind = SegmentSpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else AgentFileError
        raise kind(os.path.join(where, name), f"can not be opened ({error.strerror})") from error
    finally:
        os.close(directory_fd)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
        return fd
    os.close(fd)
    raise AgentFileError(os.path.join(where, name), "is no regular file of this user's alone")


def lock(where: str, patience: float = 0.0, name: str = LOCK) -> int | None:
    """Be the one agent of a directory, until the file descriptor that is given is closed.

    None where another one is, and still is after ``patience`` seconds.  Raises SegmentDirectoryError and
    SegmentSpaceError.
    """
    return locked_within(_opened(where, name), patience)


def is_running(where: str, name: str = LOCK) -> bool:
    """Tell whether a directory has an agent.  Raises SegmentDirectoryError where the directory is not safe."""
    from otel_trading.errors import SegmentNotFoundError

    try:
        directory_fd = open_directory(where)
    except SegmentNotFoundError:
        return False
    try:
        fd = os.open(name, _READ, dir_fd=directory_fd)
    except OSError:  # none, or what is no lock of ours
        return False
    finally:
        os.close(directory_fd)
    try:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    finally:
        os.close(fd)
    return False


class Words:
    """What an agent's page says; all zero where there is none."""

    __slots__ = ("beat_ns", "mode", "pid", "process_start", "segments", "started_ns", "state", "watchdog_pid")

    def __init__(self, page: bytes) -> None:
        """Take the page apart; what is no page of ours is none."""
        whole = page.ljust(at.SIZE_AGENT, b"\0")

        def word(offset: int) -> int:
            return int.from_bytes(whole[offset : offset + 8], "little")

        if word(at.OFF_AGENT_MAGIC) != at.AGENT_MAGIC or word(at.OFF_AGENT_VERSION) != at.AGENT_VERSION:
            whole = bytes(at.SIZE_AGENT)
        self.pid = word(at.OFF_AGENT_PID)
        self.process_start = word(at.OFF_AGENT_PROCESS_START)
        self.started_ns = word(at.OFF_AGENT_STARTED_NS)
        self.beat_ns = word(at.OFF_AGENT_BEAT_NS)
        self.state = word(at.OFF_AGENT_STATE)
        self.segments = word(at.OFF_AGENT_SEGMENTS)
        self.mode = word(at.OFF_AGENT_MODE)
        self.watchdog_pid = word(at.OFF_AGENT_WATCHDOG_PID)

    @property
    def alive(self) -> bool:
        """Whether the process that wrote it lives."""
        return self.pid > 1 and is_alive(self.pid, self.process_start)


def words(where: str) -> Words:
    """Read an agent's page; nothing is believed of it, and nothing raised."""
    try:
        directory_fd = open_directory(where)
    except OtelTradingError:
        return Words(b"")
    try:
        fd = os.open(PAGE, _READ, dir_fd=directory_fd)
    except OSError:
        return Words(b"")
    finally:
        os.close(directory_fd)
    try:
        return Words(os.read(fd, at.SIZE_AGENT))
    except OSError:
        return Words(b"")
    finally:
        os.close(fd)


class Page:
    """The page in which this agent tells that it lives; the watchdog's words in it are left alone."""

    def __init__(self, where: str) -> None:
        """Take it over from the agent before, or make it.  Raises SegmentDirectoryError and SegmentSpaceError."""
        fd = _opened(where, PAGE)
        try:
            if os.fstat(fd).st_size < at.PAGE:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(fd, 0, at.PAGE)  # never a SIGBUS later, for want of space
                else:
                    os.ftruncate(fd, at.PAGE)
            self._map = mmap.mmap(fd, at.PAGE)
        except OSError as error:
            raise SegmentSpaceError(os.path.join(where, PAGE), f"can not be made ({error.strerror})") from error
        finally:
            os.close(fd)
        # As "Q", an item is read and written by one 8 byte access, and the page is aligned.
        self._words = memoryview(self._map).cast("Q")
        self.segments = self.mode = 0
        self._put(at.OFF_AGENT_VERSION, 0)
        self._put(at.OFF_AGENT_PID, os.getpid())
        self._put(at.OFF_AGENT_PROCESS_START, start_of(os.getpid()))
        self._put(at.OFF_AGENT_STARTED_NS, time.time_ns())
        self.beat(at.AGENT_STARTING)
        self._put(at.OFF_AGENT_MAGIC, at.AGENT_MAGIC)
        self._put(at.OFF_AGENT_VERSION, at.AGENT_VERSION)

    def _put(self, offset: int, value: int) -> None:
        self._words[offset // 8] = value

    def beat(self, state: int) -> None:
        """Tell that the loop goes on, and in which state (OT_AGENT_*)."""
        self._put(at.OFF_AGENT_SEGMENTS, self.segments)
        self._put(at.OFF_AGENT_MODE, self.mode)
        self._put(at.OFF_AGENT_BEAT_NS, time.monotonic_ns())
        self._put(at.OFF_AGENT_STATE, state)

    def close(self) -> None:
        """Let the file go; it stays, for the next agent and for the watchdog."""
        self._words.release()
        self._map.close()
