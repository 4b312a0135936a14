"""What the drain keeps of one probe or histogram: base-2 exponential histograms in total and in windows.

The layout is OpenTelemetry's at scale 6: bucket i holds (base ** i, base ** (i + 1)], base = 2 ** (1 / 64).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from math import frexp, inf, ldexp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_trading._native import ExemplarState, HistogramState

SCALE = 6
_PER_OCTAVE = 1 << SCALE
_OCTAVES = 64  # values beyond 2 ** ±64 count in the outermost bucket, or as zero
_INDEX_MAX = _OCTAVES * _PER_OCTAVE - 1
_INDEX_MIN = -_OCTAVES * _PER_OCTAVE
_BORDERS = [2.0 ** (i / _PER_OCTAVE) / 2.0 for i in range(_PER_OCTAVE)]  # of mantissas, as frexp gives them
_SECONDS = 5
_FIVES = 12
_EXEMPLARS = 64
_NS = 1e-9
_BOUND_BYTES = 40  # of a number, and its place in a list
_FIRST = -30 * _PER_OCTAVE  # 2 ** -30 s is less than a nanosecond
_LAST = 14 * _PER_OCTAVE  # 2 ** 14 s are four hours and a half


def index_of(value: float) -> int:
    """Give the index of a positive value's bucket; below ``_INDEX_MIN`` the value counts as zero."""
    mantissa, exponent = frexp(value)
    return min((exponent - 1) * _PER_OCTAVE + bisect_left(_BORDERS, mantissa) - 1, _INDEX_MAX)


