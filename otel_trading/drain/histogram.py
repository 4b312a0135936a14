"""Base-2 exponential histograms: quantiles, merging, downscaling, and classic buckets.

The layout is OpenTelemetry's: at scale s the base is ``2 ** 2 ** -s``, and bucket i covers
``(base ** i, base ** (i + 1)]``.  At scale 6, which the recorder uses, each factor of two has 64 buckets,
and a quantile is off by at most ``(base - 1) / (base + 1)`` = 0.55 % of its value.
"""

from __future__ import annotations

import math
from array import array

from otel_trading.drain.buckets import Buckets, border, dense, index_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otel_trading._native import HistogramState

SCALE = 6
"""The recorder's scale: 64 buckets for each factor of two."""


class ExponentialHistogram:
    """An immutable exponential histogram; make one with ``from_state``, or without arguments an empty one.

    ``min`` and ``max`` are NaN in an empty histogram and in one made by ``since`` where they are not known.
    """

    __slots__ = ("count", "max", "min", "negative", "positive", "scale", "sum", "zero_count")

    scale: int
    count: int
    sum: float
    min: float
    max: float
    zero_count: int
    positive: Buckets
    negative: Buckets

    def __init__(
        self,
        scale: int = SCALE,
        positive: Buckets | None = None,
        negative: Buckets | None = None,
        zero_count: int = 0,
        *,
        total: float = 0.0,
        low: float = math.nan,
        high: float = math.nan,
    ) -> None:
        """Make one of its parts; ``total``, ``low`` and ``high`` are the sum, least and greatest value."""
        self.scale = scale
        self.positive = positive if positive is not None else Buckets()
        self.negative = negative if negative is not None else Buckets()
        self.zero_count = zero_count
        self.count = zero_count + sum(self.positive.counts) + sum(self.negative.counts)
        self.sum = total
        self.min = low if self.count else math.nan
        self.max = high if self.count else math.nan

    @classmethod
    def from_state(cls, state: HistogramState) -> ExponentialHistogram:
        """Make one of a backend's state; about a microsecond for each hundred buckets."""
        scale, _, total, low, high, zero_count, positive_offset, positive, negative_offset, negative = state
        return cls(
            scale,
            Buckets(positive_offset, array("Q", positive)),
            Buckets(negative_offset, array("Q", negative)),
            zero_count,
            total=total,
            low=low,
            high=high,
        )

    @classmethod
    def of(cls, values: Iterable[float], scale: int = SCALE) -> ExponentialHistogram:
        """Make one of observations.  Raises ValueError for one that is not finite."""
        positive: dict[int, int] = {}
        negative: dict[int, int] = {}
        zeros, total = 0, 0.0
        low, high = math.inf, -math.inf
        for value in values:
            if value:
                side, index = (positive if value > 0 else negative), index_of(abs(value), scale)
                side[index] = side.get(index, 0) + 1
            else:
                zeros += 1
            total += value
            low, high = min(low, value), max(high, value)
        return cls(scale, dense(positive), dense(negative), zeros, total=total, low=low, high=high)

    def state(self) -> HistogramState:
        """Return what ``from_state`` takes."""
        return (
            self.scale,
            self.count,
            self.sum,
            self.min,
            self.max,
            self.zero_count,
            self.positive.offset,
            self.positive.counts.tobytes(),
            self.negative.offset,
            self.negative.counts.tobytes(),
        )

    @property
    def base(self) -> float:
        """The ratio of a bucket's upper border to its lower one."""
        return float(2.0 ** (2.0**-self.scale))

    @property
    def mean(self) -> float:
        """The exact mean (up to rounding of the sum); NaN when empty."""
        return self.sum / self.count if self.count else math.nan

    def __eq__(self, other: object) -> bool:
        """Compare everything but the sum's rounding."""
        return (
            isinstance(other, ExponentialHistogram)
            and (self.scale, self.zero_count, self.positive, self.negative)
            == (other.scale, other.zero_count, other.positive, other.negative)
            and math.isclose(self.sum, other.sum, rel_tol=1e-9, abs_tol=1e-12)
            and (_same(self.min, other.min) and _same(self.max, other.max))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the figures, without the buckets."""
        return (
            f"<ExponentialHistogram scale={self.scale} count={self.count} sum={self.sum:g}"
            f" min={self.min:g} max={self.max:g}>"
        )

    def quantile(self, q: float) -> float:
        """Return the nearest-rank quantile, for ``q`` from 0 to 1; NaN when empty.

        The value is the point of the rank's bucket from which both borders are equally far in relative terms,
        so the relative error is at most ``(base - 1) / (base + 1)``.  The lowest and the highest rank are exact.
        """
        return self.quantiles((q,))[0]

    def quantiles(self, qs: Sequence[float]) -> list[float]:
        """Return several quantiles (ascending ``qs``) in one walk over the buckets."""
        if not self.count:
            return [math.nan] * len(qs)
        values = []
        steps = self._ascending()
        value, reached = next(steps)
        for q in qs:
            rank = _rank(q, self.count)
            while reached < rank:
                value, more = next(steps)
                reached += more
            values.append(self._clamped(value, rank))
        return values

    def _ascending(self) -> Iterator[tuple[float, int]]:
        """Yield (value, count) of all buckets that are not empty, lowest value first."""
        base = self.base
        # 2lu / (l + u) with u = l * base: the point with the least greatest relative error.
        centre = 2.0 * base / (1.0 + base)
        for position in range(len(self.negative) - 1, -1, -1):
            if self.negative.counts[position]:
                yield (
                    -border(self.negative.offset + position, self.scale) * centre,
                    self.negative.counts[position],
                )
        if self.zero_count:
            yield 0.0, self.zero_count
        for index, count in enumerate(self.positive.counts, self.positive.offset):
            if count:
                yield border(index, self.scale) * centre, count

    def _clamped(self, value: float, rank: int) -> float:
        # Comparisons with a NaN are false, so an unknown least or greatest value does not clamp.
        if value < self.min or (rank <= 1 and self.min == self.min):
            return self.min
        if value > self.max or (rank >= self.count and self.max == self.max):
            return self.max
        return value

    def merge(self, other: ExponentialHistogram) -> ExponentialHistogram:
        """Return both together, exactly; of two scales the lower is taken."""
        scale = min(self.scale, other.scale)
        mine, theirs = self.rescaled(scale), other.rescaled(scale)
        return ExponentialHistogram(
            scale,
            mine.positive.plus(theirs.positive),
            mine.negative.plus(theirs.negative),
            mine.zero_count + theirs.zero_count,
            total=mine.sum + theirs.sum,
            low=_least(mine.min, theirs.min),
            high=_greatest(mine.max, theirs.max),
        )

    def since(self, earlier: ExponentialHistogram) -> ExponentialHistogram:
        """Return what came after ``earlier``, a former state of this same histogram.

        The least and the greatest value are known only where they changed since, and are NaN otherwise.
        Raises OverflowError where ``earlier`` is not a former state (some count is higher in it).
        """
        if not earlier.count:
            return self
        if self.zero_count < earlier.zero_count:
            message = "not a former state of this histogram: it has more zeros"
            raise OverflowError(message)
        scale = min(self.scale, earlier.scale)
        mine, theirs = self.rescaled(scale), earlier.rescaled(scale)
        return ExponentialHistogram(
            scale,
            mine.positive.plus(theirs.positive, -1),
            mine.negative.plus(theirs.negative, -1),
            mine.zero_count - theirs.zero_count,
            total=mine.sum - theirs.sum,
            low=mine.min if mine.min < theirs.min else math.nan,
            high=mine.max if mine.max > theirs.max else math.nan,
        )

    def rescaled(self, scale: int) -> ExponentialHistogram:
        """Return this at a lower scale.  Raises ValueError for a higher one: what is lost is lost."""
        if scale == self.scale:
            return self
        if scale > self.scale:
            message = f"a histogram of scale {self.scale} cannot be refined to scale {scale}"
            raise ValueError(message)
        steps = self.scale - scale
        return ExponentialHistogram(
            scale,
            self.positive.coarser(steps),
            self.negative.coarser(steps),
            self.zero_count,
            total=self.sum,
            low=self.min,
            high=self.max,
        )

    def cumulative(self, bounds: Sequence[float]) -> list[int]:
        """Return how many observations are ≤ each bound: classic buckets, exactly.

        A bound is 0 or a power of two that is a bucket border at this scale.  Raises ValueError for another.
        """
        return [self._at_most(bound) for bound in bounds]

    def _at_most(self, bound: float) -> int:
        below = sum(self.negative.counts) + self.zero_count
        if bound == 0.0:
            return below
        mantissa, exponent = math.frexp(bound)
        # bound = 2 ** (exponent - 1) where the mantissa is exactly one half.
        power = exponent - 1
        if mantissa != 0.5 or (self.scale < 0 and power % (1 << -self.scale)):  # noqa: PLR2004
            message = f"{bound!r} is not a bucket border at scale {self.scale}: only powers of two are"
            raise ValueError(message)
        index = power << self.scale if self.scale >= 0 else power >> -self.scale
        return below + self.positive.below(index)


def _rank(q: float, count: int) -> int:
    """Return the nearest rank: the least k with k / count ≥ q, at least 1."""
    if not 0.0 <= q <= 1.0:
        message = f"a quantile is between 0 and 1, not {q!r}"
        raise ValueError(message)
    rank = max(1, min(count, math.ceil(q * count)))
    # The product may be rounded up past a whole number (0.07 * 100 > 7).
    if rank > 1 and (rank - 1) / count >= q:
        rank -= 1
    return rank


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _least(one: float, other: float) -> float:
    return other if math.isnan(one) else one if math.isnan(other) else min(one, other)


def _greatest(one: float, other: float) -> float:
    return other if math.isnan(one) else one if math.isnan(other) else max(one, other)
