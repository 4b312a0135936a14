"""Counts from what was kept: unbiased, and with an interval that holds."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.budget.estimates import Estimate, count
from otel_trading.budget.policy import Policy, values_of
from otel_trading.sdk import thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder

BUDGET = 30_000.0  # bytes a second
SECONDS, PORTIONS = 3.0, 300
RUNS = 100
HELD = 93


def kept(rng: random.Random, shares: list[float]) -> list[str]:
    """Return the tracestates of those traces that pass their thresholds, one share a trace."""
    found = []
    for share in shares:
        threshold = thresholds.of_rate(share) & ~((1 << 40) - 1)
        if rng.getrandbits(56) >= threshold:
            found.append(f"ot=th:{thresholds.written(threshold)}" if threshold else "")
    return found


@pytest.mark.parametrize(
    ("shares", "name"),
    [
        (lambda _rng: [0.1] * 2_000, "one share"),
        (lambda rng: [rng.choice((1.0, 0.5, 0.1, 0.02)) for _ in range(3_000)], "tiers"),
        (lambda _rng: [0.05] * 100, "few"),
        (lambda _rng: [max(0.05, 1.0 - number / 1_000) for number in range(2_000)], "load that grows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_interval_has_the_true_value(shares: Callable[[random.Random], list[float]], name: str) -> None:
    """In 93 of 100 seeded runs the true number is within, and the runs' mean is near it."""
    del name
    held, values, trues, variance = 0, 0.0, 0, 0.0
    for seed in range(RUNS):
        rng = random.Random(seed)
        drawn = shares(rng)
        estimate = count(kept(rng, drawn))
        held += estimate.low <= len(drawn) <= estimate.high
        values += estimate.value
        trues += len(drawn)
        variance += sum((1.0 - share) / share for share in drawn)
    assert held >= HELD
    assert abs(values - trues) < 4.0 * variance**0.5


def test_the_interval_is_no_wider_than_it_has_to_be() -> None:
    """It misses now and then: with 1,000 runs, in 2 to 8 of 100."""
    held = 0
    for seed in range(1_000):
        estimate = count(kept(random.Random(seed), [0.1] * 1_000))
        held += estimate.low <= 1_000 <= estimate.high
    assert 920 <= held <= 980


def spans_of(trace_id: int, state: str, number: int) -> list[Any]:
    """Return spans of the SDK of one trace."""
    context = SpanContext(
        trace_id, 1, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState.from_header([state])
    )
    return [ReadableSpan("x", context) for _ in range(number)]


def test_spans_of_one_trace_stand_and_fall_together() -> None:
    """The same number of spans says less where they are of fewer traces."""
    alone = count(span for number in range(1, 101) for span in spans_of(number, "ot=th:8", 1))
    together = count(span for number in range(1, 11) for span in spans_of(number, "ot=th:8", 10))
    assert alone.value == together.value == 200.0
    assert together.high - together.low > 2.7 * (alone.high - alone.low)


def test_otlp_spans_are_taken_too() -> None:
    """Spans of OTLP have ids as bytes and the state as a text."""
    spans = [Span(trace_id=bytes([number]) * 16, trace_state="vendor=1,ot=th:c") for number in range(5)]
    assert count(spans).value == 20.0


@pytest.mark.parametrize(
    ("states", "value"),
    [
        ([], 0.0),
        (["", None, "vendor=x"], 3.0),
        (["ot=th:0"], 1.0),
        (["ot=th:8", " ot=th:8;rv:f0000000000000 , v=1"], 4.0),
        (["ot=rv:f0000000000000", "ot=th:nonsense", "ot=th:123456789012345", "not=th:8"], 4.0),
    ],
)
def test_thresholds_are_read_from_the_state(states: list[str | None], value: float) -> None:
    """What has no threshold stands for itself."""
    assert count(states).value == value


@given(st.lists(st.sampled_from(["", "ot=th:8", "ot=th:c", "ot=th:f", "ot=th:ffff", "v=1"]), max_size=50))
def test_the_interval_is_around_the_value(states: list[str]) -> None:
    """Low ≤ value ≤ high, and never fewer than were seen; without thresholds it is exact."""
    estimate = count(states)
    assert len(states) <= estimate.low <= estimate.value <= estimate.high
    if not any("th" in state for state in states):
        assert estimate == Estimate(len(states), len(states), len(states))


def recorded_under_a_small_budget(recorder: Recorder, number: int) -> list[Any]:
    """Record traces of one span, for some seconds, with a budget for few of them; give the states of those kept."""
    numbers = [math.inf] * (at.BUDGETS * at.MODES)
    numbers[at.BUDGET_NETWORK * at.MODES : (at.BUDGET_NETWORK + 1) * at.MODES] = [BUDGET] * at.MODES
    probe = ot.probe("tick", tier=ot.P1)
    with Policy(recorder.path) as policy:
        settings = lifecycle.settings()
        assert settings is not None
        policy.write(values_of(settings.values))
        policy.write({"budget": numbers, "burst": 0.5, "hold": 0.2, "limit": [math.inf] * at.TRIGGERS})
        policy.active = True
        core.keep(number)
        for portion in range(PORTIONS):
            if portion % 5 == 0:
                core.govern({"cpu_load": 0.1, "memory_load": 0.1})
            due = time.monotonic() + SECONDS / PORTIONS
            for _ in range(number // PORTIONS):
                with probe:
                    pass
            time.sleep(max(0.0, due - time.monotonic()))
        core.drain(True)
        batch = core.take(number)
        states = batch.states()
        batch.settle()
        core.keep(0)
        policy.active = False
    return states


def test_counts_through_the_keep_rules(make_recorder: Callable[..., Recorder]) -> None:
    """What the budget keeps of some seconds' traces tells how many there were, up to what chance allows."""
    number = {"native": 39_000, "pure": 7_800}[ot.backend]
    states = recorded_under_a_small_budget(make_recorder(ring__slots=32_768, drain__period=0.01), number)
    estimate = count(state[10] for state in states)
    assert 50 < len(states) < 0.6 * number, "the budget was to be too small for most, and not for all"
    assert any((thresholds.of_header(state[10]) or 0) > 0 for state in states)
    # Four standard deviations: a chance of 1 in 16,000.
    reach = (estimate.high - estimate.low) / 2 * 4 / 1.96
    assert abs(estimate.value - number) <= reach
    assert reach < 0.5 * number, "an interval that could not fail"
