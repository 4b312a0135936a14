"""Spans of the stock SDK in the segment."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Segment, child_environment
from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, StaticSampler
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

import otel_trading as ot
from otel_trading import lifecycle
from otel_trading.api import TracerProvider as Ours
from otel_trading.sdk import processor as module
from otel_trading.sdk.processor import BudgetSpanProcessor
from otel_trading.segment import messages

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Recorder

REMOTE = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("v", "1")]))


def provider(**options: Any) -> TracerProvider:
    """Give a provider of the SDK's with our processor."""
    made = TracerProvider(shutdown_on_exit=False, **options)
    made.add_span_processor(BudgetSpanProcessor())
    return made


def test_a_span_is_written_as_it_is(recorder: Recorder) -> None:
    """Ids, times, attributes, events, links, status, kind and scope in the segment are those of the SDK's span."""
    tracer = provider().get_tracer("lib", "1", "https://s")
    span: Any = tracer.start_span(
        "before", kind=SpanKind.CLIENT, attributes={"a": 1, "b": [1, "x"]}, links=[Link(REMOTE)], start_time=1_000
    )
    span.set_attribute("c", 2.5)
    span.set_attribute("a", True)
    span.add_event("event", {"e": None}, 1_500)
    span.add_link(REMOTE, {"l": 1})
    span.set_status(StatusCode.ERROR, "bad")
    span.update_name("after")
    span.end(2_000)
    (record,) = recorder.records()
    found = span.get_span_context()
    assert (record.trace_id, record.span_id, record.parent_id) == (found.trace_id, found.span_id, 0)
    assert (record.start, record.end, record.status, record.description) == (1_000, 2_000, 2, "bad")
    assert record.own_name == "after"
    assert list(record.attributes) == ["b", "c", "a"]
    assert messages.value(record.attributes["b"]) == (1, "x")  # type: ignore[arg-type]
    assert record.attributes["a"] is True
    assert messages.event(record.events[0])[:3] == ("event", 1_500, {"e": None})
    assert [messages.link(link)[1] for link in record.links] == [REMOTE.span_id, REMOTE.span_id]
    ((_, _, _, _, kind, scope),) = [probe for probe in recorder.segment.reader.probes() if probe[0] == "before"]
    assert kind == SpanKind.CLIENT.value
    assert '"lib"' in scope


def test_parents_are_the_sdks(recorder: Recorder) -> None:
    """Local and remote parents, and trace state, are in the segment as the SDK has them."""
    tracer = provider().get_tracer("lib")
    with tracer.start_as_current_span(
        "outer", trace.set_span_in_context(NonRecordingSpan(REMOTE), context.Context())
    ) as outer:
        tracer.start_span("inner").end()
    inner, record = recorder.records()
    assert (record.trace_id, record.parent_id, record.tracestate) == (REMOTE.trace_id, REMOTE.span_id, "v=1")
    assert record.flags & 1
    assert (inner.trace_id, inner.parent_id) == (REMOTE.trace_id, outer.get_span_context().span_id)
    assert not inner.flags & 1


def test_probes_and_the_sdks_spans_are_each_others_parents(recorder: Recorder) -> None:
    """With the processor a probe's span in a span of the SDK is its child, and the other way round."""
    tracer = provider().get_tracer("lib")
    probe = ot.probe("probe")
    with tracer.start_as_current_span("sdk") as outer:
        with probe, tracer.start_as_current_span("sdk in probe"):
            pass
        with probe:
            pass
    inner, middle, last, root = recorder.records()
    assert [inner.name, middle.name, last.name, root.name] == ["sdk in probe", "probe", "probe", "sdk"]
    assert root.span_id == middle.parent_id == last.parent_id == outer.get_span_context().span_id
    assert inner.parent_id == middle.span_id
    assert len({record.trace_id for record in (inner, middle, last, root)}) == 1


