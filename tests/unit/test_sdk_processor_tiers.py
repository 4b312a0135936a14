"""Tiers and keep rules hold for spans of the stock SDK, without a word from the program."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.budget.policy import Policy
from otel_trading.sdk.processor import BudgetSpanProcessor
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

TIERS = {"order.*": "P0", "cache.*": "P2", "disk.*": "P3"}


@pytest.fixture
def recorder(make_recorder: Callable[..., Recorder]) -> Recorder:
    """Give a recorder with rules for names."""
    return make_recorder(tiers=TIERS)


@pytest.fixture
def tracer(recorder: Recorder) -> Any:
    """Give a tracer of the SDK's whose spans our processor records."""
    del recorder
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BudgetSpanProcessor())
    return provider.get_tracer("program")


@pytest.fixture
def governed(recorder: Recorder) -> Iterator[None]:
    """Have keep rules at work, with nothing to keep plain traces by, and no governor."""
    numbers = [math.inf] * (at.BUDGETS * at.MODES)
    numbers[at.BUDGET_NETWORK * at.MODES : (at.BUDGET_NETWORK + 1) * at.MODES] = [1e6] * 4
    with Policy(recorder.path) as policy:
        policy.write({"budget": numbers, "burst": 60.0, "hold": 0.0, "limit": [math.inf] * at.TRIGGERS})
        policy.active = True
        with Control(recorder.path) as control:
            control.sampling_rate = 0.0
        yield
        policy.active = False
    core.keep(0)


def test_tiers_are_those_of_the_configuration_and_the_attribute(tracer: Any, recorder: Recorder) -> None:
    """By the name's rule, by the attribute, else P1."""
    for name in ("order.send", "cache.get", "disk.read", "other"):
        tracer.start_span(name).end()
    tracer.start_span("other", attributes={"trading.tier": "P3"}).end()
    assert [(record.name, record.tier) for record in recorder.records()] == [
        ("order.send", 0),
        ("cache.get", 2),
        ("disk.read", 3),
        ("other", 1),
        ("other", 3),
    ]


def test_modes_shed_the_sdks_spans(tracer: Any, recorder: Recorder) -> None:
    """In STRESSED P3 is not recorded, in EMERGENCY only P0 is; the SDK itself does not notice."""
    recorded = {}
    for mode in ("NORMAL", "STRESSED", "EMERGENCY"):
        ot.set_mode(mode)
        for name in ("order.send", "other", "disk.read"):
            span = tracer.start_span(name)
            assert span.is_recording()
            span.end()
        recorded[mode] = [record.name for record in recorder.records()]
    ot.set_mode(None)
    assert recorded == {
        "NORMAL": ["order.send", "other", "disk.read"],
        "STRESSED": ["order.send", "other"],
        "EMERGENCY": ["order.send"],
    }


def test_the_keep_rules_keep_the_sdks_traces(tracer: Any, governed: None) -> None:
    """Of P1, where the share is 0, a trace with an error is kept whole, a plain one is not; of P0 both are."""
    del governed
    core.keep(1000)
    for root in ("order.send", "other"):
        for error in (False, True):
            with tracer.start_as_current_span(root, attributes={"failed": error}):
                child = tracer.start_span("child")
                if error:
                    child.set_status(StatusCode.ERROR)
                child.end()
    core.drain(True)
    batch = core.take(1000)
    states = batch.states()
    batch.settle()
    by_trace: dict[int, list[dict[str, Any]]] = {}
    for state in states:
        by_trace.setdefault(state[2], []).append(state[11])
    roots = [next(attributes for attributes in spans if attributes) for spans in by_trace.values()]
    assert {len(spans) for spans in by_trace.values()} == {2}
    assert sorted(root["failed"] for root in roots) == [False, True, True]
    account = ot.accounts()
    assert sum(account[tier]["sampled_out"] for tier in account) == 2
    assert sum(account[tier]["exported"] for tier in account) == 6
