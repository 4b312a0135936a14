"""Tracestates by W3C's rules, and the threshold that OpenTelemetry's sampling puts into its member (``ot=th:…``)."""

from __future__ import annotations

import re

from otel_trading import _layout as at

_KEY = "ot"
_MOST = 32  # members
_LONGEST = 4000  # bytes of a header that is read
_LONGEST_VALUE = 256
_MOST_DIGITS = at.SAMPLE_BITS // 4
_RANDOM = (1 << at.SAMPLE_BITS) - 1
_UNIT = at.SAMPLE_BITS - at.THRESHOLD_BITS
_MEMBER = re.compile(
    r"([a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_DIGITS = re.compile(f"[0-9a-f]{{1,{_MOST_DIGITS}}}")


def _members(text: str | None) -> dict[str, str]:
    """Take a header apart; {} where it breaks a rule."""
    members: dict[str, str] = {}
    if not text or len(text.encode(errors="replace")) > _LONGEST:
        return members
    for part in text.split(","):
        stripped = part.strip(" \t")
        if not stripped:
            continue
        match = _MEMBER.fullmatch(stripped)
        if match is None or match[1] in members or len(members) == _MOST:
            return {}
        members[match[1]] = match[2]
    return members


def _fields(members: dict[str, str]) -> tuple[int | None, int | None, list[str]]:
    """Give threshold and randomness that a header's member of ours tells, and its other fields."""
    threshold = randomness = None
    rest = []
    for field in members.get(_KEY, "").split(";"):
        if field.startswith("th:"):
            if _DIGITS.fullmatch(field, 3):
                threshold = int(field[3:].ljust(_MOST_DIGITS, "0"), 16)
            continue
        if field.startswith("rv:") and len(field) == _MOST_DIGITS + 3 and _DIGITS.fullmatch(field, 3):
            randomness = int(field[3:], 16)
        if field:
            rest.append(field)
    return threshold, randomness, rest


def with_threshold(text: str | None, trace_id: int, threshold: int) -> str:
    """Say in a tracestate by which threshold, above 0, in 2 ** -16, its trace was kept.

    What it says of a higher one stays, unless the trace's randomness contradicts that.
    """
    members = _members(text)
    given, randomness, rest = _fields(members)
    if randomness is None:
        randomness = trace_id & _RANDOM
    if given is not None and threshold << _UNIT <= given <= randomness:
        return ",".join([f"{key}={other}" for key, other in members.items()])
    value = ";".join([f"th:{threshold:0{at.THRESHOLD_BITS // 4}x}".rstrip("0"), *rest])
    while len(value) > _LONGEST_VALUE:
        value = value[: value.rindex(";")]
    others = [f"{key}={other}" for key, other in members.items() if key != _KEY]
    return ",".join([f"{_KEY}={value.rstrip(' ')}", *others[: _MOST - 1]])
