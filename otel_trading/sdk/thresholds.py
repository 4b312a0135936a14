"""OpenTelemetry's consistent probability sampling: the threshold and the randomness of a trace, in its ``tracestate``.

A trace is taken when its 56 random bits are not below the threshold; so one that a share of 0.1 takes, one of 0.5 takes
too.  ``ot=th:`` tells the threshold, and thereby how many traces each taken one stands for; the randomness is the low
56 bits of the trace id, or what ``ot=rv:`` says.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ALL = 1 << 56
"""The threshold that nothing reaches."""

MASK = ALL - 1
"""Of the bits of a trace id that are its randomness."""

KEY = "ot"
"""OpenTelemetry's member of a tracestate."""

_DIGITS = 14
_LONGEST = 256
_HEX = frozenset("0123456789abcdef")


def of_rate(rate: float) -> int:
    """Return the threshold of a share, from 0 to 1."""
    return ALL - round(rate * ALL)


def fields(text: str) -> dict[str, str | None]:
    """Take OpenTelemetry's member of a tracestate apart: ``th:8;rv:…``; {} where it is longer than it may be."""
    if len(text) > _LONGEST:
        return {}
    found: dict[str, str | None] = {}
    for part in text.split(";"):
        key, colon, value = part.partition(":")
        found[key] = value if colon else None
    return found


def threshold(text: str | None) -> int | None:
    """Read a threshold: up to 14 digits, without the zeros at the end; None for what is none."""
    if not text or len(text) > _DIGITS or not _HEX.issuperset(text):
        return None
    return int(text.ljust(_DIGITS, "0"), 16)


def randomness(found: Mapping[str, str | None], trace_id: int) -> int:
    """Read a trace's randomness, 56 bits: what its ``fields`` say, else the low bits of its id."""
    text = found.get("rv")
    if text is not None and len(text) == _DIGITS and _HEX.issuperset(text):
        return int(text, 16)
    return trace_id & MASK


def written(number: int) -> str:
    """Write a threshold."""
    return f"{number:014x}".rstrip("0") or "0"


def of_header(header: str | None) -> int | None:
    """Return the threshold of a whole ``tracestate``; None where it has none that can be read."""
    for member in (header or "").split(","):
        key, equals, value = member.strip().partition("=")
        if equals and key.rstrip() == KEY:
            return threshold(fields(value.strip()).get("th"))
    return None
