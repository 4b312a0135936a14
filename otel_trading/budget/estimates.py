"""How many there were, from those that were kept: each stands for as many as its threshold says."""

from __future__ import annotations

import math
from typing import NamedTuple

from otel_trading.sdk import thresholds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_SIGMAS = 1.959963984540054  # 95 % of a normal distribution are within


class Estimate(NamedTuple):
    """A number of spans or traces, with the interval that has the true one in 95 of 100 cases."""

    value: float
    low: float
    high: float


def count(items: Iterable[Any]) -> Estimate:
    """Estimate how many spans, or traces, there were before the keep rules and samplers took their share.

    ``items`` is what arrived: spans (of the SDK: their ``context`` has trace id and trace state; of OTLP: their
    ``trace_id`` and ``trace_state``), or the ``tracestate`` of each as a text, "" or None for none.  Each counts for
    1 / (1 − threshold / 2⁵⁶), and for 1 where it has no threshold.  Spans of one trace were kept or left together,
    which the interval allows for; texts are taken for one trace each: give those of the roots to count traces.
    Where nothing of a kind arrived, nothing can be said of it: 0, from 0 to 0.

    The estimate is unbiased.  Some 3 µs an item.
    """
    sizes: dict[Any, tuple[float, int]] = {}
    for number, item in enumerate(items):
        key, state = (number, item) if item is None or isinstance(item, str) else _of_span(item)
        weight, size = sizes.get(key, (_weight(state), 0))
        sizes[key] = weight, size + 1
    seen = sum(size for _, size in sizes.values())
    value = math.fsum(weight * size for weight, size in sizes.values())
    if not seen:
        return Estimate(0.0, 0.0, 0.0)
    # The number of traces that a threshold lets through is binomial.  As for one of those, the ends of the interval are
    # the true values for which what was seen lies just at the edge of what is likely; with so little as three traces,
    # value ± 2 standard deviations would be far off.
    spread = math.fsum(weight * (weight - 1.0) * size * size for weight, size in sizes.values()) / value
    half = _SIGMAS * _SIGMAS * spread / 2.0
    reach = math.sqrt(half * (half + 2.0 * value))
    return Estimate(value, max(float(seen), value + half - reach), value + half + reach)


def _weight(state: str | None) -> float:
    threshold = thresholds.of_header(state)
    return 1.0 if threshold is None else thresholds.ALL / (thresholds.ALL - threshold)


def _of_span(span: Any) -> tuple[Any, str | None]:
    """Return a span's trace id, and its tracestate as a text."""
    context = getattr(span, "context", None)
    if context is not None:
        return context.trace_id, context.trace_state.to_header()
    state: str | None = span.trace_state
    return span.trace_id, state