class _Nanoseconds:
    """Finds buckets of whole nanoseconds: one binary search, in C."""

    def __init__(self) -> None:
        self.bounds: list[int] = []

    def _fill(self) -> list[int]:
        """Find for each bucket the last nanosecond that is not past it."""
        bounds = []
        for index in range(_FIRST, _LAST):
            upper = index + 1
            last = int(ldexp(2.0 ** (upper % _PER_OCTAVE / _PER_OCTAVE), upper // _PER_OCTAVE) / _NS)
            while last > 0 and index_of(last * _NS) > index:
                last -= 1
            while index_of((last + 1) * _NS) <= index:
                last += 1
            bounds.append(last)
        self.bounds = bounds
        return bounds

    def indices(self, durations: Iterable[int]) -> list[int]:
        """Give the indices of durations above zero."""
        bounds = self.bounds or self._fill()
        past = len(bounds)
        found = [bisect_left(bounds, ns) for ns in durations]
        if past in found:
            return [i + _FIRST if i < past else index_of(ns * _NS) for i, ns in zip(found, durations)]  # noqa: B905
        return [i + _FIRST for i in found]


_nanoseconds = _Nanoseconds()


def table_bytes() -> int:
    """Tell about how many bytes the table of buckets takes."""
    return _BOUND_BYTES * len(_nanoseconds.bounds)


class Batch:
    """Observations of one kind, sorted into buckets before they are added anywhere."""

    __slots__ = ("high", "indices", "low", "negative", "total", "values", "zero")

    def __init__(self, values: Sequence[float], indices: list[int], negative: list[int], zero: int) -> None:
        self.values = values
        self.indices = indices  # of the positive values
        self.negative = negative
        self.zero = zero
        self.total = float(sum(values))
        self.low = min(values)
        self.high = max(values)

    @classmethod
    def of_durations(cls, durations: list[int]) -> Batch:
        """Sort whole nanoseconds, of which there is one at least; a negative one counts as zero."""
        positive = [ns for ns in durations if ns > 0]
        batch = cls(positive or [0], _nanoseconds.indices(positive), [], len(durations) - len(positive))
        batch.total *= _NS
        batch.low = batch.low * _NS if not batch.zero else 0.0
        batch.high *= _NS
        return batch

    @classmethod
    def of_values(cls, values: list[float]) -> Batch:
        """Sort values of any sign, of which there is one at least."""
        positive, negative, zero = [], [], 0
        for value in values:
            index = index_of(abs(value)) if value else _INDEX_MIN - 1
            if index < _INDEX_MIN:
                zero += 1
            elif value > 0:
                positive.append(index)
            else:
                negative.append(index)
        return cls(values, positive, negative, zero)


class Distribution:
    """An exponential histogram."""

    __slots__ = ("count", "high", "low", "negative", "positive", "total", "zero")

    def __init__(self) -> None:
        self.count = 0
        self.zero = 0
        self.total = 0.0
        self.low = inf
        self.high = -inf
        self.positive: Counter[int] = Counter()
        self.negative: Counter[int] = Counter()

    def add(self, batch: Batch) -> None:
        """Add observations."""
        self.positive.update(batch.indices)
        if batch.negative:
            self.negative.update(batch.negative)
        self.zero += batch.zero
        self.count += len(batch.indices) + len(batch.negative) + batch.zero
        self.total += batch.total
        self.low = min(self.low, batch.low)
        self.high = max(self.high, batch.high)

    def merge(self, other: Distribution) -> None:
        """Add another one."""
        if not other.count:
            return
        self.positive.update(other.positive)
        self.negative.update(other.negative)
        self.count += other.count
        self.zero += other.zero
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    def upper(self, quantile: float) -> float:
        """Give the upper bound of the bucket in which a quantile of what is not negative lies."""
        rank = quantile * (self.zero + sum(self.positive.values())) - self.zero
        for index in sorted(self.positive):
            rank -= self.positive[index]
            if rank <= 0:
                return float(2.0 ** ((index + 1) / _PER_OCTAVE))
        return 0.0

    def state(self) -> HistogramState:
        """Give it as ``_native.pyi`` says."""
        low, high = (self.low, self.high) if self.count else (0.0, 0.0)
        positive, negative = _counts(self.positive), _counts(self.negative)
        return (SCALE, self.count, self.total, float(low), float(high), self.zero, *positive, *negative)


def _counts(buckets: Counter[int]) -> tuple[int, bytes]:
    if not buckets:
        return 0, b""
    first = min(buckets)
    counts = array("Q", bytes(8 * (max(buckets) - first + 1)))
    for index, count in buckets.items():
        counts[index - first] = count
    return first, counts.tobytes()


class Aggregate:
    """The total, and windows of 1 s, 5 s and 1 min."""

    __slots__ = ("errors", "exemplars", "five", "fives", "second", "seconds", "sla_breaches", "slow_at", "total")

    def __init__(self) -> None:
        self.total = Distribution()  # without the second that is going on
        self.second = Distribution()  # that one
        self.seconds = [Distribution() for _ in range(_SECONDS)]  # finished ones
        self.five = Distribution()  # the unfinished piece of 5 s
        self.fives = [Distribution() for _ in range(_FIVES)]  # finished ones
        self.errors = 0
        self.sla_breaches = 0
        self.slow_at = 0  # the second in which its quantile was last looked at
        self.exemplars: dict[int, ExemplarState] = {}  # the latest of each power of two, by its low six bits

    def remember(self, exemplar: ExemplarState) -> None:
        """Keep an observation's trace."""
        self.exemplars[frexp(exemplar[0])[1] % _EXEMPLARS] = exemplar

    def tick(self, second: int) -> None:
        """End a second; ``second`` is its number, the same for all aggregates."""
        finished = self.second
        self.total.merge(finished)
        self.five.merge(finished)
        self.seconds[second % _SECONDS] = finished
        self.second = Distribution()
        if second % _SECONDS == _SECONDS - 1:
            self.fives[second // _SECONDS % _FIVES] = self.five
            self.five = Distribution()

    def all(self) -> HistogramState:
        """Give the total."""
        return _merged([self.total, self.second]).state()

    def minute(self, second: int) -> Distribution:
        """Give the window of a minute, as of the second that is going on."""
        # Eleven finished pieces (the unfinished one will replace the twelfth), and what is unfinished.
        replaced = second // _SECONDS % _FIVES
        pieces = [piece for number, piece in enumerate(self.fives) if number != replaced]
        return _merged([*pieces, self.five, self.second])

    def windows(self, second: int) -> dict[str, HistogramState]:
        """Give the windows, as of the second that is going on."""
        return {
            "1s": self.seconds[(second - 1) % _SECONDS].state(),
            "5s": _merged(self.seconds).state(),
            "1m": self.minute(second).state(),
        }


def _merged(distributions: Sequence[Distribution]) -> Distribution:
    merged = Distribution()
    for distribution in distributions:
        merged.merge(distribution)
    return merged


EMPTY = Distribution().state()
"""The state of a distribution without observations."""
