"""Times as people write them."""

from __future__ import annotations

_UNITS = {"ns": 1, "us": 1_000, "\u00b5s": 1_000, "\u03bcs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_LONGEST_NS = 2**63 - 1
_SHORTEST_NS = 0.5  # less is rounded to nothing


def duration_ns(value: object) -> int:
    """Read a time: text with a unit ("5ms", "200us", "1s", "750ns"), seconds, or a ``timedelta``; nanoseconds.

    Raises ValueError for anything else, and for times under 1 ns or over 292 years.
    """
    number: float
    if isinstance(value, str):
        text = value.strip()
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz\u00b5\u03bc")
        unit = _UNITS.get(text[len(digits) :])
        if unit is None:
            raise ValueError(f"{value!r} is not a time: write a number with a unit, as in '5ms' (ns, us, ms or s)")
        try:
            number = float(digits) * unit
        except ValueError:
            raise ValueError(f"{value!r} is not a time: {digits!r} is not a number") from None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value * 1e9 if abs(value) < _LONGEST_NS else _LONGEST_NS * 2.0
    elif hasattr(value, "total_seconds"):
        number = value.total_seconds() * 1e9
    else:
        raise ValueError(f"{value!r} is not a time: give text such as '5ms', a number of seconds, or a timedelta")
    if not _SHORTEST_NS < number <= _LONGEST_NS:  # refuses NaN too
        raise ValueError(f"{value!r} is not a time between 1 ns and 292 years")
    return round(number)
