"""A span of OpenTelemetry's API: its methods, by the SDK's rules, in each state that a span can be in."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from api_tracers import ABANDONED, ERROR, OK, UNSET, context_of, make_tracer, span_context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, Status, StatusCode

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.segment import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Record, Recorder

TRACER = make_tracer()


def events(record: Record) -> list[tuple[str, int, dict[str, Any]]]:
    """Give a record's events: name, time, attributes."""
    return [tuple(messages.event(data)[:3]) for data in record.events]  # type: ignore[misc]


# ---- what a span says of itself ----------------------------------------------------------------------


def test_its_context(recorder: Recorder) -> None:
    """The span context has the span's ids, is not remote, and is made once."""
    span = TRACER.start_span("span.context")
    context = span.get_span_context()
    assert isinstance(context, SpanContext)
    assert (context.trace_id, context.span_id) == (span.trace_id, span.span_id)
    assert (context.is_remote, context.is_valid, context.trace_flags.sampled) == (False, True, True)
    span.end()
    assert span.get_span_context() is context
    assert recorder.only("span.context").span_id == context.span_id


def test_the_context_of_other_spans(recorder: Recorder) -> None:
    """A probe's span has a context as soon as it is open; a remote parent's says that it is remote."""
    made = ot.probe("span.probe").span()
    assert made.get_span_context() == INVALID_SPAN_CONTEXT
    with made:
        assert made.get_span_context().span_id == made.span_id
        assert made.is_recording()
    assert not made.is_recording()
    for random, flags in ((True, 3), (False, 1)):
        remote = core.remote(1, 2, True, "a=1", random)
        assert (remote.remote, remote.random, remote.is_recording()) == (True, random, False)
        context = remote.get_span_context()
        assert (context.is_remote, context.trace_flags, context.trace_state.to_header()) == (True, flags, "a=1")
    assert core.remote(0, 0, False, None).get_span_context() == INVALID_SPAN_CONTEXT
    assert len(recorder.records()) == 1


def test_spans_are_themselves(recorder: Recorder) -> None:
    """Spans compare and hash by identity, and name themselves."""
    first, second = TRACER.start_span("span.same"), TRACER.start_span("span.same")
    assert first != second
    assert len({first, second, first}) == 2
    assert "span.same" in repr(first)
    assert first.probe is second.probe
    first.end()
    second.end()
    assert len(recorder.records()) == 2


def test_its_state(recorder: Recorder) -> None:
    """The state of an open span is what is recorded so far; there is none before and after."""
    span = TRACER.start_span("span.state", attributes={"a": 1})
    span.set_attribute("b", "two")
    span.update_name("span.renamed")
    span.set_status(StatusCode.ERROR, "why")
    state = span.state()
    assert state[2:5] == (span.trace_id, span.span_id, 0)
    assert (state[6], state[7], state[11], state[13], state[14]) == (
        0,
        ERROR,
        {"a": 1, "b": "two"},
        "span.renamed",
        "why",
    )
    assert state == span.state()
    span.end()
    assert span.state() is None
    assert ot.probe("span.made").span().state() is None
    assert core.remote(1, 2, True, None).state() is None
    assert recorder.only("span.state").own_name == "span.renamed"


def test_what_a_readable_span_has(recorder: Recorder) -> None:
    """What the SDK's spans let one read is asked of the API's side; nothing else is made up."""
    span = TRACER.start_span("span.readable", attributes={"a": 1})
    assert (span.name, dict(span.attributes), span.status.status_code) == ("span.readable", {"a": 1}, StatusCode.UNSET)
    assert span.context == span.get_span_context()
    with pytest.raises(AttributeError):
        _ = span.nonsense
    assert not hasattr(span, "__nonsense__")
    span.end()
    assert len(recorder.records()) == 1


# ---- attributes, events, links -----------------------------------------------------------------------


