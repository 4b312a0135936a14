"""The file that a measurement's results go to."""

from __future__ import annotations

from pathlib import Path

from otel_trading.bench.children import BenchmarkError


def require_writable(path: str) -> None:
    """Find out before the measuring whether its results can be written.  Raises BenchmarkError where they can not."""
    try:
        with Path(path).open("a", encoding="utf-8"):
            pass
    except OSError as error:
        message = f"cannot write {path} ({error.strerror}): name another file with --json"
        raise BenchmarkError(message) from error
