"""Medians, quantiles, and how sure of them a few rounds make us."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 2_000


class Interval(NamedTuple):
    """An estimate with its 95 % bootstrap interval."""

    estimate: float
    low: float
    high: float

    def within(self, target: float) -> bool:
        """Tell whether the estimate meets an upper bound."""
        return self.estimate <= target


def median(values: Sequence[float], seed: int = 1) -> Interval:
    """Median of ``values``, with the interval in which 95 % of resampled medians lie.

    Raises ValueError without a value.
    """
    if not values:
        message = "a median of nothing: run at least one round"
        raise ValueError(message)
    choices = random.Random(seed).choices  # noqa: S311  resampling, not a secret
    medians = sorted(statistics.median(choices(values, k=len(values))) for _ in range(RESAMPLES))
    return Interval(statistics.median(values), quantile(medians, 0.025), quantile(medians, 0.975))


def ratio_of_medians(values: Sequence[float], reference: Sequence[float], seed: int = 1) -> Interval:
    """Median of ``values`` over median of ``reference``, resampled by round: entry i of both is round i.

    Raises ValueError where they differ in length or are empty.
    """
    pairs = list(zip(values, reference, strict=True))
    if not pairs:
        message = "a ratio of nothing: run at least one round"
        raise ValueError(message)
    choices = random.Random(seed).choices  # noqa: S311  resampling, not a secret

    def ratio(chosen: Sequence[tuple[float, float]]) -> float:
        return statistics.median(value for value, _ in chosen) / statistics.median(base for _, base in chosen)

    ratios = sorted(ratio(choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return Interval(ratio(pairs), quantile(ratios, 0.025), quantile(ratios, 0.975))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest entry of sorted ``ordered`` that at least ``share`` of all do not exceed.

    Raises ValueError without an entry, or where ``share`` is not from 0 to 1.
    """
    if not ordered or not 0.0 <= share <= 1.0:
        message = f"no quantile {share} of {len(ordered)} values"
        raise ValueError(message)
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(0, min(len(ordered), rank) - 1)]