def test_attributes(recorder: Recorder) -> None:
    """Attributes are set one by one or from any mapping, the newest last."""
    span = TRACER.start_span("span.attributes", attributes=MappingProxyType({"a": 1, "b": 2}))
    span.set_attribute("c", 3)
    span.set_attribute(value=4, key="a")
    span.set_attributes({"d": 5, "b": 6})
    span.set_attributes(MappingProxyType({"e": 7}))
    span.set_attributes(attributes={})
    span.end()
    got = recorder.only("span.attributes").attributes
    assert list(got.items()) == [("c", 3), ("a", 4), ("d", 5), ("b", 6), ("e", 7)]


def test_attributes_whose_keys_are_odd(recorder: Recorder) -> None:
    """Keys that are no text: the SDK takes them by their text in a mapping, and drops them elsewhere."""
    span = TRACER.start_span("span.keys", attributes={1: "a", "": "b", None: "c", "d": 1})
    span.set_attribute("", 1)
    span.set_attribute(7, 1)
    span.end()
    record = recorder.only("span.keys")
    assert record.attributes == {"1": "a", "d": 1}
    assert record.dropped == 4


def test_a_mapping_that_changes_while_it_is_read(recorder: Recorder) -> None:
    """The code of a value's type may do what it likes to the attributes; nothing breaks."""
    attributes: dict[str, Any] = {}

    class Busy:
        def __str__(self) -> str:
            attributes.clear()
            attributes.update({str(n): n for n in range(100)})
            return "busy"

    attributes.update({"a": Busy(), "b": 1})
    span = TRACER.start_span("span.busy", attributes=attributes)
    span.end()
    assert recorder.only("span.busy").attributes["a"] == "busy"


@pytest.mark.parametrize("attributes", [5, "text", [1], object()])
def test_attributes_that_are_none(recorder: Recorder, attributes: Any) -> None:
    """What is no mapping is a fault, and raises nothing."""
    span = TRACER.start_span("span.no_mapping", attributes=attributes)
    span.set_attributes(attributes)
    span.end()
    assert recorder.only("span.no_mapping").attributes == {}
    recorder.faults_expected = 2


def test_events(recorder: Recorder) -> None:
    """Events have a name, attributes and a time: now, unless another is given."""
    span = TRACER.start_span("span.events")
    span.add_event("first")
    span.add_event("second", {"a": 1, "b": [1, 2]}, 5)
    span.add_event(name="third", timestamp=0, attributes=MappingProxyType({}))
    span.add_event(4, None, None)  # type: ignore[arg-type]
    span.end()
    record = recorder.only("span.events")
    found = events(record)
    assert [(name, attributes) for name, _, attributes in found] == [
        ("first", {}), ("second", {"a": 1, "b": (1, 2)}), ("third", {}), ("4", {})]  # fmt: skip
    assert [time for _, time, _ in found[1:3]] == [5, 0]
    assert abs(found[0][1] - record.start) < 10_000_000_000


def test_links(recorder: Recorder) -> None:
    """Links are taken by the SDK's rule."""
    span = TRACER.start_span("span.links")
    span.add_link(span_context(1, 2))
    span.add_link(span_context(3, 4, remote=False), {"a": 1})
    span.add_link(INVALID_SPAN_CONTEXT)
    span.add_link(context=INVALID_SPAN_CONTEXT, attributes={"b": 1})
    span.end()
    found = [messages.link(data) for data in recorder.only("span.links").links]
    assert [(link[0], link[1], bool(link[2]), link[4]) for link in found] == [
        (1, 2, True, {}), (3, 4, False, {"a": 1}), (0, 0, False, {"b": 1})]  # fmt: skip


def test_names(recorder: Recorder) -> None:
    """The newest name holds."""
    span = TRACER.start_span("span.name")
    span.update_name("first")
    span.update_name("second")
    span.end()
    assert recorder.only("span.name").own_name == "second"


# ---- status ------------------------------------------------------------------------------------------

