"""What a run of the demo is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked.  ``seconds`` None: 10 for the generator, the whole of a recording."""

    seconds: float | None = None
    rate: float = 500.0
    seed: int = 7
    replay: str | None = None
    speed: float = 1.0
    json: str | None = None
    traces: str | None = None
    plain: bool = False
    command: str = "otel-trading"
    """How to call this program again, for what is suggested at the end."""


DEFAULT_SECONDS = 10.0
UPDATES_AN_ORDER = 10
"""About so many updates of the market lead to one order."""

UPDATES_A_CANDLE = 11
"""Nearly every candle is traded on, and each trade comes back as two more updates."""

RECORDED_UPDATES_A_CANDLE = 5
"""Recordings are short, and their updates spread over many symbols."""

CONFIG = {
    "ring.slots": 16_384,
    "ring.thread_slots": 1_024,
    "ring.arena_bytes": 256 * 1024,
    "names.max": 4_096,
    "orders.max": 1_024,
}
"""Rings for seconds of this load, not for the busiest quarter of a minute that the defaults (65,536) hold."""
