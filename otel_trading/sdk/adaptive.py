"""Head sampling by load: all traces while a program starts few spans, fewer the more it starts."""

from __future__ import annotations

import math
import time
from threading import Lock
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import get_current_span

from otel_trading.sdk import thresholds
from otel_trading.sdk.sampler import decided, followed, tier_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, TraceState

_SMOOTHED = 1.0  # seconds
_COARSE = (1 << 40) - 1  # thresholds have 16 bits, which are 4 digits in a tracestate


class AdaptiveSampler(Sampler):
    """Takes all traces below ``threshold`` spans a second; above, ``threshold / rate`` of them, at least ``least``.

    The rate is that of all spans that ask, smoothed over a second.  Roots of tier P0 are always taken.  A span with a
    parent follows its parent's sampled flag, and keeps its threshold.  Sampling is consistent, and the share is in the
    trace's state (``ot=th:``), so that counts can be estimated from what was taken.  Some 5 µs a root, 2 µs any other
    span.  Raises ValueError for a threshold that is not positive, and a least share that is not between 0 and 1.
    """

    def __init__(
        self, threshold: float = 1000.0, least: float = 0.1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take spans a second, and a share."""
        if not 0.0 < threshold < math.inf:
            raise ValueError(f"threshold {threshold!r} is not a positive number of spans a second")
        if not 0.0 < least <= 1.0:
            raise ValueError(f"least {least!r} is not a share above 0, up to 1")
        self._threshold = float(threshold)
        self._least = float(least)
        self._clock = clock
        self._lock = Lock()
        self._rate = 0.0
        self._last = clock()

    @property
    def rate(self) -> float:
        """Spans a second that have asked, of late."""
        with self._lock:
            return self._rate * math.exp((self._last - self._clock()) / _SMOOTHED)

    @property
    def share(self) -> float:
        """The share of traces that would be taken now."""
        rate = self.rate
        return 1.0 if rate <= self._threshold else max(self._least, self._threshold / rate)

    def _counted(self) -> float:
        """Count a span; the rate as it was just before and after it, in the mean."""
        with self._lock:
            now = self._clock()
            before = self._rate * math.exp(min(0.0, self._last - now) / _SMOOTHED)
            self._rate, self._last = before + 1.0 / _SMOOTHED, now
        return before + 0.5 / _SMOOTHED

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,  # noqa: ARG002  the SDK's signature
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
        trace_state: TraceState | None = None,  # noqa: ARG002  the SDK passes none: the parent's counts
    ) -> SamplingResult:
        """Decide on a span; see the class."""
        rate = self._counted()
        parent = get_current_span(parent_context).get_span_context()
        if parent is not None and parent.is_valid:
            return followed(parent, trace_id, attributes)
        threshold = 0
        if rate > self._threshold and tier_of(name, attributes):
            # Rounded down, so that the share is never below what it has to be.
            threshold = thresholds.of_rate(max(self._least, self._threshold / rate)) & ~_COARSE
        return decided(trace_id, threshold, attributes)

    def get_description(self) -> str:
        """Return the sampler's name and figures."""
        return f"AdaptiveSampler{{threshold={self._threshold:g},least={self._least:g}}}"


def adaptive_sampler(argument: str | None = None) -> AdaptiveSampler:
    """Make the sampler of ``OTEL_TRACES_SAMPLER=trading_adaptive`` from ``OTEL_TRACES_SAMPLER_ARG``.

    ``argument`` is "threshold=1000,least=0.1", or one of the two; what is not named is as here.  Raises ValueError for
    anything else.
    """
    figures = {"threshold": 1000.0, "least": 0.1}
    text = "" if argument is None else str(argument).strip()
    for item in filter(None, text.split(",")):
        name, equals, value = (part.strip() for part in item.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in figures or not equals or math.isnan(number):
            raise ValueError(f"OTEL_TRACES_SAMPLER_ARG={text!r}: {item.strip()!r} is not threshold=1000 or least=0.1")
        figures[name] = number
    try:
        return AdaptiveSampler(figures["threshold"], figures["least"])
    except ValueError as error:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG={text!r}: {error}") from None
