"""Numbers that exporting reads from standard ``OTEL_*`` variables."""

from __future__ import annotations

import math
import os
import threading

from otel_trading.errors import ConfigurationError


def milliseconds(variable: str, default: float) -> float:
    """Return an environment variable's milliseconds in seconds.  Raises ConfigurationError for what is none."""
    text = os.environ.get(variable, "").strip()
    try:
        value = float(text or default)
    except ValueError:
        value = math.nan
    if not 0 < value <= threading.TIMEOUT_MAX:
        message = f"{variable}={text!r} is not a positive number of milliseconds"
        raise ConfigurationError(message)
    return value / 1000.0


def whole(variable: str) -> int | None:
    """Return an environment variable's positive whole number, or None where it is not set.

    Raises ConfigurationError for what is no such number.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        message = f"{variable}={text!r} is not a positive whole number"
        raise ConfigurationError(message)
    return value