STATUSES = st.one_of(
    st.tuples(st.sampled_from(StatusCode), st.sampled_from([None, "", "why", "other"])),
    st.tuples(
        st.sampled_from([Status(), Status(StatusCode.OK), Status(StatusCode.ERROR), Status(StatusCode.ERROR, "bad")]),
        st.none(),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(calls=st.lists(STATUSES, max_size=6))
def test_status_as_the_sdk_has_it(recorder: Recorder, calls: list[tuple[Any, Any]]) -> None:
    """Any series of ``set_status`` ends in the status that the SDK's span has."""
    ours, theirs = (
        TRACER.start_span("span.status"),
        TracerProvider(shutdown_on_exit=False).get_tracer("x").start_span("x"),
    )
    for status, description in calls:
        ours.set_status(status, description)
        theirs.set_status(status, description)
    ours.end()
    theirs.end()
    record = recorder.only("span.status")
    assert record.status == theirs.status.status_code.value  # type: ignore[attr-defined]
    assert (record.description or None) == (theirs.status.description or None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [1, "ERROR", None, object()])
def test_what_is_no_status(recorder: Recorder, status: Any) -> None:
    """What is no status changes nothing, and is a fault."""
    span = TRACER.start_span("span.no_status")
    span.set_status(status)
    span.end()
    assert recorder.only("span.no_status").status == UNSET
    recorder.faults_expected = 1


# ---- exceptions --------------------------------------------------------------------------------------


class TradeError(ValueError):
    """An error of the program's own."""


def test_exceptions_are_recorded(recorder: Recorder) -> None:
    """An exception is an event; the caller's attributes win; the status is left alone."""
    span = TRACER.start_span("span.exception")
    span.record_exception(TradeError("no margin"), {"exception.message": "mine", "a": 1}, 7, escaped=True)
    span.record_exception(exception=KeyError("k"))
    span.end()
    record = recorder.only("span.exception")
    first, second = events(record)
    name = f"{TradeError.__module__}.TradeError"
    assert first[:2] == ("exception", 7)
    assert (first[2]["exception.type"], first[2]["exception.message"], first[2]["a"]) == (name, "mine", 1)
    assert first[2]["exception.escaped"] == "True"
    assert (second[2]["exception.type"], second[2]["exception.escaped"]) == ("KeyError", "False")
    assert record.status == UNSET


@pytest.mark.parametrize("record_exception", [True, False])
@pytest.mark.parametrize("set_status", [True, False])
@pytest.mark.parametrize("error", [TradeError("no margin"), KeyboardInterrupt(), GeneratorExit()])
def test_a_block_that_fails(
    recorder: Recorder, error: BaseException, *, record_exception: bool, set_status: bool
) -> None:
    """``with span:`` ends the span, records whatever leaves it as escaped, and never makes the span current."""
    span = TRACER.start_span(
        "span.with", record_exception=record_exception, set_status_on_exception=set_status
    )  # fmt: skip

    def run() -> None:
        with span as entered:
            assert entered is span
            assert core.current() is None
            raise error

    with pytest.raises(type(error)):
        run()
    assert not span.is_recording()
    record = recorder.only("span.with")
    assert [name for name, _, _ in events(record)] == ["exception"] * record_exception
    if record_exception:
        assert events(record)[0][2]["exception.escaped"] == "True"
    assert record.status == (ERROR if set_status else UNSET)
    assert record.description == (f"{type(error).__name__}: {error}" if set_status else None)


def test_a_block_that_fails_after_all_was_well(recorder: Recorder) -> None:
    """A status of OK is final."""

    def run() -> None:
        with TRACER.start_span("span.ok") as span:
            span.set_status(StatusCode.OK)
            raise TradeError

    with pytest.raises(TradeError):
        run()
    assert recorder.only("span.ok").status == OK


def test_an_exception_without_a_text(recorder: Recorder) -> None:
    """An exception whose own text fails is recorded without it."""

    class Mute(Exception):  # noqa: N818  what it is
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(Mute), TRACER.start_span("span.mute"):
        raise Mute
    record = recorder.only("span.mute")
    assert (record.status, record.description) == (ERROR, "Mute: ")


# ---- the end -----------------------------------------------------------------------------------------

CALLS: list[Callable[[Any], Any]] = [
    lambda span: span.set_attribute("a", 1),
    lambda span: span.set_attributes({"a": 1}),
    lambda span: span.add_event("e"),
    lambda span: span.add_link(span_context()),
    lambda span: span.update_name("n"),
    lambda span: span.set_status(StatusCode.ERROR),
    lambda span: span.record_exception(ValueError()),
    lambda span: span.end(),
]


@pytest.mark.parametrize("call", CALLS)
def test_after_the_end(recorder: Recorder, call: Callable[[Any], Any]) -> None:
    """A call on a span that has ended does nothing, and is a fault."""
    span = TRACER.start_span("span.after", attributes={"b": 1})
    span.end()
    before = recorder.only("span.after")
    call(span)
    assert recorder.records() == []
    assert (before.attributes, before.status) == ({"b": 1}, UNSET)
    recorder.faults_expected = 1


@pytest.mark.parametrize("call", CALLS)
def test_calls_on_a_remote_parent(recorder: Recorder, call: Callable[[Any], Any]) -> None:
    """A parent from elsewhere takes every call and does nothing, as a NonRecordingSpan."""
    call(core.remote(1, 2, True, None))
    assert recorder.records() == []


@pytest.mark.parametrize("call", CALLS[1:7])
def test_calls_on_a_probes_span(recorder: Recorder, call: Callable[[Any], Any]) -> None:
    """A probe's span takes the API's calls while it is open."""
    with ot.probe("span.of_probe") as span:
        call(span)
    record = recorder.only("span.of_probe")
    said = (record.attributes, record.events, record.links, record.own_name, record.status)
    assert said != ({}, [], [], None, UNSET)


def test_a_probes_span_ends_by_the_api(recorder: Recorder) -> None:
    """``end`` of a probe's span ends it, at the time that is given."""
    span = ot.probe("span.probe_end").span()
    span.begin()
    span.end(2**62)
    assert recorder.only("span.probe_end").end == 2**62


@pytest.mark.parametrize(
    "call",
    [
        lambda span: span.set_attribute("a"),
        lambda span: span.set_attribute("a", 1, 2),
        lambda span: span.set_attributes(),
        lambda span: span.add_event(),
        lambda span: span.add_event("a", nonsense=1),
        lambda span: span.set_status(),
        lambda span: span.end(1, 2),
        lambda span: span.end(1, end_time=2),
    ],
)
def test_calls_that_do_not_fit_the_signature(recorder: Recorder, call: Callable[[Any], Any]) -> None:
    """Too few, too many or unknown arguments are a TypeError, as for any function."""
    span = TRACER.start_span("span.signature")
    with pytest.raises(TypeError):
        call(span)
    span.end()
    assert len(recorder.records()) == 1


def test_a_span_that_nobody_ends(recorder: Recorder) -> None:
    """A span that is dropped while it is open is recorded as abandoned."""
    TRACER.start_span("span.dropped", attributes={"a": 1})
    gc.collect()
    record = recorder.only("span.dropped")
    assert (record.flags, record.attributes) == (ABANDONED, {"a": 1})


def test_interrupted_and_then_told_more(recorder: Recorder) -> None:
    """A span that was written as interrupted takes everything after that, and is not written again."""
    span = TRACER.start_span("span.interrupted")
    core.interrupt_open("the end", False)
    assert [record.name for record in recorder.records()] == ["span.interrupted"]
    for call in CALLS[:-1]:
        call(span)
    assert span.state() is None
    span.end()
    assert recorder.records() == []


def test_a_span_that_ends_in_another_thread(recorder: Recorder) -> None:
    """Where a span is told things and ended does not matter."""
    span = TRACER.start_span("span.thread")

    def work() -> None:
        span.set_attributes({"a": 1, "b": "x" * 200})
        span.add_event("e")
        span.end()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    record = recorder.only("span.thread")
    assert (record.attributes, len(record.events)) == ({"a": 1, "b": "x" * 200}, 1)


def test_spans_of_many_tasks(recorder: Recorder) -> None:
    """Spans that are open at once in many tasks do not mix."""

    async def work(number: int) -> None:
        span = TRACER.start_span("span.task", attributes={"n": number})
        await asyncio.sleep(0)
        child = TRACER.start_span("span.child", context_of(span))
        await asyncio.sleep(0)
        child.set_attribute("n", number)
        span.end()
        child.end()

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(50)))

    asyncio.run(main())
    records = recorder.records()
    parents = {record.span_id: record for record in records if record.name == "span.task"}
    children = [record for record in records if record.name == "span.child"]
    assert len(parents) == len(children) == 50
    assert all(parents[child.parent_id].attributes == child.attributes for child in children)


