"""What can go wrong in the demo; each says what was wrong, where, and what to do."""

from __future__ import annotations

from otel_trading.errors import OtelTradingError


class DemoError(OtelTradingError):
    """The demo could not run."""

    exit_code = 2


class RecordingError(DemoError):
    """A recording that can not be replayed; the message names the file and the line."""

    def __init__(self, path: str, line: int, reason: str) -> None:
        """Say that ``line`` (from 1) of ``path`` is wrong for ``reason``."""
        super().__init__(f"{path}, line {line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason
