"""Exponential histograms against exact arithmetic: buckets, quantiles, merging, downscaling, classic buckets."""

from __future__ import annotations

import math
import random
from array import array

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from otel_trading.drain.buckets import TIME_BOUNDS, VALUE_BOUNDS, Buckets, border, classic_bounds, index_of
from otel_trading.drain.histogram import ExponentialHistogram

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
# (base - 1) / (base + 1) at scale 6, and a hair for the rounding of powers.
PROMISED = (2 ** (1 / 64) - 1) / (2 ** (1 / 64) + 1) * (1 + 1e-9)

positive = st.floats(min_value=1e-300, max_value=1e300)
durations = st.floats(min_value=1e-8, max_value=100.0)
anything = st.one_of(positive, positive.map(lambda value: -value), st.just(0.0))


def nearest_rank(values: list[float], q: float) -> float:
    """Return the nearest-rank quantile: of the least rank k for which k / n ≥ q."""
    ranked = sorted(values)
    return next(value for rank, value in enumerate(ranked, 1) if rank / len(ranked) >= q)


def assert_quantiles(values: list[float], error: float = PROMISED) -> None:
    """Compare all quantiles of a histogram with the exact ones."""
    histogram = ExponentialHistogram.of(values)
    for q, found in zip(QUANTILES, histogram.quantiles(QUANTILES), strict=True):
        exact = nearest_rank(values, q)
        assert abs(found - exact) <= error * abs(exact), (q, found, exact)


def lognormal(count: int, spread: float) -> list[float]:
    """Return durations around 5 µs, as a stage of a program has them."""
    source = random.Random(count)
    return [source.lognormvariate(math.log(5e-6), spread) for _ in range(count)]


def pareto(count: int, shape: float) -> list[float]:
    """Return durations from 1 µs up, with a heavy tail."""
    source = random.Random(count)
    return [1e-6 * source.paretovariate(shape) for _ in range(count)]


REAL_LIKE = {
    "tight": lognormal(20_000, 0.1),
    "wide": lognormal(20_000, 2.0),
    "two modes, fast and garbage-collected": lognormal(19_900, 0.2) + [value * 5_000 for value in lognormal(100, 0.1)],
    "a tail without a mean": pareto(20_000, 0.7),
    "whole nanoseconds": [n * 1e-9 for n in range(1, 5_000)],
}

# Beyond 2^-64 and 2^64, where the recorder's buckets end.
BEYOND = "the ends of what a float can be"

ADVERSARIAL = {
    "one value": [1.2345e-6] * 1_000,
    "a single observation": [0.3],
    "only powers of two": [2.0**power for power in range(-30, 10)] * 7,
    "just above powers of two": [math.nextafter(2.0**power, math.inf) for power in range(-30, 10)],
    "just below powers of two": [math.nextafter(2.0**power, 0.0) for power in range(-30, 10)],
    "all borders": [border(index, 6) for index in range(-1_300, 300)],
    "just above all borders": [math.nextafter(border(index, 6), math.inf) for index in range(-1_300, 300)],
    "one far out": [1e-6] * 999 + [1e6],
    "half zeros": [0.0] * 500 + [1e-3] * 500,
    "both signs": [-value for value in lognormal(3_000, 1.0)] + [0.0] * 10 + lognormal(3_000, 1.0),
    BEYOND: [5e-324, 2.2e-308, 1.7e308],
}


@pytest.mark.parametrize("name", REAL_LIKE)
def test_quantiles_of_real_like_distributions_are_within_the_promise(name: str) -> None:
    """Every quantile is within 0.55 % of the exact nearest-rank one, so within 1 %."""
    assert_quantiles(REAL_LIKE[name])


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_quantiles_of_adversarial_distributions_are_within_the_promise(name: str) -> None:
    """Distributions made to sit on borders, or to be far apart, are no worse."""
    assert_quantiles(ADVERSARIAL[name])


@given(st.lists(durations, min_size=1, max_size=200))
def test_quantiles_of_any_durations_are_within_one_percent(values: list[float]) -> None:
    """Whatever the durations, no quantile is off by more than 1 %."""
    assert_quantiles(values, 0.01)


@given(st.lists(anything, min_size=1, max_size=100))
def test_quantiles_of_any_values_are_within_one_percent(values: list[float]) -> None:
    """Negative values and zeros are ranked where they belong."""
    assert_quantiles(values, 0.01)


@given(st.integers(1, 300), st.floats(0, 1))
@example(100, 0.07)
@example(1000, 0.999)
@example(10, 0.9)
def test_rank_is_exact(count: int, q: float) -> None:
    """The rank is the least k with k / n ≥ q, also where q * n is rounded up past a whole number."""
    values = [2.0**index for index in range(count)]
    exact = nearest_rank(values, q)
    assert abs(ExponentialHistogram.of(values).quantile(q) - exact) <= 0.01 * exact


def test_quantile_refuses_what_is_no_share() -> None:
    """A q outside 0 to 1, or no number, is an error of the caller's."""
    histogram = ExponentialHistogram.of([1.0])
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            histogram.quantile(q)


def test_lowest_and_highest_rank_are_exact() -> None:
    """The first and last rank give the least and the greatest value, not their buckets."""
    histogram = ExponentialHistogram.of([1.001, 1.002, 5.0])
    assert histogram.quantile(0.0) == 1.001
    assert histogram.quantile(1.0) == 5.0


def test_empty_histogram_has_no_quantiles() -> None:
    """An empty histogram gives NaN, and nothing that looks like a time."""
    histogram = ExponentialHistogram()
    assert histogram.count == 0
    assert all(math.isnan(value) for value in (histogram.quantile(0.5), histogram.min, histogram.max, histogram.mean))


@given(positive, st.integers(-4, 10))
@example(1.0, 6)
@example(5e-324, 6)
@example(math.nextafter(1.0, 2.0), 6)
def test_a_bucket_holds_what_is_above_its_lower_border_and_up_to_its_upper_one(value: float, scale: int) -> None:
    """Bucket i covers (base^i, base^(i+1)], up to the rounding of a logarithm."""
    index = index_of(value, scale)
    assert border(index, scale) <= value * (1 + 1e-12)
    assert value <= border(index + 1, scale) * (1 + 1e-12)


@given(st.integers(-1074, 1023), st.integers(-10, 20))
def test_powers_of_two_are_exactly_on_borders(power: int, scale: int) -> None:
    """A power of two is the upper border of its bucket, at every scale, without rounding."""
    assume(scale >= 0 or power % (1 << -scale) == 0)
    value = math.ldexp(1.0, power)
    index = index_of(value, scale)
    assert border(index + 1, scale) == value
    above = math.nextafter(value, math.inf)
    if power > -1022:
        assert index_of(above, scale) == index + 1


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_only_positive_finite_values_have_a_bucket(value: float) -> None:
    """Other values are refused."""
    with pytest.raises(ValueError, match="no bucket"):
        index_of(value, 6)


def test_borders_beyond_a_float_are_infinite() -> None:
    """A border that no float can hold is infinite, or zero, and not an error."""
    assert border(64 * 1024, 6) == math.inf
    assert border(-64 * 1100, 6) == 0.0


@given(st.lists(anything), st.lists(anything), st.integers(-2, 6), st.integers(-2, 6))
def test_merge_is_exact(left: list[float], right: list[float], left_scale: int, right_scale: int) -> None:
    """Two merged histograms are the histogram of all observations, at the lower of their scales."""
    merged = ExponentialHistogram.of(left, left_scale).merge(ExponentialHistogram.of(right, right_scale))
    whole = ExponentialHistogram.of(left, left_scale).rescaled(min(left_scale, right_scale))
    assert merged.count == len(left) + len(right)
    assert merged.scale == min(left_scale, right_scale)
    assert merged.positive.plus(whole.positive, -1) == (
        ExponentialHistogram.of(right, right_scale).rescaled(merged.scale).positive
    )
    assert merged.zero_count == (left + right).count(0.0)
    if left or right:
        assert (merged.min, merged.max) == (min(left + right), max(left + right))


@given(st.lists(anything, min_size=1), st.integers(0, 9))
def test_downscaling_is_what_the_lower_scale_would_have_recorded(values: list[float], steps: int) -> None:
    """Merging neighbours gives the same buckets as recording at the lower scale; powers of two stay exact."""
    # The middles of buckets, which rounding cannot move to a neighbour, and powers of two.
    values = [math.copysign(border(2 * index_of(abs(value), 6) + 1, 7), value) if value else 0.0 for value in values]
    values += [2.0**power for power in range(-10, 10)]
    histogram = ExponentialHistogram.of(values)
    lower = histogram.rescaled(6 - steps)
    again = ExponentialHistogram.of(values, 6 - steps)
    assert (lower.positive, lower.negative, lower.zero_count) == (again.positive, again.negative, again.zero_count)
    assert (lower.count, lower.sum, lower.min, lower.max) == (
        histogram.count,
        histogram.sum,
        histogram.min,
        histogram.max,
    )


def test_a_histogram_cannot_be_refined() -> None:
    """A higher scale than the present one is refused."""
    with pytest.raises(ValueError, match="refined"):
        ExponentialHistogram.of([1.0], 3).rescaled(4)


@given(st.lists(st.one_of(anything, st.integers(-25, 25).map(lambda power: 2.0**power))))
def test_classic_buckets_are_exact(values: list[float]) -> None:
    """Counts at powers of two are those of counting the values one by one."""
    histogram = ExponentialHistogram.of(values)
    for bounds in (TIME_BOUNDS, VALUE_BOUNDS):
        assert histogram.cumulative(bounds) == [sum(value <= bound for value in values) for bound in bounds]


