"""What the package itself has added to the process's memory: its modules, and what it has set up.

Only private pages count: a segment is shared memory, and told by itself.
"""

from __future__ import annotations

import os


def private_bytes() -> int:
    """Give the private memory that this process has resident, bytes; 0 where the system does not tell.

    Takes some 10 µs.
    """
    try:
        fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        _, resident, shared, *_ = os.read(fd, 256).split()
    except (OSError, ValueError):
        return 0
    finally:
        os.close(fd)
    return max(int(resident) - int(shared), 0) * os.sysconf("SC_PAGE_SIZE")


class _Measure:
    """Adds up what is taken between ``begin`` and ``end``, the first time for each part."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}
        self._before = private_bytes()

    @property
    def bytes(self) -> int:
        """What all parts took."""
        return sum(self._parts.values())

    def begin(self) -> None:
        """Measure from here on."""
        self._before = private_bytes()

    def end(self, part: str) -> None:
        """Measure up to here; what comes the second time finds its modules loaded, and tells nothing."""
        if part not in self._parts:
            self._parts[part] = max(private_bytes() - self._before, 0)


package = _Measure()
"""From the import of this module on, the package's first; ``otel_trading`` ends it when all is imported."""
