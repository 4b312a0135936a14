"""The tracer provider: what it takes over from the SDK's, and how its spans stand in the segment."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.api import TracerProvider, names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Recorder
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan

REMOTE = SpanContext(0xABCDEF, 0x123, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("v", "1")]))


def tracer(**options: Any) -> Any:
    """Give a tracer of a provider that leaves nothing behind."""
    return TracerProvider(shutdown_on_exit=False, **options).get_tracer("test", "1")


@pytest.fixture
def exported(recorder: Recorder) -> InMemorySpanExporter:
    """Give an exporter to connect; there is a recorder."""
    assert recorder.path.exists()
    return InMemorySpanExporter()


# ---- configuring


def test_the_entry_point_makes_a_provider_that_records(run_python: Callable[..., Any]) -> None:
    """A program that only names the provider in the environment has its spans recorded, and loads no SDK for it."""
    done = run_python(
        "import sys\n"
        "from opentelemetry import trace\n"
        "with trace.get_tracer('app').start_as_current_span('work', attributes={'a': 1}) as span:\n"
        "    assert span.is_recording()\n"
        "import otel_trading as ot\n"
        "assert ot.stats()['work']['count'] == 1, ot.stats()\n"
        "loaded = [n for n in sys.modules if n.startswith('opentelemetry.sdk.')]\n"
        "print(loaded)\n",
        OTEL_PYTHON_TRACER_PROVIDER="otel_trading",
    )
    assert done.stdout.strip() == "['opentelemetry.sdk.version']"


def test_a_provider_configures_with_its_resource_and_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first provider's resource and limits are the segment's."""
    monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path))
    resource = Resource({"service.name": "bot", "desk": "fx", "ports": (1, 2), "odd": b"left out"})
    made = tracer(resource=resource, span_limits=SpanLimits(max_span_attributes=2, max_events=SpanLimits.UNSET))
    assert lifecycle._host.path is not None
    fd = os.open(lifecycle._host.path, os.O_RDONLY)
    try:
        found = json.loads(core.Reader(fd).info()["resource"])
    finally:
        os.close(fd)
    assert found["service.name"] == "bot"
    assert found["desk"] == "fx"
    assert found["ports"] == [1, 2]
    assert "odd" not in found
    with made.start_as_current_span("limited", attributes={"a": 1, "b": 2, "c": 3}) as span:
        assert dict(span.attributes) == {"b": 2, "c": 3}
        assert span.dropped_attributes == 1