def test_spans_are_open_in_the_segment(recorder: Recorder) -> None:
    """A span that has begun is seen by a reader before it ends, and once afterwards."""
    span = provider().get_tracer("lib").start_span("open", attributes={"a": 1})
    (seen,) = recorder.open_spans()
    assert (seen.name, seen.span_id, seen.attributes) == ("open", span.get_span_context().span_id, {"a": 1})
    span.end()
    assert recorder.open_spans() == []
    assert recorder.only("open").attributes == {"a": 1}


def test_open_spans_outlive_a_kill(tmp_path: Path) -> None:
    """After SIGKILL the span that the SDK had open is in the segment's file."""
    program = (
        "import signal\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from otel_trading.sdk.processor import BudgetSpanProcessor\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(BudgetSpanProcessor())\n"
        "span = provider.get_tracer('x').start_span('killed')\n"
        "from otel_trading import lifecycle\n"
        "print(lifecycle._host.path, flush=True)\n"
        "signal.pause()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        env=child_environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    path = child.stdout.readline().strip()
    child.send_signal(signal.SIGKILL)
    child.wait(20)
    child.stdout.close()
    segment = Segment(path)  # type: ignore[arg-type]
    assert [span.name for span in segment.open_spans()] == ["killed"]
    segment.close()


@pytest.mark.parametrize("decision", [Decision.RECORD_ONLY, Decision.RECORD_AND_SAMPLE])
def test_the_samplers_decision_holds(recorder: Recorder, decision: Decision) -> None:
    """Spans that are only recorded are flagged as not sampled."""
    provider(sampler=StaticSampler(decision)).get_tracer("lib").start_span("decided").end()
    unsampled = bool(recorder.only("decided").flags & 2)
    assert unsampled is (decision is Decision.RECORD_ONLY)


def test_many_open_spans_are_written_at_their_end(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its bound the processor does without the open entry; spans that nobody ends are forgotten."""
    monkeypatch.setattr(module, "_MOST_OPEN", 2)
    tracer = provider().get_tracer("lib")
    spans = [tracer.start_span(f"span {number}", attributes={"n": number}) for number in range(4)]
    assert len(recorder.open_spans()) == 2
    for span in spans[1:]:
        span.end()
    assert [record.attributes["n"] for record in recorder.records()] == [1, 2, 3]
    del spans, span
    gc.collect()
    for number in range(3):
        tracer.start_span(f"later {number}").end()
    assert len(recorder.records()) == 3


def test_attributes_that_the_sdk_evicts_are_gone(recorder: Recorder) -> None:
    """What a span has at its end is what counts, in its order."""
    tracer = provider(span_limits=SpanLimits(max_span_attributes=2)).get_tracer("lib")
    span = tracer.start_span("evicted", attributes={"a": 1, "b": 2})
    span.set_attribute("c", 3)
    span.end()
    assert list(recorder.only("evicted").attributes.items())[-2:] == [("b", 2), ("c", 3)]


def test_our_own_spans_are_not_written_twice(recorder: Recorder) -> None:
    """On our own provider the processor does nothing."""
    made = Ours(shutdown_on_exit=False)
    made.add_span_processor(BudgetSpanProcessor())
    made.get_tracer("lib").start_span("once").end()
    assert recorder.only("once")


def test_it_configures_with_the_resource(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a recorder the processor begins one, of the resource's service."""
    monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path))
    made = BudgetSpanProcessor(Resource({"service.name": "bot", "desk": "fx"}))
    assert lifecycle._host.path is not None
    segment = Segment(lifecycle._host.path)  # type: ignore[arg-type]
    assert '"bot"' in str(segment.reader.info()["resource"])
    segment.close()
    assert made.force_flush(5_000)
    made.shutdown()


def test_what_goes_wrong_does_not_reach_the_program(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Objects that are no spans are a fault, said once."""
    made = BudgetSpanProcessor()
    made.on_start(object())
    made.on_end(object())  # type: ignore[arg-type]
    assert caplog.text.count("could not be recorded") == 1
    recorder.faults_expected = 2
