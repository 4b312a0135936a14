"""What a check finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from otel_trading.config import Settings
    from otel_trading.config.effective import Effective

OK, WARN, FAIL = "ok", "warn", "fail"


class Check(NamedTuple):
    """One finding: ``state`` is ok, warn or fail; ``remedy`` is there where it is not ok."""

    name: str
    state: str
    message: str
    remedy: str = ""


class Situation(NamedTuple):
    """What the checks look at."""

    effective: Effective
    settings: Settings
    """Those of ``effective``, or the defaults where it has mistakes."""
    directory: str
    timeout: float
    """Seconds that one attempt at the network may take."""
