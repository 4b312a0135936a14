"""The file that all recording processes of a directory share: verdicts on traces, and the bucket.

Each of them holds a lock on the directory, together with the others; so the last one knows that it is, and removes the
file.  A lock on the file itself is what the recorder takes while it lays the file out.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from otel_trading.errors import SegmentForeignError, SegmentSpaceError
from otel_trading.segment.directory import default_directory, open_directory, prepare_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = "traces.shared"
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not be waited for
_REMEDY = "remove the file; the next process that starts makes a new one"
_TRIES = 50
_PAUSE = 0.001  # seconds


def hold_directory(directory: str | os.PathLike[str] | None = None) -> int:
    """Say that the directory's shared file is in use, for as long as the file descriptor that is given stays open.

    Raises SegmentDirectoryError and SegmentSpaceError as ``prepare_directory`` does.
    """
    directory_fd = prepare_directory(directory if directory is not None else default_directory())
    for _ in range(_TRIES):
        if _locked(directory_fd, alone=False):
            break
        time.sleep(_PAUSE)  # the last process before us removes the file right now
    return directory_fd


def shared_file(directory: str | os.PathLike[str] | None = None) -> int:
    """Open the directory's shared file, made with mode 0600 unless it is there; ``core.share`` lays it out.

    The file descriptor is the caller's to close.  Raises SegmentForeignError for a link, for what is no regular file,
    for another user's file and for one that others may touch; all are left alone.  Raises SegmentDirectoryError and
    SegmentSpaceError as ``prepare_directory`` does.
    """
    where = os.path.abspath(os.fsdecode(directory) if directory is not None else default_directory())
    directory_fd = prepare_directory(where)
    try:
        return _checked(os.path.join(where, _NAME), directory_fd, os.O_CREAT)
    finally:
        os.close(directory_fd)


def join(directory: str, share: Callable[[int], None]) -> int:
    """Have the directory's verdicts and bucket in common with its other processes; ``share`` is ``core.share``.

    Gives a file descriptor that says so as long as it is open; nothing is left open where this fails.  Raises what
    ``hold_directory``, ``shared_file`` and ``share`` do.
    """
    held = hold_directory(directory)
    try:
        fd = shared_file(directory)
        try:
            share(fd)
        finally:
            os.close(fd)
    except BaseException:
        os.close(held)
        raise
    return held


def remove_shared_file(directory: str | os.PathLike[str]) -> None:
    """Remove the shared file, unless it is in use, or not there.  Raises OSError and SegmentError."""
    where = os.path.abspath(os.fsdecode(directory))
    directory_fd = open_directory(where)
    try:
        if _locked(directory_fd, alone=True):
            os.close(_checked(os.path.join(where, _NAME), directory_fd, 0))
            os.unlink(_NAME, dir_fd=directory_fd)
    except FileNotFoundError:
        return
    finally:
        os.close(directory_fd)


def _checked(path: str, directory_fd: int, flags: int) -> int:
    try:
        fd = os.open(_NAME, _FLAGS | flags, 0o600, dir_fd=directory_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise SegmentSpaceError(path, f"can not be made ({error.strerror})") from error
        what = "is a link" if os.path.islink(path) else f"can not be opened ({error.strerror})"
        raise SegmentForeignError(path, what, _REMEDY) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        what = "is not a regular file"
    elif status.st_uid != os.geteuid():
        what = f"belongs to user {status.st_uid}, not to user {os.geteuid()}"
    elif status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        what = f"lets other users in (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        return fd
    os.close(fd)
    raise SegmentForeignError(path, what, _REMEDY)


def _locked(fd: int, *, alone: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
