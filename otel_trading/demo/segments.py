"""The runner reads the children's segments while they write: attached read-only, as any other process could."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_trading.demo.errors import DemoError

if TYPE_CHECKING:
    from otel_trading._native import Reader, SpanState

_MOST_AT_ONCE = 4096


class Attached:
    """One child's segment."""

    def __init__(self, service: str, reader: Reader, path: str) -> None:
        """Take the reader of the segment at ``path`` over."""
        self.service = service
        self.path = path
        self.reader = reader
        self._names: list[str] = []

    def names(self) -> list[str]:
        """Give the probes' names, by id."""
        return self._names

    def read(self) -> list[SpanState]:
        """Give all spans that ended since the last call."""
        spans: list[SpanState] = []
        while more := self.reader.read(_MOST_AT_ONCE):
            spans += more
            if len(more) < _MOST_AT_ONCE:
                break
        if any(span[0] >= len(self._names) for span in spans) or not self._names:
            self._names = [probe[0] for probe in self.reader.probes()]
        return spans

    def missed(self) -> tuple[int, int]:
        """Give how many records were overwritten before they were read, and how many were torn."""
        return self.reader.missed()

    def budget(self) -> dict[str, Any]:
        """Give mode, use and limits, and which traces were kept; empty where the process is gone."""
        from otel_trading.budget import overview
        from otel_trading.errors import SegmentError

        try:
            return overview.document(self.path)
        except SegmentError:
            return {}

    def close(self) -> None:
        """Let go of the file."""
        self.reader.close()


def attach(service: str, pid: int, directory: Path) -> Attached:
    """Attach to the segment that process ``pid`` made in ``directory``; raises DemoError where there is none."""
    from otel_trading import segment

    path = next((found.path for found in segment.segments(directory) if found.pid == pid), None)
    if path is None:
        message = f"the {service} process records nothing: it has no segment in {directory}"
        raise DemoError(message)
    return Attached(service, segment.attach(path), path)


def directory() -> Path:
    """Make a directory of this run's own, of mode 0700.

    ``OTEL_TRADING_DIR`` says where; else it is in /dev/shm where that has room for three segments, and in the
    directory for temporary files otherwise (in a container, /dev/shm is often too small).
    """
    import tempfile

    where = os.environ.get("OTEL_TRADING_DIR") or _shared_memory()
    try:
        if where:
            Path(where).mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="otel-trading-demo-", dir=where))
    except OSError as error:
        message = f"can not make a directory for the segments: {error}; name another with OTEL_TRADING_DIR"
        raise DemoError(message) from None


_NEEDED = 160 * 1024 * 1024  # three segments, and some room


def _shared_memory() -> str | None:
    try:
        space = os.statvfs("/dev/shm")  # noqa: S108  not a file: where shared memory is
    except OSError:
        return None
    return "/dev/shm" if space.f_bavail * space.f_frsize > _NEEDED else None  # noqa: S108
