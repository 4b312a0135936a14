"""The governor: what monitoring may cost, what it costs, and what is given up to keep to that."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def govern_start() -> None:
    """Start the governor's thread."""


def govern_stop() -> None:
    """Stop it."""


def govern(readings: Mapping[str, float] | None = None, /) -> int:  # noqa: ARG001
    """Make one tick."""
    return 0


def await_decision(number: int, timeout: float, /) -> int:
    """Wait for a decision."""
    time.sleep(min(timeout, 1.0))
    return number


def fit_buffers() -> int:
    """Give the rings their size."""
    return 0


def count_thread(on: bool, /) -> None:  # noqa: FBT001  the interface
    """Count the calling thread's CPU time as monitoring's."""


def count_io(network_bytes: int, disk_operations: int, estimated_bytes: int = 0, /) -> None:
    """Count what an exporter sent."""


def market(symbol: str, exchange_ns: int, price: float, volume: float, /) -> None:
    """Note an update."""


def market_condition(volatility: float, volume: float, /) -> None:
    """Take the market's condition from the program."""
