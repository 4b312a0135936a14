"""Head sampling by load on the stock SDK."""

from __future__ import annotations

import random
from importlib.metadata import entry_points
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from otel_trading.sdk import thresholds
from otel_trading.sdk.adaptive import AdaptiveSampler, adaptive_sampler


class Load:
    """Roots at a steady rate, by a clock of its own."""

    def __init__(self, **options: Any) -> None:
        """Make the sampler."""
        self.now = 50.0
        self.random = random.Random(7)
        self.sampler = AdaptiveSampler(clock=lambda: self.now, **options)

    def root(self, tier: str = "P1", trace_id: int | None = None) -> Any:
        """Ask about one root."""
        found = self.random.getrandbits(128) | 1 << 64 if trace_id is None else trace_id
        return self.sampler.should_sample(context.Context(), found, "root", attributes={"trading.tier": tier})

    def roots(self, rate: float, seconds: float, tier: str = "P1") -> list[Any]:
        """Ask about roots at a rate."""
        results = []
        for _ in range(round(rate * seconds)):
            self.now += 1.0 / rate
            results.append(self.root(tier))
        return results


def taken(results: list[Any]) -> float:
    """Return the share of roots that were taken."""
    return sum(result.decision is Decision.RECORD_AND_SAMPLE for result in results) / len(results)


@pytest.mark.parametrize("rate", [10, 500, 999])
def test_all_are_taken_below_the_threshold(rate: float) -> None:
    """Below 1,000 spans a second nothing is left out, however long that goes on."""
    load = Load()
    results = load.roots(rate, 5.0)
    assert taken(results) == 1.0
    assert {result.trace_state.to_header() for result in results} == {"ot=th:0"}
    assert load.sampler.share == 1.0
    assert load.sampler.rate == pytest.approx(rate, rel=0.02, abs=1.0)


@pytest.mark.parametrize(("rate", "share"), [(2_000, 0.5), (5_000, 0.2), (10_000, 0.1), (50_000, 0.1)])
def test_above_it_the_share_is_what_the_rate_leaves(rate: float, share: float) -> None:
    """Once the rate is known the share is 1,000 to the rate, and never below a tenth."""
    load = Load()
    load.roots(rate, 6.0)
    results = load.roots(rate, 20_000 / rate)
    assert taken(results) == pytest.approx(share, abs=4 * (share * (1 - share) / 20_000) ** 0.5)
    assert load.sampler.share == pytest.approx(share, rel=0.01)


def test_the_rate_is_smoothed_over_a_second() -> None:
    """A burst counts for little at first, and its end is forgotten in some seconds."""
    load = Load()
    load.roots(10_000, 0.05)
    assert load.sampler.share == 1.0
    load.roots(10_000, 1.0)
    assert 0.1 < load.sampler.share < 0.2
    load.now += 3.0
    assert load.sampler.share == 1.0


def test_p0_is_always_taken() -> None:
    """Under any load roots of tier P0 are taken, for certain."""
    load = Load()
    load.roots(20_000, 2.0)
    results = load.roots(20_000, 0.5, "P0")
    assert taken(results) == 1.0
    assert {result.trace_state.to_header() for result in results} == {"ot=th:0"}


@given(st.integers(1, 2**128 - 1), st.floats(1.0, 1e6), st.floats(0.001, 1.0))
def test_the_decision_is_the_traces_own(trace_id: int, rate: float, least: float) -> None:
    """A trace is taken when its randomness is not below the threshold that it is told with."""
    load = Load(least=least)
    load.sampler._rate, load.sampler._last = rate, load.now
    share = load.sampler.share
    result = load.root(trace_id=trace_id)
    if result.decision is Decision.RECORD_AND_SAMPLE:
        threshold = thresholds.of_header(result.trace_state.to_header())
        assert threshold is not None
        assert trace_id & thresholds.MASK >= threshold
        assert 1.0 - threshold / thresholds.ALL == pytest.approx(share, abs=1e-3)
        assert threshold <= thresholds.of_rate(least)
    else:
        assert trace_id & thresholds.MASK < thresholds.of_rate(share) + (1 << 46)


@pytest.mark.parametrize("sampled", [True, False])
def test_a_child_follows_its_parent(sampled: bool) -> None:  # noqa: FBT001
    """Under any load, and with its threshold."""
    load = Load()
    load.roots(50_000, 1.0)
    parent = SpanContext(
        0xF << 52, 1, is_remote=True, trace_flags=TraceFlags(int(sampled)), trace_state=TraceState([("ot", "th:8")])
    )
    under = trace.set_span_in_context(NonRecordingSpan(parent), context.Context())
    result = load.sampler.should_sample(under, parent.trace_id, "child")
    assert (result.decision is Decision.RECORD_AND_SAMPLE) is sampled
    assert (result.trace_state.to_header() if result.trace_state else "") == ("ot=th:8" if sampled else "")


def test_children_count_as_load() -> None:
    """A program with few roots and many children is as busy as one with many roots."""
    load = Load()
    parent = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(1))
    under = trace.set_span_in_context(NonRecordingSpan(parent), context.Context())
    for _ in range(20_000):
        load.now += 1 / 4_000
        load.sampler.should_sample(under, 1, "child")
    assert load.sampler.share == pytest.approx(0.25, rel=0.02)


def test_it_works_on_the_sdks_provider() -> None:
    """Spans of a quiet program are all taken, and carry that."""
    provider = TracerProvider(sampler=adaptive_sampler(), shutdown_on_exit=False)
    with provider.get_tracer("test").start_as_current_span("order") as span:
        assert span.is_recording()
        assert span.get_span_context().trace_state.to_header() == "ot=th:0"


@pytest.mark.parametrize(
    ("argument", "description"),
    [
        (None, "AdaptiveSampler{threshold=1000,least=0.1}"),
        ("", "AdaptiveSampler{threshold=1000,least=0.1}"),
        ("threshold=1000,least=0.1", "AdaptiveSampler{threshold=1000,least=0.1}"),
        (" least = 0.5 ", "AdaptiveSampler{threshold=1000,least=0.5}"),
        ("threshold=20,", "AdaptiveSampler{threshold=20,least=0.1}"),
    ],
)
def test_the_argument_is_read(argument: str | None, description: str) -> None:
    """OTEL_TRACES_SAMPLER_ARG has the threshold, the least share, or both."""
    assert adaptive_sampler(argument).get_description() == description


@pytest.mark.parametrize(
    "argument",
    [
        "0.1",
        "x=1",
        "threshold",
        "threshold=",
        "threshold=x",
        "threshold=0",
        "threshold=-1",
        "threshold=inf",
        "threshold=nan",
        "least=0",
        "least=1.1",
        "least=-1",
        "least=nan",
    ],
)
def test_nonsense_is_refused_with_its_place(argument: str) -> None:
    """What is no figure of the two is a ValueError that quotes the variable."""
    with pytest.raises(ValueError, match="OTEL_TRACES_SAMPLER_ARG"):
        adaptive_sampler(argument)


def test_it_is_found_by_its_name() -> None:
    """The entry point is the one that OTEL_TRACES_SAMPLER=trading_adaptive asks for."""
    found = entry_points(group="opentelemetry_traces_sampler", name="trading_adaptive")
    assert {point.value for point in found} == {"otel_trading.sdk.adaptive:adaptive_sampler"}
