"""Which spans of a tracer are recorded: samplers, tiers, and what is given when nothing is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from api_tracers import SCOPE, UNSAMPLED, context_of, make_probe, make_tracer, span_context
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, SpanKind

import otel_trading as ot
from otel_trading import faults
from otel_trading._backend import core

if TYPE_CHECKING:
    from conftest import Recorder

SMALLEST, LARGEST = 0, 2**64


# ---- sampling --------------------------------------------------------------------------------------


def test_a_dropped_span_counts_and_takes_nothing(recorder: Recorder) -> None:
    """A span that the sampler drops is in the metrics, without anything that it was told, and so are its children."""
    tracer = make_tracer(sampler=1)
    with tracer.start_as_current_span("tracer.dropped", attributes={"a": 1}, links=[Link(span_context())]) as span:
        assert not span.is_recording()
        assert not span.sampled
        assert span.get_span_context().is_valid
        assert span.get_span_context().trace_flags == 2
        span.set_attribute("b", 2)
        span.add_event("e")
        span.update_name("n")
        make_tracer().start_span("tracer.dropped_child", attributes={"a": 1}).end()
    span.end()
    child, parent = recorder.records()
    for record in (child, parent):
        assert record.flags == UNSAMPLED
        assert (record.attributes, record.events, record.links, record.own_name) == ({}, [], [], None)
    assert child.parent_id == parent.span_id
    core.drain()
    assert ot.stats()["tracer.dropped"]["count"] == 1


@pytest.mark.parametrize("bound", [SMALLEST, 2**62, 2**63, 2**64 - 1, LARGEST])
def test_a_share_of_the_traces(recorder: Recorder, bound: int) -> None:
    """A ratio takes the traces whose low 64 bits are below its bound, up to all of them."""
    tracer = make_tracer(sampler=2, bound=bound)
    for _ in range(200):
        span = tracer.start_span("tracer.ratio")
        assert span.sampled == ((span.trace_id & (2**64 - 1)) < bound)
        span.end()
    sampled = sum(not record.flags & UNSAMPLED for record in recorder.named("tracer.ratio"))
    assert sampled == {SMALLEST: 0, LARGEST: 200}.get(bound, sampled)


@given(low=st.integers(0, 2**64 - 1), bound=st.integers(0, 2**64))
def test_the_ratio_of_a_given_trace(low: int, bound: int) -> None:
    """Without regard to the parent, a trace's own bits decide."""
    tracer = make_tracer(sampler=2, bound=bound, parent_based=False)
    parent = NonRecordingSpan(span_context((7 << 64) | low, 1, flags=0))
    span = tracer.start_span("tracer.given", context_of(parent))
    assert span.sampled == (low < bound and core.is_open())
    span.end()


@pytest.mark.parametrize("sampled", [True, False])
def test_the_parent_decides(recorder: Recorder, *, sampled: bool) -> None:
    """With a parent its decision holds, unless the tracer is told not to mind it."""
    parent = context_of(NonRecordingSpan(span_context(flags=int(sampled))))
    make_tracer(sampler=1).start_span("tracer.by_parent", parent).end()
    make_tracer(sampler=0).start_span("tracer.by_parent", parent).end()
    first, second = recorder.named("tracer.by_parent")
    assert bool(first.flags & UNSAMPLED) is bool(second.flags & UNSAMPLED) is (not sampled)
    make_tracer(sampler=1, parent_based=False).start_span("tracer.own", parent).end()
    make_tracer(sampler=0, parent_based=False).start_span("tracer.own", parent).end()
    first, second = recorder.named("tracer.own")
    assert first.flags & UNSAMPLED
    assert not second.flags & UNSAMPLED


def test_a_sampler_of_the_programs_own(recorder: Recorder) -> None:
    """``decide`` is told all, and what it says holds: ids, decision, tracestate, attributes."""
    asked: list[tuple[Any, ...]] = []

    def decide(*arguments: Any) -> Any:
        asked.append(arguments)
        return (arguments[1] or 0xABC << 64, 0x77, 2, "s=1", {"by": "sampler"}, False)

    tracer = make_tracer(decide=decide)
    context, attributes, links = Context({"k": 1}), {"a": 1}, [Link(span_context())]
    span = tracer.start_span("tracer.decided", context, SpanKind.SERVER, attributes, links)
    assert asked == [(context, 0, "tracer.decided", SpanKind.SERVER, attributes, links)]
    assert asked[0][3] is SpanKind.SERVER
    assert (span.trace_id, span.span_id, span.random) == (0xABC << 64, 0x77, False)
    assert span.get_span_context().trace_state.to_header() == "s=1"
    tracer.start_span("tracer.decided_child", context_of(span)).end()
    assert asked[1][1:] == (span.trace_id, "tracer.decided_child", SpanKind.INTERNAL, None, ())
    span.end()
    record = recorder.only("tracer.decided")
    assert (record.tracestate, record.attributes, record.flags) == ("s=1", {"by": "sampler"}, 0)


