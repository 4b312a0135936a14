"""Head sampling by tier on the stock SDK."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace._sampling_experimental import (
    composable_parent_threshold,
    composable_traceid_ratio_based,
    composite_sampler,
)
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from otel_trading.sdk.sampler import TradingTierSampler, tier_sampler

TRACES = st.integers(1, 2**128 - 1)
RATES = st.floats(0.0, 1.0)


def state_of(result: SamplingResult) -> str:
    """Give a result's trace state as a header."""
    return result.trace_state.to_header() if result.trace_state else ""


def root(sampler: TradingTierSampler, trace_id: int, tier: str = "P1") -> SamplingResult:
    """Ask about a root of a tier."""
    return sampler.should_sample(context.Context(), trace_id, "root", attributes={"trading.tier": tier})


def under(trace_id: int, state: str = "", *, sampled: bool = True) -> context.Context:
    """Give a context with a remote parent."""
    parent = SpanContext(
        trace_id, 1, is_remote=True, trace_flags=TraceFlags(int(sampled)), trace_state=TraceState.from_header([state])
    )
    return trace.set_span_in_context(NonRecordingSpan(parent), context.Context())


@given(TRACES, RATES)
def test_a_root_is_decided_as_the_sdks_own_consistent_sampler_decides(trace_id: int, rate: float) -> None:
    """Decision and threshold are those of OpenTelemetry's experimental sampler of the same rate."""
    ours = root(tier_sampler(f"P2={rate!r}"), trace_id, "P2")
    theirs = composite_sampler(composable_parent_threshold(composable_traceid_ratio_based(rate))).should_sample(
        context.Context(), trace_id, "root"
    )
    assert ours.decision is theirs.decision
    assert state_of(ours) == state_of(theirs)


@given(TRACES, RATES, RATES)
def test_what_a_rare_tier_takes_a_common_one_takes(trace_id: int, one: float, other: float) -> None:
    """Sampling is consistent: of two rates the higher one takes all that the lower one takes."""
    low, high = sorted((one, other))
    sampler = TradingTierSampler((1.0, high, low, 0.0))
    if root(sampler, trace_id, "P2").decision is Decision.RECORD_AND_SAMPLE:
        assert root(sampler, trace_id, "P1").decision is Decision.RECORD_AND_SAMPLE
    assert root(sampler, trace_id, "P0").decision is Decision.RECORD_AND_SAMPLE
    assert root(sampler, trace_id, "P3").decision is Decision.DROP


@pytest.mark.parametrize(
    ("state", "sampled", "kept"),
    [
        ("", True, ""),
        ("", False, ""),
        ("ot=th:8", True, "ot=th:8"),
        ("ot=th:8,vendor=1", True, "ot=th:8,vendor=1"),
        ("ot=th:c", True, ""),  # the trace's randomness is 0xb0…: such a threshold would not have taken it
        ("ot=th:c;rv:d0000000000000", True, "ot=th:c;rv:d0000000000000"),
        ("ot=th:c;rv:10000000000000", True, "ot=rv:10000000000000"),
        ("ot=th:8;rv:d0000000000000;x:1", False, "ot=rv:d0000000000000;x:1"),
        ("vendor=1,ot=th:8", False, "vendor=1"),
        ("ot=th:nonsense,vendor=1", True, "vendor=1"),
        ("ot=th:123456789012345", True, ""),
        ("ot=x:1;y", True, "ot=x:1;y"),
        ("vendor=1", True, "vendor=1"),
    ],
)
def test_a_child_follows_its_parent(state: str, sampled: bool, kept: str) -> None:  # noqa: FBT001
    """The sampled flag decides; a threshold that agrees with it stays, one that does not goes, all else stays."""
    trace_id = 0xB0_0000_0000_0000
    result = TradingTierSampler((1.0, 0.0, 0.0, 0.0)).should_sample(
        under(trace_id, state, sampled=sampled), trace_id, "x"
    )
    assert (result.decision is Decision.RECORD_AND_SAMPLE) is sampled
    members = {item for item in state_of(result).split(",") if item}
    assert members == {item for item in kept.split(",") if item}


def test_the_threshold_goes_out_with_the_trace() -> None:
    """On the SDK's provider children have their root's threshold, and attributes of a span reach the sampler."""
    provider = TracerProvider(sampler=tier_sampler("P0=1,P3=0"), shutdown_on_exit=False)
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("order", attributes={"trading.tier": "P0"}):
        child: Any = tracer.start_span("child", attributes={"trading.tier": "P3"})
    assert child.get_span_context().trace_state.to_header() == "ot=th:0"
    assert not tracer.start_span("detail", attributes={"trading.tier": "P3"}).is_recording()


@pytest.mark.parametrize(
    ("argument", "rates"),
    [
        (None, "P0=1,P1=1,P2=1,P3=1"),
        ("", "P0=1,P1=1,P2=1,P3=1"),
        ("0.25", "P0=1,P1=0.25,P2=0.25,P3=0.25"),
        ("P0=1,P1=0.5,P2=0.1,P3=0.01", "P0=1,P1=0.5,P2=0.1,P3=0.01"),
        (" p3 = 0.5 ", "P0=1,P1=1,P2=1,P3=0.5"),
    ],
)
def test_the_argument_is_read(argument: str | None, rates: str) -> None:
    """OTEL_TRACES_SAMPLER_ARG has one share for all tiers, or some tiers' own."""
    assert tier_sampler(argument).get_description() == f"TradingTierSampler{{{rates}}}"


@pytest.mark.parametrize("argument", ["P4=1", "P1", "P1=0.5,P2", "P1=2", "P1=-1", "P1=nan", "x", "1.5", "P1=", "=1"])
def test_nonsense_is_refused_with_its_place(argument: str) -> None:
    """What is no share, or no tier, is a ValueError that quotes the variable."""
    with pytest.raises(ValueError, match="OTEL_TRACES_SAMPLER_ARG"):
        tier_sampler(argument)


@pytest.mark.parametrize("rates", [(1.0,), (1.0, 1.0, 1.0, 1.1), (float("nan"), 1.0, 1.0, 1.0)])
def test_rates_are_four_probabilities(rates: tuple[float, ...]) -> None:
    """The constructor refuses anything else."""
    with pytest.raises(ValueError, match="four numbers"):
        TradingTierSampler(rates)


@pytest.mark.parametrize("argument", ["P0=0.5", "P0=0", "P1=0.5,P0=0.999", "p0 = 0"])
def test_p0_is_not_to_be_sampled_by_the_variable(argument: str) -> None:
    """A share of P0 below 1 is refused, with the variable and the tier's name."""
    with pytest.raises(ValueError, match=r"OTEL_TRACES_SAMPLER_ARG='.*': tier P0 can not be sampled"):
        tier_sampler(argument)


def test_p0_is_not_to_be_sampled_in_code() -> None:
    """Nor is it by the constructor; all of it, said in any way, is fine."""
    with pytest.raises(ValueError, match="tier P0 can not be sampled"):
        TradingTierSampler((0.99, 1.0, 1.0, 1.0))
    assert tier_sampler("P0=1,P1=0").get_description() == "TradingTierSampler{P0=1,P1=0,P2=1,P3=1}"


@given(TRACES, RATES)
def test_p0_is_taken_whatever_the_others_shares(trace_id: int, rate: float) -> None:
    """One share for all is one for P1, P2 and P3."""
    assert root(tier_sampler(repr(rate)), trace_id, "P0").decision is Decision.RECORD_AND_SAMPLE
