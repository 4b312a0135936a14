"""Robust trends: what they say of lines, noise, steps, and of nothing."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_trading.forensics import trends

NUMBERS = st.floats(-1e9, 1e9)


@given(slope=st.floats(-100.0, 100.0), base=st.floats(-1e3, 1e3), count=st.integers(4, 300))
def test_a_line_is_found(slope: float, base: float, count: int) -> None:
    """The trend of points on a line is that line."""
    found = trends.trend([(float(t), base + slope * t) for t in range(count)])
    assert found is not None
    assert found.slope == pytest.approx(slope, rel=1e-6, abs=1e-6)
    assert found.begin == pytest.approx(base, rel=1e-6, abs=1e-5)
    assert found.end == pytest.approx(base + slope * (count - 1), rel=1e-6, abs=1e-5)
    assert found.seconds == count - 1


def test_odd_values_change_nothing() -> None:
    """A fifth of the points may be anything, and the slope stays."""
    numbers = random.Random(7)
    points = [(float(t), 100.0 + 2.0 * t + numbers.uniform(-1.0, 1.0)) for t in range(100)]
    for t in numbers.sample(range(100), 20):
        points[t] = (float(t), numbers.uniform(-1e6, 1e6))
    found = trends.trend(points)
    assert found is not None
    assert found.slope == pytest.approx(2.0, abs=0.1)


def test_noise_has_no_direction() -> None:
    """What only goes up and down has a tau near 0."""
    numbers = random.Random(11)
    found = trends.trend([(float(t), numbers.uniform(0.0, 1.0)) for t in range(200)])
    assert found is not None
    assert abs(found.tau) < 0.3


@pytest.mark.parametrize(
    "points", [[], [(0.0, 1.0)], [(1.0, 2.0)] * 10, [(0.0, None), (1.0, math.nan), (2.0, math.inf), (3.0, 1.0)]]
)
def test_too_little_has_no_trend(points: list[tuple[float, float | None]]) -> None:
    """Fewer than four known values, or no time between them, have none."""
    assert trends.trend(points) is None


@given(st.lists(st.tuples(NUMBERS, st.none() | st.floats()), max_size=50))
def test_any_points_do(points: list[tuple[float, float | None]]) -> None:
    """Whatever the points are, there is a trend of finite figures, or none."""
    found = trends.trend(points)
    assert found is None or (-1.0 <= found.tau <= 1.0 and found.seconds > 0.0 and not math.isnan(found.slope))


def test_many_points_are_thinned_out() -> None:
    """Of a hundred thousand points 120 are compared with each other, the last one among them."""
    found = trends.trend([(float(t), float(t)) for t in range(100_000)])
    assert found is not None
    assert found.points == 120
    assert found.end == 99_999.0


def test_rates_of_a_count() -> None:
    """A count becomes its rate; one that begins anew counts as nothing, and no time as no step."""
    assert trends.rates([(0.0, 10.0), (2.0, 30.0), (2.0, 31.0), (3.0, 5.0)]) == [(2.0, 10.0), (3.0, 0.0)]


def test_median_and_relative_change() -> None:
    """The middle of an even number of values lies between two; growth from nothing is infinite."""
    assert trends.median([3.0, 1.0, 2.0, 10.0]) == 2.5
    assert math.isnan(trends.median([]))
    assert trends.Trend(1.0, 0.0, 5.0, 1.0, 5.0, 6).relative == math.inf
    assert trends.Trend(0.0, 0.0, 0.0, 0.0, 5.0, 6).relative == 0.0
    assert trends.Trend(1.0, 10.0, 15.0, 1.0, 5.0, 6).relative == 0.5