def test_recorded_and_not_sampled(recorder: Recorder) -> None:
    """A span that is recorded only takes what it is told, and is not sampled."""
    tracer = make_tracer(decide=lambda *_: (1, 2, 1, None, None, True))
    span = tracer.start_span("tracer.record_only", attributes={"a": 1})
    assert span.is_recording()
    span.set_attribute("b", 2)
    span.end()
    record = recorder.only("tracer.record_only")
    assert (record.flags, record.attributes) == (UNSAMPLED, {"b": 2})


@pytest.mark.parametrize(
    "answer", [None, (), (1, 2, 3), (1, 2, 3, None, None, True), ("1", 2, 2, None, None, True), ZeroDivisionError()]
)
def test_a_sampler_that_fails(recorder: Recorder, answer: Any) -> None:
    """A sampler that raises or says nonsense is told once, and the span is sampled."""

    def decide(*_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    tracer = make_tracer(decide=decide)
    tracer.start_span("tracer.sampler_fails", attributes={"a": 1}).end()
    assert "decide" in faults._told
    recorder.faults_expected = 1
    record = recorder.only("tracer.sampler_fails")
    assert (record.flags, record.attributes) == (0, {"a": 1})


@pytest.mark.parametrize("bad", [{"sampler": 3}, {"sampler": -1}, {"bound": 0.5}, {"scope": 1}])
def test_a_tracers_arguments(bad: dict[str, Any]) -> None:
    """What can not make a tracer is refused."""
    with pytest.raises((TypeError, ValueError, OverflowError)):
        core.Tracer(**{"scope": SCOPE, "make_probe": make_probe, **bad})


# ---- tiers, and where nothing is recorded ------------------------------------------------------------


def test_the_tier_of_a_span(recorder: Recorder) -> None:
    """``trading.tier`` among the first attributes asks for a probe of that tier, once."""
    asked: list[tuple[str, int, Any]] = []

    def ask(name: str, kind: int, tier: Any) -> Any:
        asked.append((name, kind, tier))
        return make_probe(name, kind, tier)

    tracer = make_tracer(make_probe=ask)
    for _ in range(2):
        for tier in (0, 3):
            tracer.start_span("tracer.tier", attributes={"x": 1, "trading.tier": tier}).end()
        tracer.start_span("tracer.tier", attributes={"x": 1}).end()
    assert asked == [("tracer.tier", 0, 0), ("tracer.tier", 0, 3), ("tracer.tier", 0, None)]
    records = recorder.named("tracer.tier")
    assert [record.tier for record in records] == [0, 3, 1, 0, 3, 1]
    assert records[0].attributes == {"x": 1, "trading.tier": 0}


def assert_inert(tracer: Any, parent: Any, *, expect: bool = True) -> None:
    """Demand that a tracer gives spans that pass their parent's context on and take everything else in silence."""
    for span in (tracer.start_span("tracer.inert", context_of(parent)), tracer.start_span("tracer.inert", Context())):
        assert not span.is_recording()
        span.set_attribute("a", 1)
        span.set_attributes({"a": 1})
        span.add_event("e")
        span.add_link(span_context())
        span.update_name("n")
        span.record_exception(ValueError())
        assert span.state() is None
        span.end()
        span.end()
    passed = tracer.start_span("tracer.inert", context_of(parent)).get_span_context()
    assert (passed == parent.get_span_context()) is expect
    root = tracer.start_span("tracer.inert", Context()).get_span_context()
    assert not root.is_valid
    assert root == INVALID_SPAN.get_span_context()


def test_a_tracer_that_is_not_enabled(recorder: Recorder) -> None:
    """A tracer that is switched off records nothing, until it is switched on."""
    tracer = make_tracer()
    assert tracer.enabled is True
    tracer.enabled = False
    assert_inert(tracer, NonRecordingSpan(span_context(state="a=1")))
    tracer.enabled = True
    tracer.start_span("tracer.enabled").end()
    assert [record.name for record in recorder.records()] == ["tracer.enabled"]


def test_without_a_recorder() -> None:
    """Before the recorder is open, and after, spans are inert."""
    assert not core.is_open()
    assert_inert(make_tracer(), NonRecordingSpan(span_context(state="a=1")))


def test_a_tier_that_is_off(recorder: Recorder) -> None:
    """A span of a tier that is off is inert, and its children are its parent's."""
    from otel_trading.segment.control import Control

    tracer = make_tracer()
    with Control(recorder.path) as control:
        control.set_tier(3, on=False)
    switched_off = tracer.start_as_current_span("tracer.off", attributes={"trading.tier": 3})
    with tracer.start_as_current_span("tracer.on") as parent, switched_off as off:
        assert not off.is_recording()
        assert off.get_span_context() == parent.get_span_context()
        tracer.start_span("tracer.below").end()
    with tracer.start_as_current_span("tracer.off", attributes={"trading.tier": 3}):
        assert core.current() is None
        tracer.start_span("tracer.root_below").end()
    spans = {record.name: record for record in recorder.records()}
    assert sorted(spans) == ["tracer.below", "tracer.on", "tracer.root_below"]
    assert spans["tracer.below"].parent_id == parent.span_id
    assert spans["tracer.root_below"].parent_id == 0
