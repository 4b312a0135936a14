"""The buckets of exponential histograms: their borders, counts, and how they become coarser or classic ones."""

from __future__ import annotations

import math
from array import array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TIME_BOUNDS = tuple(2.0**power for power in range(-20, 5))
"""Classic buckets of histograms in seconds: powers of two, 0.95 µs to 16 s; borders of our own buckets, so exact."""

VALUE_BOUNDS = (0.0, *(2.0**power for power in range(-10, 21)))
"""Classic buckets of all other histograms: 0 and powers of two, about 0.001 to 1,000,000."""


class Buckets:
    """Consecutive counts: ``counts[i]`` is of bucket ``offset + i``.  No empty bucket at either end."""

    __slots__ = ("counts", "offset")

    offset: int
    counts: array[int]

    def __init__(self, offset: int = 0, counts: Iterable[int] = ()) -> None:
        """Take the counts (an array is not copied); empty buckets at both ends are cut off."""
        values = counts if isinstance(counts, array) else array("Q", counts)
        first, last = 0, len(values)
        while last > first and not values[last - 1]:
            last -= 1
        while first < last and not values[first]:
            first += 1
        self.counts = values if last - first == len(values) else values[first:last]
        self.offset = offset + first if self.counts else 0

    def __len__(self) -> int:
        """Return the number of buckets, those in between that are empty included."""
        return len(self.counts)

    def __eq__(self, other: object) -> bool:
        """Compare offsets and counts."""
        return isinstance(other, Buckets) and self.offset == other.offset and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the constructor's call."""
        return f"Buckets({self.offset}, {self.counts.tolist()})"

    def coarser(self, steps: int) -> Buckets:
        """Return these at a scale lower by ``steps``: each step makes one bucket of two."""
        if not steps or not self.counts:
            return self
        # An arithmetic shift rounds towards minus infinity, which is what bucket (base^i, base^(i+1)] asks for.
        low = self.offset >> steps
        high = (self.offset + len(self.counts) - 1) >> steps
        counts = array("Q", bytes(8 * (high - low + 1)))
        for index, count in enumerate(self.counts, self.offset):
            counts[(index >> steps) - low] += count
        return Buckets(low, counts)

    def plus(self, other: Buckets, sign: int = 1) -> Buckets:
        """Return the sum (or, with ``sign`` -1, the difference) at the same scale.

        Raises OverflowError where a difference would be negative.
        """
        if not other.counts:
            return self
        if not self.counts:
            low, high = other.offset, other.offset + len(other.counts)
        else:
            low = min(self.offset, other.offset)
            high = max(self.offset + len(self.counts), other.offset + len(other.counts))
        counts = array("Q", bytes(8 * (high - low)))
        if self.counts:
            start = self.offset - low
            counts[start : start + len(self.counts)] = self.counts
        for position, count in enumerate(other.counts, other.offset - low):
            if count:
                counts[position] += sign * count
        return Buckets(low, counts)

    def below(self, index: int) -> int:
        """Return how many observations are in buckets before bucket ``index``."""
        return sum(self.counts[: max(0, index - self.offset)]) if self.counts else 0


def classic_bounds(unit: str) -> tuple[float, ...]:
    """Return the bounds of a histogram's classic buckets, by its unit."""
    return TIME_BOUNDS if unit == "s" else VALUE_BOUNDS


def border(index: int, scale: int) -> float:
    """Return the lower border of bucket ``index``: exact at powers of two; 0.0 or inf beyond a float's range."""
    if scale <= 0:
        power, fraction = index << -scale, 0.0
    else:
        power, fraction = index >> scale, (index & ((1 << scale) - 1)) / (1 << scale)
    try:
        return math.ldexp(2.0**fraction, power)
    except OverflowError:
        return math.inf


def index_of(value: float, scale: int) -> int:
    """Return the bucket of a positive value: exact at powers of two, elsewhere up to a logarithm's rounding.

    Raises ValueError for a value that is not positive and finite.
    """
    if not 0.0 < value < math.inf:
        message = f"{value!r} is in no bucket: only positive, finite values are"
        raise ValueError(message)
    mantissa, exponent = math.frexp(value)
    if scale <= 0:
        # A power of two is the upper border of the bucket below it.
        return (exponent - 1 - (mantissa == 0.5)) >> -scale  # noqa: PLR2004 - what frexp gives for a power of two
    within = math.ceil(math.log2(2.0 * mantissa) * (1 << scale)) - 1
    return ((exponent - 1) << scale) + within


def dense(counts: dict[int, int]) -> Buckets:
    """Return counts by bucket as buckets."""
    if not counts:
        return Buckets()
    low = min(counts)
    values = array("Q", bytes(8 * (max(counts) - low + 1)))
    for index, count in counts.items():
        values[index - low] = count
    return Buckets(low, values)