@pytest.mark.parametrize(("bound", "scale"), [(3.0, 6), (-1.0, 6), (math.inf, 6), (math.nan, 6), (2.0, -1)])
def test_a_bound_that_is_no_border_is_refused(bound: float, scale: int) -> None:
    """A classic bucket that could not be exact is an error, not a guess."""
    with pytest.raises(ValueError, match="not a bucket border"):
        ExponentialHistogram.of([1.0], scale).cumulative([bound])


def test_classic_bounds_reach_from_a_microsecond_to_sixteen_seconds() -> None:
    """Times have 2^-20 to 2^4 seconds; other units have 0 and a wider range."""
    assert classic_bounds("s")[0] == 2.0**-20
    assert classic_bounds("s")[-1] == 16.0
    assert classic_bounds("bps")[0] == 0.0


@given(st.lists(anything), st.lists(anything))
def test_since_gives_what_came_later(before: list[float], later: list[float]) -> None:
    """The difference of two states of one histogram has exactly the buckets of what was recorded in between."""
    first = ExponentialHistogram.of(before)
    delta = ExponentialHistogram.of(before + later).since(first)
    expected = ExponentialHistogram.of(later)
    assert (delta.positive, delta.negative, delta.zero_count) == (
        expected.positive,
        expected.negative,
        expected.zero_count,
    )
    if later and before and max(later) > max(before):
        assert delta.max == max(later)


def test_since_refuses_what_is_not_a_former_state() -> None:
    """A histogram that began anew has lower counts, which is an error and not a wrapped count."""
    for former in ([1.0, 1.0], [0.0], [-1.0]):
        with pytest.raises(OverflowError):
            ExponentialHistogram.of([1.0]).since(ExponentialHistogram.of(former))


@given(st.lists(anything))
def test_state_survives_the_round_trip(values: list[float]) -> None:
    """A histogram made of another's state equals it."""
    histogram = ExponentialHistogram.of(values)
    again = ExponentialHistogram.from_state(histogram.state())
    assert again == histogram
    assert repr(again) == repr(histogram)


def recorded(name: str, values: list[float]) -> ExponentialHistogram:
    """Return what the backend's histogram makes of the values."""
    import otel_trading as ot
    from otel_trading._backend import core

    instrument = ot.histogram(name)
    for number, value in enumerate(values, 1):
        instrument.record(value)
        if number % 500 == 0:
            core.drain()
    (found,) = [entry for entry in core.snapshot()["instruments"] if entry["name"] == name]
    return ExponentialHistogram.from_state(found["total"])


@pytest.mark.parametrize("name", [name for name in (*REAL_LIKE, *ADVERSARIAL) if name != BEYOND])
def test_the_recorder_keeps_the_promise_too(recorder: object, name: str) -> None:
    """Through ring, drain, and snapshot every quantile is within 1 % of the exact one, and nothing is lost."""
    del recorder
    values = {**REAL_LIKE, **ADVERSARIAL}[name]
    histogram = recorded("measured", values)
    assert (histogram.count, histogram.min, histogram.max) == (len(values), min(values), max(values))
    assert histogram.sum == pytest.approx(math.fsum(values))
    for q, found in zip(QUANTILES, histogram.quantiles(QUANTILES), strict=True):
        exact = nearest_rank(values, q)
        assert abs(found - exact) <= 0.01 * abs(exact), (q, found, exact)


def test_the_recorder_counts_what_is_beyond_its_buckets(recorder: object) -> None:
    """Tinier than 2^-64 counts as zero, greater than 2^64 in the last bucket; least and greatest stay exact."""
    del recorder
    histogram = recorded("beyond", [5e-324, 2.0**-60, 1.7e308, -1e300])
    assert (histogram.count, histogram.zero_count) == (4, 1)
    assert (histogram.min, histogram.max) == (-1e300, 1.7e308)
    assert border(histogram.positive.offset + len(histogram.positive), 6) == 2.0**64
    assert histogram.quantile(0.75) == pytest.approx(2.0**-60, rel=0.01)


def test_the_recorder_puts_powers_of_two_exactly_on_borders(recorder: object) -> None:
    """So classic buckets made of a snapshot are exact, for values on their bounds as well."""
    del recorder
    values = [2.0**power for power in range(-25, 25)] + [math.nextafter(2.0**power, 9e9) for power in range(-25, 25)]
    histogram = recorded("powers", values)
    for bounds in (TIME_BOUNDS, VALUE_BOUNDS):
        assert histogram.cumulative(bounds) == [sum(value <= bound for value in values) for bound in bounds]


def test_a_state_with_empty_buckets_around_is_trimmed() -> None:
    """Backends may hand over their whole range; what is empty at its ends is cut off."""
    state = (6, 1, 1.0, 1.0, 1.0, 0, -10, array("Q", [0] * 9 + [1] + [0] * 5).tobytes(), 0, b"")
    histogram = ExponentialHistogram.from_state(state)
    assert histogram.positive == Buckets(-1, [1])
    assert histogram == ExponentialHistogram.of([1.0])
    assert repr(histogram.positive) == "Buckets(-1, [1])"