# ---- Probe.record --------------------------------------------------------------------------------------


def test_a_span_at_once(recorder: Recorder) -> None:
    """``record`` writes a whole span with times of the past, and gives it as a parent."""
    probe = ot.probe("span.record")
    with ot.probe("span.recorder") as outer:
        first = probe.record(None, 5, 9, True, {"a": 1, "b": "x" * 100})
        assert core.current() is outer
    probe.record(first, 6, 0, False, None)
    third = probe.record(core.remote(1, 2, False, "a=1"), 0, 0, False, MappingProxyType({"c": 2}))
    assert not first.recording
    one, two, three = recorder.named("span.record")
    assert (one.start, one.end, one.status, one.error, one.parent_id) == (5, 9, ERROR, None, outer.span_id)
    assert one.attributes == {"a": 1, "b": "x" * 100}
    assert (two.start, two.status, two.parent_id, two.trace_id) == (6, UNSET, first.span_id, outer.trace_id)
    assert two.end > 1_600_000_000_000_000_000
    assert (three.parent_id, three.tracestate, three.attributes) == (2, "a=1", {"c": 2})
    assert third.sampled is False


def test_a_span_at_once_of_wrong_values(recorder: Recorder) -> None:
    """Wrong types are a TypeError, wrong values faults; without a recorder the span is inert."""
    probe = ot.probe("span.record_wrong")
    for wrong in ((None, 1.5, 0, False, None), (None, 0, "now", False, None), (None, 0, 0, False, 5), (None,)):
        with pytest.raises(TypeError):
            probe.record(*wrong)
    probe.record(None, -1, 2**64, False, {1: 1, "a": object()})
    record = recorder.only("span.record_wrong")
    assert (record.attributes, record.flags) == ({}, 0)
    recorder.faults_expected = 4
    assert recorder.faults == 4
    recorder.segment.close()


# ---- memory ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(sys, "getallocatedblocks"), reason="this interpreter does not count its memory blocks")
@pytest.mark.usefixtures("quiet")
def test_nothing_is_left_behind(recorder: Recorder) -> None:
    """Spans that are told everything leave nothing behind, ended or not."""
    error = TradeError("no margin")

    def use(times: int) -> None:
        for _ in range(times):
            span = TRACER.start_span("span.memory", attributes={"a": 1})
            span.set_attributes({"b": [1, 2], "c": "x" * 100})
            span.add_event("e", {"a": 1})
            span.add_link(span.get_span_context(), {"a": 1})
            span.record_exception(error)
            span.set_status(StatusCode.ERROR, "why")
            span.update_name("n")
            span.state()
            span.end()
            TRACER.start_span("span.memory")

    use(200)
    gc.collect()
    before = sys.getallocatedblocks()
    use(2000)
    gc.collect()
    assert sys.getallocatedblocks() - before < 100
    assert recorder.faults == 0
