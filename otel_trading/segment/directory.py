"""Where segments are: a directory that only its owner can enter."""

from __future__ import annotations

import errno
import os
import stat

from otel_trading.errors import SegmentDirectoryError, SegmentNotFoundError, SegmentSpaceError

_SHARED_MEMORY = "/dev/shm"  # noqa: S108  not a file: where shared memory is
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def default_directory() -> str:
    """Say where segments go unless told otherwise; the directory need not be there yet.

    ``OTEL_TRADING_DIR``; else ``otel-trading-<uid>`` in /dev/shm where that can be written, in ``XDG_RUNTIME_DIR``,
    or in the directory for temporary files, the first of them that there is.
    """
    told = os.environ.get("OTEL_TRADING_DIR")
    if told:
        return os.path.abspath(told)
    name = f"otel-trading-{os.geteuid()}"
    for parent in (_SHARED_MEMORY, os.environ.get("XDG_RUNTIME_DIR", "")):
        if os.path.isabs(parent) and os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK):
            return os.path.join(parent, name)
    import tempfile

    return os.path.join(tempfile.gettempdir(), name)


def prepare_directory(path: str | os.PathLike[str]) -> int:
    """Make the directory, with mode 0700, unless it is there; give an open file descriptor of it.

    Raises SegmentDirectoryError where it is a link, belongs to another user, or lets others in, and
    SegmentSpaceError where there is no room for it.
    """
    where = os.path.abspath(os.fsdecode(path))  # without a slash at the end, which would have a link followed
    try:
        os.makedirs(os.path.dirname(where), exist_ok=True)
        try:
            os.mkdir(where, 0o700)
        except FileExistsError:
            pass
    except OSError as error:
        kind = SegmentSpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else SegmentDirectoryError
        raise kind(where, f"the directory can not be made ({error.strerror})") from error
    return open_directory(where)


def open_directory(path: str | os.PathLike[str]) -> int:
    """Open a directory of segments that is there, under ``prepare_directory``'s rules.

    Raises SegmentNotFoundError where there is none, else as ``prepare_directory`` does.
    """
    where = os.path.abspath(os.fsdecode(path))
    try:
        fd = os.open(where, _DIRECTORY)
    except FileNotFoundError as error:
        raise SegmentNotFoundError(where, "there is no such directory") from error
    except OSError as error:
        if os.path.islink(where):
            raise SegmentDirectoryError(where, "is a link, which others may have planted") from error
        raise SegmentDirectoryError(where, f"can not be opened as a directory ({error.strerror})") from error
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise SegmentDirectoryError(where, f"belongs to user {status.st_uid}, not to user {os.geteuid()}")
        if status.st_mode & _OTHERS:
            mode = stat.S_IMODE(status.st_mode)
            raise SegmentDirectoryError(where, f"lets other users in (mode {mode:04o})", f"chmod 700 {where}")
    except BaseException:
        os.close(fd)
        raise
    return fd
