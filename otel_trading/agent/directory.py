"""The segments in a directory, found as they come."""

from __future__ import annotations

import os
import time

from otel_trading.segment.directory import prepare_directory
from otel_trading.segment.files import find, has_suffix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.segment import FoundSegment

_SETTLED_NS = 100_000_000  # ns after which a directory's time of change tells of every change since
_GIVE_UP = 30.0  # seconds after which a file that is no segment is not looked at again, unless the directory changes
_MOST_NAMES = 4096
_SOON = 2.0  # seconds within which a file is made a segment, by who has made it


class Directory:
    """A directory that is looked at again and again; one system call where nothing has changed."""

    def __init__(self, where: str) -> None:
        """Open it, made where it is not there.  Raises SegmentDirectoryError and SegmentSpaceError."""
        self.where = where
        self._fd = prepare_directory(where)
        self._told_by = -1
        self._changed_ns = -1
        self._known: set[str] = set()
        self._unread: dict[str, float] = {}  # not published yet, or no segments: when they were first seen

    def tell_changes(self) -> bool:
        """Have the kernel send SIGIO, to be handled by then, when a file comes; False where it does not."""
        import fcntl

        try:
            # Of its own: whoever closes a copy of the file descriptor (as listdir does) ends what it was asked for.
            self._told_by = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
            fcntl.fcntl(self._told_by, fcntl.F_NOTIFY, fcntl.DN_CREATE | fcntl.DN_RENAME | fcntl.DN_MULTISHOT)
        except (AttributeError, OSError):  # a kernel or a file system without
            return False
        return True

    @property
    def expects(self) -> bool:
        """Whether a file is there that its process is about to make a segment."""
        now = time.monotonic()
        return any(now - since < _SOON for since in self._unread.values())

    def look(self) -> list[FoundSegment]:
        """Give the segments that are new since the last look."""
        changed = os.fstat(self._fd).st_mtime_ns
        if changed != self._changed_ns:
            # The clock of files is coarse: a change right after this one would leave the time as it is.
            self._changed_ns = changed if time.time_ns() - changed > _SETTLED_NS else -1
            self._list()
        now = time.monotonic()
        found = []
        for name, since in list(self._unread.items()):
            segment = find(os.path.join(self.where, name))
            if segment is not None:
                found.append(segment)
            if segment is not None or now - since > _GIVE_UP:
                del self._unread[name]
                self._known.add(name)
        return sorted(found, key=lambda segment: segment.created_ns)

    def _list(self) -> None:
        try:
            names = {name for name in os.listdir(self._fd) if has_suffix(name)}
        except OSError:
            return
        self._known &= names
        for name in self._unread.keys() - names:
            del self._unread[name]
        now = time.monotonic()
        for name in sorted(names - self._known - self._unread.keys())[:_MOST_NAMES]:
            self._unread[name] = now

    def forget(self, path: str) -> None:
        """Take a segment for new when it is seen again."""
        self._known.discard(os.path.basename(path))

    @property
    def gone(self) -> bool:
        """Whether the directory was removed."""
        return os.fstat(self._fd).st_nlink == 0

    def close(self) -> None:
        """Let it go."""
        os.close(self._fd)
        if self._told_by >= 0:
            os.close(self._told_by)