def test_a_mistake_in_the_configuration_does_not_reach_the_program(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the environment is wrong the provider says so in the log, and spans pass their context on unrecorded."""
    monkeypatch.setenv("OTEL_TRADING_HOST", "nowhere")
    with caplog.at_level(logging.WARNING, "otel_trading"):
        made = tracer()
    assert "OTEL_TRADING_HOST" in caplog.text
    parent = trace.set_span_in_context(NonRecordingSpan(REMOTE), context.Context())
    with made.start_as_current_span("unrecorded", parent) as span:
        assert not span.is_recording()
        assert span.get_span_context().trace_id == REMOTE.trace_id
        span.set_attribute("a", 1)


def test_sdk_disabled_gives_tracers_that_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED makes tracers of the API's own that do nothing, and configures nothing."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True ")
    provider = TracerProvider()
    assert isinstance(provider.get_tracer("a"), trace.NoOpTracer)
    assert not core.is_open()
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    assert provider.force_flush()
    provider.shutdown()


# ---- tracers and scopes


def test_equal_scopes_share_a_tracer(recorder: Recorder) -> None:
    """A scope's tracer is made once, and its text has version, schema and attributes."""
    provider = TracerProvider(shutdown_on_exit=False)
    one = provider.get_tracer("lib", "1", "https://s", {"a": 1})
    assert provider.get_tracer("lib", "1", "https://s", {"a": 1}) is one
    assert provider.get_tracer("lib", "2", "https://s", {"a": 1}) is not one
    assert provider.get_tracer("lib", "1", "https://s", {"a": 2}) is not one
    assert isinstance(one, trace.Tracer)
    one.start_span("scoped").end()
    record = recorder.only("scoped")
    (probe,) = [probe for probe in recorder.segment.reader.probes() if probe[0] == record.name]
    assert json.loads(probe[5]) == {"name": "lib", "version": "1", "schema_url": "https://s", "attributes": {"a": 1}}


def test_a_scope_without_a_name_is_said_and_served(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """An empty name is an error in the log, and gives a tracer all the same."""
    made = TracerProvider(shutdown_on_exit=False).get_tracer("")
    made.start_span("nameless scope").end()
    assert "name of a module" in caplog.text
    assert recorder.only("nameless scope")


def test_a_disabled_tracer_records_nothing(recorder: Recorder) -> None:
    """A tracer configurator switches tracers off and on again, those that exist too."""

    class Config:
        def __init__(self, *, is_enabled: bool) -> None:
            self.is_enabled = is_enabled

    provider = TracerProvider(
        shutdown_on_exit=False, _tracer_configurator=lambda scope: Config(is_enabled=scope.name != "off")
    )
    off, on = provider.get_tracer("off"), provider.get_tracer("on")
    off.start_span("off").end()
    on.start_span("on").end()
    assert [record.name for record in recorder.records()] == ["on"]
    provider._set_tracer_configurator(tracer_configurator=lambda _scope: Config(is_enabled=True))
    off.start_span("on again").end()
    assert recorder.only("on again")


def test_a_tracer_tells_of_its_provider(recorder: Recorder) -> None:
    """Resource, sampler, ids and scope are read from a tracer as from the SDK's."""
    assert recorder.path
    resource = Resource({"service.name": "mine"})
    provider = TracerProvider(shutdown_on_exit=False, resource=resource)
    made: Any = provider.get_tracer("tells", "2")
    assert made.resource is resource
    assert made.sampler is provider.sampler
    assert made.id_generator is provider.id_generator
    assert (made.instrumentation_scope.name, made.instrumentation_scope.version) == ("tells", "2")
    with pytest.raises(AttributeError):
        _ = made.no_such_thing


# ---- names and tiers


def test_names_are_bounded(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a scope's share of names further spans keep their name and kind on the probe ``other``."""
    monkeypatch.setattr(names, "MOST_OF_SCOPE", 3)
    made = TracerProvider(shutdown_on_exit=False).get_tracer("many names")
    for number in range(5):
        made.start_span(f"name {number}", kind=SpanKind.SERVER).end()
    records = recorder.records()
    assert [record.own_name or record.name for record in records] == [f"name {number}" for number in range(5)]
    assert [record.name for record in records[3:]] == ["other", "other"]
    kinds = {probe[0]: probe[4] for probe in recorder.segment.reader.probes()}
    assert kinds["other"] == SpanKind.SERVER.value


def test_tiers_are_by_attribute_then_by_rule(make_recorder: Callable[..., Recorder]) -> None:
    """A span's ``trading.tier`` says its tier, else the first glob of the configuration that matches, else it is P1."""
    recorder = make_recorder(tiers={"order.*": "P0", "*.detail": "P3"})
    made = TracerProvider(shutdown_on_exit=False).get_tracer("tiers")
    for name, attributes in (
        ("order.send", None),
        ("order.detail", None),
        ("book.detail", {"a": 1}),
        ("plain", None),
        ("told", {"trading.tier": "P2"}),
        ("told in digits", {"trading.tier": 3}),
        ("order.told", {"trading.tier": "p2"}),
        ("nonsense", {"trading.tier": "P9"}),
    ):
        made.start_span(name, attributes=attributes).end()
    tiers = {record.name: record.tier for record in recorder.records()}
    assert tiers == {
        "order.send": 0, "order.detail": 0, "book.detail": 3, "plain": 1,
        "told": 2, "told in digits": 3, "order.told": 2, "nonsense": 1,
    }  # fmt: skip


@pytest.mark.parametrize("value", ["P4", "", "X1", True, None, -1, 4, 1.0, [1]])
def test_what_is_no_tier_is_none(value: object) -> None:
    """Anything but 0 to 3 and P0 to P3 is no tier."""
    assert names.tier_number(value) is None


# ---- one context


def test_probes_and_tracers_share_what_is_current(recorder: Recorder) -> None:
    """A probe's span is the parent of an API span in it, and the other way round."""
    made, probe = tracer(), ot.probe("probe")
    with probe as outer:
        assert trace.get_current_span() is outer
        with made.start_as_current_span("api"), probe:
            assert ot.current_trace_id() == f"{outer.trace_id:032x}"
    inner, api, root = recorder.records()
    assert (inner.name, api.name, root.name) == ("probe", "api", "probe")
    assert (inner.parent_id, api.parent_id, root.parent_id) == (api.span_id, root.span_id, 0)
    assert inner.trace_id == api.trace_id == root.trace_id


def test_a_probe_sees_a_remote_parent_of_the_api(recorder: Recorder) -> None:
    """A span of another implementation that is made current is the parent of a probe's span, trace state included."""
    tracer()
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(REMOTE)))
    with ot.probe("below remote"):
        carrier = ot.inject({})
    context.detach(token)
    record = recorder.only("below remote")
    assert (record.trace_id, record.parent_id, record.tracestate) == (REMOTE.trace_id, REMOTE.span_id, "v=1")
    assert carrier["tracestate"] == "v=1"


def test_baggage_goes_through_probes(recorder: Recorder) -> None:
    """What is attached stays readable in probes' and tracers' spans below, and ends with its detach."""
    made = tracer()
    token = context.attach(baggage.set_baggage("desk", "fx"))
    with ot.probe("carries"), made.start_as_current_span("carries too"):
        assert baggage.get_baggage("desk") == "fx"
        inner = context.attach(baggage.set_baggage("desk", "rates"))
        with ot.probe("carries more"):
            assert baggage.get_baggage("desk") == "rates"
        context.detach(inner)
        assert baggage.get_baggage("desk") == "fx"
    context.detach(token)
    assert baggage.get_baggage("desk") is None
    assert len(recorder.records()) == 3


def test_tasks_have_contexts_of_their_own(recorder: Recorder) -> None:
    """Spans of concurrent tasks are children of the span that was current when the task was made."""
    made = tracer()

    async def task(number: int) -> None:
        with made.start_as_current_span(f"task {number}"):
            await asyncio.sleep(0)
            made.start_span(f"child {number}").end()

    async def everything() -> None:
        with made.start_as_current_span("all"):
            await asyncio.gather(*map(task, range(5)))

    asyncio.run(everything())
    records = {record.name: record for record in recorder.records()}
    for number in range(5):
        assert records[f"task {number}"].parent_id == records["all"].span_id
        assert records[f"child {number}"].parent_id == records[f"task {number}"].span_id


def test_what_was_attached_before_is_carried_over_and_detached(run_python: Callable[..., Any]) -> None:
    """A context that was attached before the provider was made is current after it, until its own token detaches it."""
    run_python(
        "from opentelemetry import baggage, context\n"
        "outer = context.attach(baggage.set_baggage('a', '1'))\n"
        "token = context.attach(baggage.set_baggage('a', '2'))\n"
        "from otel_trading.api import TracerProvider\n"
        "tracer = TracerProvider().get_tracer('x')\n"
        "assert baggage.get_baggage('a') == '2'\n"
        "with tracer.start_as_current_span('a'):\n"
        "    assert baggage.get_baggage('a') == '2'\n"
        "context.detach(token)\n"
        "assert baggage.get_baggage('a') == '1', baggage.get_all()\n"
        "context.detach(outer)\n"
        "assert baggage.get_all() == {}, baggage.get_all()\n"
    )


def test_the_context_entry_point_works_from_the_start(run_python: Callable[..., Any]) -> None:
    """OTEL_PYTHON_CONTEXT=otel_trading puts the runtime in place at OpenTelemetry's import, before any provider."""
    run_python(
        "from opentelemetry import baggage, context, trace\n"
        "assert type(context._RUNTIME_CONTEXT).__name__ == 'RecorderContext', context._RUNTIME_CONTEXT\n"
        "token = context.attach(baggage.set_baggage('a', '1'))\n"
        "assert baggage.get_baggage('a') == '1'\n"
        "import otel_trading as ot\n"
        "ot.configure('x')\n"
        "with ot.probe('p') as span:\n"
        "    assert trace.get_current_span() is span\n"
        "    assert baggage.get_baggage('a') == '1'\n"
        "context.detach(token)\n",
        OTEL_PYTHON_CONTEXT="otel_trading",
    )


# ---- span processors


def test_a_processor_gets_spans_as_the_sdk_gives_them(exported: InMemorySpanExporter) -> None:
    """A SimpleSpanProcessor exports ReadableSpans with everything that was recorded, and the provider's resource."""
    resource = Resource({"service.name": "mine"})
    provider = TracerProvider(shutdown_on_exit=False, resource=resource)
    before = provider.get_tracer("before")
    provider.add_span_processor(SimpleSpanProcessor(exported))
    with before.start_as_current_span("parent", kind=SpanKind.CLIENT) as parent:
        parent.set_attribute("list", [1, 2])
        parent.add_event("event", {"b": b"x"}, 5)
        child = provider.get_tracer("after", "2").start_span("child", start_time=10)
        child.add_link(REMOTE, {"why": 1})
        child.set_status(StatusCode.ERROR, "bad")
        child.end(20)
    got_child, got_parent = exported.get_finished_spans()
    assert (got_child.name, got_child.start_time, got_child.end_time) == ("child", 10, 20)
    assert got_child.parent is got_parent.context is parent.get_span_context()
    assert got_child.status.description == "bad"
    assert got_child.links[0].context.span_id == REMOTE.span_id
    assert got_child.links[0].attributes == {"why": 1}
    assert got_child.instrumentation_scope is not None
    assert (got_child.instrumentation_scope.name, got_child.instrumentation_scope.version) == ("after", "2")
    assert dict(got_parent.attributes or {}) == {"list": (1, 2)}
    assert (got_parent.events[0].name, got_parent.events[0].timestamp) == ("event", 5)
    assert got_parent.events[0].attributes == {"b": b"x"}
    assert (got_parent.kind, got_parent.resource) == (SpanKind.CLIENT, resource)
    assert json.loads(got_child.to_json())["name"] == "child"


def test_spans_are_readable_while_they_are_open_and_after(exported: InMemorySpanExporter) -> None:
    """The properties of the SDK's spans are those of the moment, and after the end what the processors were given."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    span: Any = provider.get_tracer("readable").start_span("open", attributes={"a": 1})
    assert (span.name, dict(span.attributes), span.end_time, span.parent) == ("open", {"a": 1}, None, None)
    span.update_name("renamed")
    assert span.name == "renamed"
    span.end()
    assert (span.name, dict(span.attributes)) == ("renamed", {"a": 1})
    assert span.end_time >= span.start_time
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = span.no_such_thing


def test_an_ended_span_without_processors_has_what_its_probe_knows(recorder: Recorder) -> None:
    """Reading an ended span that nobody kept raises nothing."""
    span = tracer().start_span("ended", kind=SpanKind.SERVER, attributes={"a": 1})
    span.end()
    assert (span.name, span.kind, dict(span.attributes), span.events) == ("ended", SpanKind.SERVER, {}, ())
    assert recorder.only("ended").attributes == {"a": 1}


@pytest.mark.usefixtures("recorder")
def test_processors_see_the_start_and_may_write() -> None:
    """on_start gets the live span and the context that was given; on_ending comes before on_end."""
    calls: list[tuple[str, object]] = []

    class Watching(SpanProcessor):
        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            span.set_attribute("by", "processor")
            calls.append(("start", parent_context))

        def _on_ending(self, span: Any) -> None:
            calls.append(("ending", span.name))

        def on_end(self, span: ReadableSpan) -> None:
            calls.append(("end", dict(span.attributes or {})))

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Watching())
    given = context.Context()
    provider.get_tracer("watched").start_span("watched", given).end()
    assert calls == [("start", given), ("ending", "watched"), ("end", {"by": "processor"})]
    assert calls[0][1] is given


def test_a_processor_that_fails_does_not_reach_the_program(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """What a processor raises is logged once, and the span is recorded."""

    class Failing(SpanProcessor):
        def on_start(self, *_arguments: Any, **_options: Any) -> None:
            raise RuntimeError("at the start")

        def on_end(self, *_arguments: Any) -> None:
            raise RuntimeError("at the end")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Failing())
    for _ in range(2):
        provider.get_tracer("failing").start_span("survives").end()
    assert len(recorder.named("survives")) == 2
    assert caplog.text.count("at the start") == caplog.text.count("at the end") == 1
    recorder.faults_expected = 4


def test_flush_and_shutdown_reach_the_processors(exported: InMemorySpanExporter) -> None:
    """force_flush empties a BatchSpanProcessor; shutdown ends it, and the recorder goes on."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exported, schedule_delay_millis=60_000))
    provider.get_tracer("batch").start_span("batched").end()
    assert provider.force_flush(20_000)
    assert [span.name for span in exported.get_finished_spans()] == ["batched"]
    provider.shutdown()
    assert core.is_open()


def test_a_processor_is_shut_down_at_the_exit(run_python: Callable[..., Any]) -> None:
    """What a BatchSpanProcessor holds when the program ends is exported."""
    done = run_python(
        "from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter\n"
        "from otel_trading.api import TracerProvider\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(), schedule_delay_millis=60_000))\n"
        "provider.get_tracer('x').start_span('at exit').end()\n"
    )
    assert json.loads(done.stdout)["name"] == "at exit"


def test_a_forked_childs_spans_join_the_trace(run_python: Callable[..., Any]) -> None:
    """A child that is forked in a span goes on with the same provider, in a segment of its own."""
    run_python(
        "import os, sys\n"
        "import otel_trading as ot\n"
        "from otel_trading.api import TracerProvider\n"
        "tracer = TracerProvider().get_tracer('x')\n"
        "with tracer.start_as_current_span('parent') as parent:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        with tracer.start_as_current_span('child') as span:\n"
        "            same = span.get_span_context().trace_id == parent.get_span_context().trace_id\n"
        "            assert span.is_recording()\n"
        "        os._exit(0 if same and ot.stats()['child']['count'] == 1 else 1)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert ot.stats()['parent']['count'] == 1\n"
    )
