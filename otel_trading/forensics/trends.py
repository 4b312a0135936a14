"""Trends that a few odd values do not change: Theil and Sen's slope, Kendall's tau, medians.  Plain Python, bounded."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_POINTS = 120  # 7,140 pairs
_FEWEST_POINTS = 4


class Trend(NamedTuple):
    """A line through points (seconds, value)."""

    slope: float
    """Change of the value a second: the median of the slopes of all pairs."""
    begin: float
    """The line's value at the first point."""
    end: float
    """The line's value at the last point."""
    tau: float
    """Pairs that rise less those that fall, as a share: 1 rises always, 0 goes nowhere, -1 falls always."""
    seconds: float
    """From the first to the last point."""
    points: int
    """Their number."""

    @property
    def change(self) -> float:
        """By how much the line changes."""
        return self.end - self.begin

    @property
    def relative(self) -> float:
        """The change as a share of the value at the beginning; infinite from nothing."""
        if self.begin > 0.0:
            return self.change / self.begin
        return math.inf if self.change > 0.0 else 0.0


def finite(points: Iterable[tuple[float, float | None]]) -> list[tuple[float, float]]:
    """Leave out what is not known, and sort by time."""
    return sorted((t, float(v)) for t, v in points if v is not None and math.isfinite(v) and math.isfinite(t))


def median(values: Sequence[float]) -> float:
    """Give the median; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Take at most so many points, evenly, the last one always."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(number * step)] for number in range(_MOST_POINTS)]


def trend(points: Iterable[tuple[float, float | None]]) -> Trend | None:
    """Give the robust trend of points (seconds, value); None of fewer than four, or where no time passes.

    At most 120 of them are used, which takes some 3 ms.
    """
    used = _thinned(finite(points))
    if len(used) < _FEWEST_POINTS or used[-1][0] <= used[0][0]:
        return None
    slopes, rising, pairs = [], 0, 0
    for number, (t, v) in enumerate(used):
        for later, w in used[number + 1 :]:
            pairs += 1
            rising += (w > v) - (w < v)
            if later > t:
                slopes.append((w - v) / (later - t))
    slope = median(slopes)
    # Through the median of what the line leaves over, so that an odd first or last value moves nothing.
    base = median([v - slope * (t - used[0][0]) for t, v in used])
    seconds = used[-1][0] - used[0][0]
    return Trend(slope, base, base + slope * seconds, rising / pairs, seconds, len(used))


def newest(points: Sequence[tuple[float, float]], seconds: float) -> list[tuple[float, float]]:
    """Take the points of the last ``seconds`` before the last one."""
    return [point for point in points if points and point[0] >= points[-1][0] - seconds]


def rates(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Turn a count that only rises into its rate a second, at the end of each step; steps back count as nothing."""
    return [(later, max(0.0, w - v) / (later - t)) for (t, v), (later, w) in pairwise(points) if later > t]
