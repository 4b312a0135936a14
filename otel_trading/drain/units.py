"""Numbers for people: durations, counts, rates, and bytes in a few characters."""

from __future__ import annotations

import math

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_THOUSANDS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def seconds(value: float) -> str:
    """Return a duration in three digits: ``850 ns``, ``1.23 µs``, ``12.3 ms``, ``1.50 s``; a dash for NaN."""
    if math.isnan(value):
        return "–"
    if value == 0.0:
        return "0 s"
    for size, unit in _SECONDS:
        if abs(value) >= size * 0.9995:
            return f"{_three(value / size)} {unit}"
    return f"{_three(value / 1e-9)} ns"


def number(value: float) -> str:
    """Return a number with three significant digits or, below 100,000, a whole one as it is; a dash for NaN."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 100_000:  # noqa: PLR2004
        return str(int(value))
    for size, unit in _THOUSANDS:
        if abs(value) >= size * 0.9995:
            return f"{_three(value / size)}{unit}"
    return _three(value)


def rate(value: float) -> str:
    """Return a rate a second."""
    return f"{number(value)}/s"


def size(value: float) -> str:
    """Return a number of bytes."""
    for step, unit in _BYTES:
        if value >= step:
            return f"{_three(value / step)} {unit}"
    return f"{value:.0f} B"


def _three(value: float) -> str:
    """Return three significant digits, without an exponent where that is shorter."""
    text = f"{value:.3g}"
    if "e" in text:
        return f"{value:.0f}" if 1 <= abs(value) < 1e6 else text  # noqa: PLR2004
    missing = 3 - sum(map(str.isdigit, text.lstrip("-0.")))
    if missing > 0:
        text += ("" if "." in text else ".") + "0" * missing
    return text
