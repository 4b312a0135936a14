"""The tracer: names, kinds, parents, times, links, span processors, and its life."""

from __future__ import annotations

import enum
import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest
from api_tracers import (
    END_UNIX,
    REMOTE_PARENT,
    SCOPE,
    START_UNIX,
    UNSAMPLED,
    context_of,
    make_probe,
    make_tracer,
    span_context,
)
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, SpanKind

import otel_trading as ot
from otel_trading import faults
from otel_trading._backend import core
from otel_trading.segment import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder

# ---- names, kinds, arguments -----------------------------------------------------------------------


def test_a_span_is_open_from_the_start_and_not_current(recorder: Recorder) -> None:
    """A span of a tracer is open when it is given, and nothing else becomes current."""
    tracer = make_tracer()
    span = tracer.start_span("tracer.open")
    assert span.is_recording()
    assert core.current() is None
    assert [open_span.name for open_span in recorder.open_spans()] == ["tracer.open"]
    span.end()
    assert not span.is_recording()
    record = recorder.only("tracer.open")
    assert (record.parent_id, record.flags, record.status, record.attributes) == (0, 0, 0, {})
    assert record.start <= record.end
    assert record.trace_id == span.trace_id
    assert record.span_id == span.span_id


def test_arguments_by_position_and_by_name(recorder: Recorder) -> None:
    """All arguments can be given either way."""
    tracer = make_tracer()
    link = Link(span_context())
    everything = ("tracer.all", Context(), SpanKind.CLIENT, {"a": 1}, [link], 5, True, True)
    tracer.start_span(*everything).end()
    names = ("name", "context", "kind", "attributes", "links", "start_time", "record_exception",
             "set_status_on_exception")  # fmt: skip
    tracer.start_span(**dict(zip(names, everything, strict=True))).end()
    tracer.start_span("tracer.all", None, attributes={"a": 1}, links=(link,), kind=SpanKind.CLIENT, start_time=5).end()
    records = recorder.named("tracer.all")
    assert len(records) == 3
    for record in records:
        assert (record.start, record.attributes, len(record.links)) == (5, {"a": 1}, 1)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (("a", "b", "c", "d", "e", "f", "g", "h", "i"), {}),
        (("a",), {"name": "a"}),
        (("a",), {"end_on_exit": True}),
        (("a",), {"nonsense": 1}),
    ],
)
def test_arguments_that_do_not_fit_the_signature(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Too few, too many, twice, or unknown: a TypeError, as for any function."""
    with pytest.raises(TypeError):
        make_tracer().start_span(*args, **kwargs)


class Word(str, enum.Enum):
    """A text that is not exactly a str."""

    NAME = "tracer.word"


@pytest.mark.parametrize(("name", "text"), [(Word.NAME, "tracer.word"), (17, "17"), (None, "None")])
def test_names_that_are_no_str(recorder: Recorder, name: Any, text: str) -> None:
    """A name of another type is taken by its text; nothing raises."""
    make_tracer().start_span(name).end()
    assert recorder.only(text).name == text


def test_a_name_whose_text_fails(recorder: Recorder) -> None:
    """A name that has no text gives a span without a name."""

    class Angry:
        def __str__(self) -> str:
            raise RuntimeError

    asked = []

    def ask(name: str, kind: int, tier: Any) -> Any:
        asked.append(name)
        return make_probe("tracer.angry", kind, tier)

    make_tracer(make_probe=ask).start_span(Angry()).end()
    assert asked == [""]
    assert recorder.only("tracer.angry").own_name in (None, "")


@pytest.mark.parametrize("kind", list(SpanKind))
def test_kinds(recorder: Recorder, kind: SpanKind) -> None:
    """Each kind has a probe of its own, in the tracer's scope."""
    tracer = make_tracer()
    span = tracer.start_span("tracer.kinds", kind=kind)
    span.end()
    assert span.probe.kind == kind.value
    assert span.probe.scope == SCOPE
    assert recorder.segment.reader.probes()[span.probe.id] == ("tracer.kinds", 1, 0, False, kind.value, SCOPE)


@pytest.mark.parametrize("kind", [2, "client", object()])
def test_what_is_no_kind(recorder: Recorder, kind: Any) -> None:
    """What is not a SpanKind is a fault, and the span an internal one."""
    span = make_tracer().start_span("tracer.no_kind", kind=kind)
    span.end()
    assert span.probe.kind == 0
    recorder.faults_expected = 1


@pytest.mark.usefixtures("recorder")
def test_a_probe_is_asked_for_once() -> None:
    """The probe of a name and a kind is asked for once, whatever object the name is."""
    asked: list[tuple[str, int, Any]] = []

    def ask(name: str, kind: int, tier: Any) -> Any:
        asked.append((name, kind, tier))
        return make_probe(name, kind, tier)

    tracer = make_tracer(make_probe=ask)
    for number in (1, 11, 1):
        tracer.start_span(f"tracer.once.{number % 10}").end()
        tracer.start_span(f"tracer.once.{number % 10}", kind=SpanKind.SERVER).end()
    assert asked == [("tracer.once.1", 0, None), ("tracer.once.1", 1, None)]


def test_a_probe_of_another_name(recorder: Recorder) -> None:
    """A span whose probe has another name keeps its own in its record."""
    tracer = make_tracer(make_probe=lambda _, kind, tier: make_probe("tracer.other", kind, tier))
    for number in range(5):
        tracer.start_span(f"tracer.{number}").end()
        tracer.start_span(f"tracer.{number}").end()
    tracer.start_span("tracer.other").end()
    names = [record.own_name for record in recorder.named("tracer.other")]
    assert names == [name for n in range(5) for name in [f"tracer.{n}"] * 2] + [None]


def test_more_names_than_are_remembered(recorder: Recorder) -> None:
    """Any number of names that share a probe is fine, and does not grow the process."""
    tracer = make_tracer(make_probe=lambda _, kind, tier: make_probe("tracer.many", kind, tier))
    for number in range(3000):
        tracer.start_span(f"tracer.many.{number}").end()
        if number % 500 == 0:
            core.drain()
    core.drain()
    assert ot.stats()["tracer.many"]["count"] == 3000
    assert recorder.named("tracer.many")[-1].own_name == "tracer.many.2999"


@pytest.mark.parametrize("result", [None, 1, ZeroDivisionError()])
def test_without_a_probe_nothing_is_recorded(recorder: Recorder, result: Any) -> None:
    """Where no probe can be had the span is inert, and it is told once."""

    def ask(*_: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    span = make_tracer(make_probe=ask).start_span("tracer.none")
    assert not span.is_recording()
    span.end()
    assert "make_probe" in faults._told
    recorder.faults_expected = 1
    assert recorder.records() == []


# ---- parents ---------------------------------------------------------------------------------------


def test_the_parent_is_what_is_current(recorder: Recorder) -> None:
    """Probes' spans are parents of the tracer's, and the other way round."""
    tracer = make_tracer()
    middle_scope = tracer.start_as_current_span("tracer.middle")
    with ot.probe("tracer.probe") as outer, middle_scope as middle, ot.probe("tracer.inner") as inner:
        tracer.start_span("tracer.leaf").end()
    spans = {record.name: record for record in recorder.records()}
    assert spans["tracer.middle"].parent_id == outer.span_id
    assert spans["tracer.inner"].parent_id == middle.span_id
    assert spans["tracer.leaf"].parent_id == inner.span_id
    assert len({record.trace_id for record in spans.values()}) == 1


def test_an_explicit_context(recorder: Recorder) -> None:
    """An explicit context says who the parent is; one without a span makes a root, whatever is current."""
    tracer = make_tracer()
    other = tracer.start_span("tracer.other_parent")
    with tracer.start_as_current_span("tracer.current"):
        tracer.start_span("tracer.child", context_of(other)).end()
        tracer.start_span("tracer.root", Context()).end()
        tracer.start_span("tracer.invalid", context_of(INVALID_SPAN)).end()
        tracer.start_span("tracer.nonsense", context_of("no span")).end()
    other.end()
    spans = {record.name: record for record in recorder.records()}
    assert (spans["tracer.child"].parent_id, spans["tracer.child"].trace_id) == (other.span_id, other.trace_id)
    traces = {record.trace_id for record in spans.values()}
    for name in ("tracer.root", "tracer.invalid", "tracer.nonsense"):
        assert spans[name].parent_id == 0
    assert len(traces) == 5
    recorder.faults_expected = 1  # a context's span that is none


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_a_parent_that_is_not_ours(recorder: Recorder, flags: int, *, remote: bool) -> None:
    """Of a foreign parent the ids, the flags, the tracestate and whether it is remote go on to the child."""
    tracer = make_tracer()
    parent = NonRecordingSpan(span_context(remote=remote, flags=flags, state="a=1,b=2"))
    span = tracer.start_span("tracer.foreign", context_of(parent))
    context = span.get_span_context()
    span.end()
    record = recorder.only("tracer.foreign")
    assert (record.trace_id, record.parent_id, record.tracestate) == (0xA1, 0xB2, "a=1,b=2")
    assert record.flags == (REMOTE_PARENT if remote else 0) | (0 if flags & 1 else UNSAMPLED)
    assert context.trace_flags == flags
    assert (context.trace_id, context.span_id, context.is_remote) == (0xA1, span.span_id, False)
    assert context.trace_state == parent.get_span_context().trace_state


def test_a_foreign_span_that_fails(recorder: Recorder) -> None:
    """A parent whose own code raises is no parent."""

    class Angry(NonRecordingSpan):
        def get_span_context(self) -> Any:
            raise RuntimeError

    make_tracer().start_span("tracer.angry_parent", context_of(Angry(span_context()))).end()
    assert recorder.only("tracer.angry_parent").parent_id == 0
    recorder.faults_expected = 1


def test_ids_of_our_own_are_random(recorder: Recorder) -> None:
    """A root's trace id is known to be random, and says so."""
    span = make_tracer().start_span("tracer.random")
    assert span.random
    assert span.get_span_context().trace_flags == 3
    span.end()
    assert recorder.only("tracer.random").trace_id == span.get_span_context().trace_id


# ---- times and links -------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 1, 1_700_000_000_000_000_000, 2**63 - 1])
def test_explicit_times(recorder: Recorder, start: int) -> None:
    """Times that the program gives are kept as they are."""
    make_tracer().start_span("tracer.time", start_time=start).end(start)
    record = recorder.only("tracer.time")
    assert (record.start, record.end, record.flags) == (start, start, START_UNIX | END_UNIX)


@pytest.mark.parametrize("time", [-1, 2**64, "now", object()])
def test_times_that_are_none(recorder: Recorder, time: Any) -> None:
    """What is no time is a fault, and the time is now."""
    make_tracer().start_span("tracer.bad_time", start_time=time).end(time)
    record = recorder.only("tracer.bad_time")
    assert record.flags == 0
    assert 0 <= record.end - record.start < 60_000_000_000
    recorder.faults_expected = 2


def test_links_at_the_start(recorder: Recorder) -> None:
    """Links are taken by the SDK's rule: valid ones, and others that have attributes or a tracestate."""
    links = [
        Link(span_context(1, 2), {"k": "v"}),
        Link(span_context(0, 0)),
        None,
        Link(span_context(0, 0), {"k": 1}),
        Link(span_context(3, 4, state="a=1", remote=False)),
    ]
    make_tracer().start_span("tracer.links", links=links).end()
    found = [messages.link(data) for data in recorder.only("tracer.links").links]
    assert [(*link[:2], bool(link[2]), *link[3:5]) for link in found] == [
        (1, 2, True, "", {"k": "v"}), (0, 0, True, "", {"k": 1}), (3, 4, False, "a=1", {})]  # fmt: skip


@pytest.mark.parametrize("links", [None, (), []])
def test_no_links(recorder: Recorder, links: Any) -> None:
    """No links, in any form."""
    make_tracer().start_span("tracer.no_links", links=links).end()
    assert recorder.only("tracer.no_links").links == []


@pytest.mark.parametrize("links", [5, [5], [object()]])
def test_what_is_no_link(recorder: Recorder, links: Any) -> None:
    """What is no link is a fault, and the span is recorded."""
    make_tracer().start_span("tracer.bad_links", links=links).end()
    assert recorder.only("tracer.bad_links").links == []
    recorder.faults_expected = 1


# ---- span processors -------------------------------------------------------------------------------


def test_processors_are_told(recorder: Recorder) -> None:
    """``on_start`` gets the span and the context, ``on_end`` the span and its state; a dropped span tells none."""
    starts: list[Any] = []
    ends: list[Any] = []
    tracer = make_tracer()
    tracer.on_start = lambda span, context: starts.append((span, context, span.state()))
    tracer.on_end = lambda span, state: ends.append((span, state, span.is_recording()))
    context = Context()
    first = tracer.start_span("tracer.told", context, attributes={"a": 1})
    with tracer.start_as_current_span("tracer.told") as second:
        second.set_attribute("b", 2)
    first.end()
    assert [(span, given) for span, given, _ in starts] == [(first, context), (second, None)]
    assert starts[0][2][11] == {"a": 1}
    assert [span for span, _, _ in ends] == [second, first]
    assert not any(recording for _, _, recording in ends)
    by_reader = {record.span_id: record for record in recorder.records()}
    for span, state, _ in ends:
        record = by_reader[span.span_id]
        assert state[2:5] == (record.trace_id, record.span_id, record.parent_id)
        assert state[7:] == tuple(record)[7:]
        assert abs(state[5] - record.start) < 1_000_000
        assert abs(state[6] - record.end) < 1_000_000
    dropping = make_tracer(sampler=1)
    dropping.on_start, dropping.on_end = tracer.on_start, tracer.on_end
    dropping.start_span("tracer.told").end()
    assert (len(starts), len(ends)) == (2, 2)
    tracer.on_start = tracer.on_end = None
    assert tracer.on_start is None
    tracer.start_span("tracer.told").end()
    assert (len(starts), len(ends)) == (2, 2)


def test_processors_that_fail(recorder: Recorder) -> None:
    """What a processor raises stays inside, and is told once."""

    def angry(*_: Any) -> None:
        raise RuntimeError

    tracer = make_tracer()
    tracer.on_start = tracer.on_end = angry
    for _ in range(2):
        with tracer.start_as_current_span("tracer.angry_processor"):
            pass
    assert {"on_start", "on_end"} <= faults._told
    recorder.faults_expected = 4
    assert len(recorder.named("tracer.angry_processor")) == 2


# ---- life and death --------------------------------------------------------------------------------


def test_a_tracer_that_closes_the_recorder_in_between(make_recorder: Callable[..., Recorder]) -> None:
    """Code that runs while a span is made may even shut the recorder down."""
    make_recorder()

    def ask(name: str, kind: int, tier: Any) -> Any:
        ot.shutdown()
        return make_probe(name, kind, tier)

    span = make_tracer(make_probe=ask).start_span("tracer.closing", attributes={"a": 1})
    assert not span.is_recording()
    span.end()


def test_a_span_outlives_its_recorder(make_recorder: Callable[..., Recorder]) -> None:
    """A span of a recorder that is gone takes everything, and is still a parent."""
    make_recorder()
    tracer = make_tracer()
    span = tracer.start_span("tracer.outlives")
    ot.shutdown()
    again = make_recorder()
    assert not span.is_recording()
    span.set_attribute("a", 1)
    tracer.start_span("tracer.after", context_of(span)).end()
    span.end()
    (record,) = again.records()
    assert (record.name, record.parent_id, record.trace_id) == ("tracer.after", span.span_id, span.trace_id)


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="this interpreter does not count references")
@pytest.mark.usefixtures("quiet")
def test_references(recorder: Recorder) -> None:
    """Spans hold on to what they were given for no longer than they need it."""
    tracer = make_tracer()
    name, value = "tracer.references", "some text that is not interned anywhere else" * 3
    attributes, context = {"a": value}, Context({"k": 1})
    things = (tracer, attributes, context, value)

    def use() -> None:
        for _ in range(10):
            tracer.start_span(name, context, attributes=attributes).end()
            with tracer.start_as_current_span(name, context, attributes=attributes):
                pass
            tracer.start_as_current_span(name, context, attributes=attributes)

    use()
    gc.collect()
    before = [sys.getrefcount(thing) for thing in things]
    use()
    gc.collect()
    assert [sys.getrefcount(thing) for thing in things] == before
    assert recorder.faults == 0


def test_more_tracestates_than_the_name_table_holds(make_recorder: Callable[..., Recorder]) -> None:
    """A tracestate for each trace leaves room for names, and is never recorded as what it is not."""
    recorder = make_recorder(names__max=1024)
    tracer = make_tracer()
    for number in range(1, 500):
        state = f"v={number}" + "x" * (number % 2 * 80)
        parent = NonRecordingSpan(span_context(number, state=state))
        with tracer.start_as_current_span("tracer.states", context_of(parent)) as span:
            ot.probe("tracer.states.inner").stop(ot.probe("tracer.states.inner").start())
        assert span.get_span_context().trace_state.to_header() == state
        if number % 200 == 0:
            core.drain()
    records = recorder.records()
    for record in records:
        expected = f"v={record.trace_id}" + "x" * (record.trace_id % 2 * 80)
        assert record.tracestate in (None, expected)
    assert records[0].tracestate is not None
    tracer.start_span("tracer.still_a_name").end()
    assert recorder.only("tracer.still_a_name").own_name is None
