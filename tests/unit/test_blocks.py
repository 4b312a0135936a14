"""Arena blocks: events, links, names and descriptions of spans, and what becomes of them when the arena comes round."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.trace import TracerProvider as SdkProvider
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags, TraceState

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.api import TracerProvider
from otel_trading.segment import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Record, Recorder

    from otel_trading._native import Span

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUE = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT)
ATTRIBUTES = st.dictionaries(st.sampled_from("abcdef") | TEXT, VALUE | st.lists(VALUE, max_size=3), max_size=6)
CONTEXT = st.builds(SpanContext, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())


def api_span(name: str = "blocks") -> Span:
    """Begin a tracer's span."""
    span: Any = TracerProvider().get_tracer("test").start_span(name)
    return span  # type: ignore[no-any-return]  # what the API declares is its own Span


@pytest.fixture(autouse=True)
def _calm(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="opentelemetry.attributes")  # the SDK warns of each that it drops


def events_of(record: Record) -> list[tuple[str, int, dict[str, Any], int]]:
    """Decode a record's events."""
    return [messages.event(data) for data in record.events]


@pytest.mark.parametrize("limit", [0, 1, 3, 128])
def test_events_and_links_are_what_the_sdk_has(make_recorder: Callable[..., Recorder], limit: int) -> None:
    """Names, times, attributes, their order, their limits, and what was dropped, as in the SDK's own span."""
    names = ("attributes", "events", "links", "event_attributes", "link_attributes")
    length = {"limits__text": 7, "limits__event_text": 5}
    recorder = make_recorder(ring__arena_bytes=1 << 20, **length, **{f"limits__{name}": limit for name in names})
    limits = SpanLimits(
        max_events=limit,
        max_links=limit,
        max_event_attributes=limit,
        max_link_attributes=limit,
        max_attribute_length=5,
    )
    sdk = SdkProvider(span_limits=limits, shutdown_on_exit=False).get_tracer("test")

    @settings(deadline=None, max_examples=40, phases=[Phase.generate])
    @given(
        st.lists(st.tuples(TEXT, st.none() | ATTRIBUTES, st.integers(1, 2**63 - 1)), max_size=8),
        st.lists(st.tuples(CONTEXT, st.none() | ATTRIBUTES), max_size=6),
    )
    def check(events: list[tuple[str, Any, int]], links: list[tuple[SpanContext, Any]]) -> None:
        theirs: Any = sdk.start_span("blocks")
        ours = api_span()
        for span in (theirs, ours):
            for event in events:
                span.add_event(*event)
            for link in links:
                span.add_link(*link)
            span.end()
        expected: ReadableSpan = theirs._readable_span()
        record = recorder.only("blocks")
        got = [(name, at_ns, list(attributes.items()), n) for name, at_ns, attributes, n in events_of(record)]
        assert repr(got) == repr(
            [(e.name, e.timestamp, list((e.attributes or {}).items()), e.dropped_attributes) for e in expected.events]
        )
        decoded = [messages.link(data) for data in record.links]
        assert repr([(*link[:3], list(link[4].items()), link[5]) for link in decoded]) == repr(
            [
                (
                    link.context.trace_id,
                    link.context.span_id,
                    link.context.is_remote,
                    list((link.attributes or {}).items()),
                    link.dropped_attributes,
                )
                for link in expected.links
            ]
        )
        assert (record.events_dropped, record.links_dropped) == (expected.dropped_events, expected.dropped_links)

    check()


def test_links_keep_what_the_other_span_carries(recorder: Recorder) -> None:
    """A link's trace flags and tracestate are kept."""
    span = api_span()
    span.add_link(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("a", "b")])))
    span.add_link(SpanContext(3, 4, is_remote=False, trace_flags=TraceFlags(0)))
    span.end()
    record = recorder.only("blocks")
    assert [messages.link(data) for data in record.links] == [(1, 2, True, "a=b", {}, 0), (3, 4, False, "", {}, 0)]
    assert [messages.link_trace_flags(data) & 1 for data in record.links] == [1, 0]


def test_names_and_descriptions(recorder: Recorder) -> None:
    """The newest name and description hold; others' blocks are not disturbed; an open span shows them too."""
    span = api_span()
    for number in range(3):
        span.update_name(f"name {number}")
        span.add_event(f"event {number}")
        span.set_status(StatusCode.ERROR, f"description {number}")
        span.set_attribute("text", f"{number}" * 100)
    (opened,) = recorder.open_spans()
    span.end()
    for each in (opened, recorder.only("blocks")):
        assert (each.own_name, each.description) == ("name 2", "description 2")
        assert each.attributes == {"text": "2" * 100}
        assert [event[0] for event in events_of(each)] == ["event 0", "event 1", "event 2"]
    assert span.state() is None


def test_the_state_of_an_open_span(recorder: Recorder) -> None:
    """A span tells of itself what a reader sees of it."""
    span = api_span()
    span.set_attribute("a", [1, None])
    span.add_event("event", {"a": 1}, 5)
    span.add_link(SpanContext(1, 2, is_remote=True))
    span.update_name("renamed")
    state = span.state()
    (opened,) = recorder.segment.reader.open_spans()
    assert state is not None
    assert abs(state[5] - opened[5]) < 10**6  # the clock is read anew
    assert (*state[:5], *state[6:]) == (*opened[:5], *opened[6:])
    span.end()


def test_an_event_too_large_is_cut_and_then_stripped(make_recorder: Callable[..., Recorder]) -> None:
    """An event that no block can hold is kept with shorter texts, or without attributes, and says how many it lost."""
    recorder = make_recorder(ring__arena_bytes=4096)
    span = api_span()
    span.add_event("long", {"text": "x" * 100_000, "short": "s"}, 5)
    span.add_event("many", {f"key{n}": n for n in range(500)}, 6)
    span.end()
    record = recorder.only("blocks")
    (name, at_ns, attributes, dropped), many = events_of(record)
    assert (name, at_ns, dropped) == ("long", 5, 0)
    assert attributes["short"] == "s"
    assert len(attributes["text"]) >= 100
    assert attributes["text"] == "x" * len(attributes["text"])
    assert many[:2] == ("many", 6)
    assert len(many[2]) + many[3] == 500


def test_attributes_that_are_no_mapping_leave_the_event(recorder: Recorder) -> None:
    """Attributes that are none do not lose the event; nothing is raised."""
    span: Any = api_span()
    span.add_event("event", 5)
    span.add_event("other", {"right": 1, "wrong": "\ud800"})
    span.end()
    assert [(name, attributes) for name, _, attributes, _ in events_of(recorder.only("blocks"))] == [
        ("event", {}),
        ("other", {"right": 1}),
    ]
    recorder.faults_expected = recorder.faults


@pytest.mark.usefixtures("quiet")
def test_blocks_that_were_overwritten_are_counted(make_recorder: Callable[..., Recorder]) -> None:
    """When the arena comes round before the drain, older blocks are gone, counted, and nothing else is lost."""
    recorder = make_recorder(ring__arena_bytes=4096)
    core.keep(1000)
    span = api_span("long-lived")
    for number in range(100):
        span.add_event("event", {"number": number}, number + 1)
    span.set_attribute("number", 7)
    for number in range(10):
        with ot.probe("blocks.others").span(text="x" * 100, number=number):
            pass
    span.end()
    core.drain()
    batch = core.take(1000)
    states = batch.states()
    assert len(states) == 11
    found = sum(len(state[15]) for state in states) + sum("text" in state[11] for state in states)
    assert 0 < found < 110
    *_, last = states
    assert last[11].get("number") in (7, None)
    assert len(last[15]) + last[17] == 100  # the newest block knows how many there have been
    assert [messages.event(data)[1] for data in last[15]] == list(range(101 - len(last[15]), 101))
    assert core.snapshot()["segment"]["text_overwritten"] == 110 - found
    assert [state[11]["number"] for state in states[:10]] == list(range(10))
    batch.settle()
    by_reader = recorder.named("long-lived")
    assert len(by_reader) == 1


@pytest.mark.usefixtures("quiet")
def test_more_blocks_than_are_followed(make_recorder: Callable[..., Recorder]) -> None:
    """Of a span with very many blocks the newest 1,024 are read, and the events beyond are told as dropped."""
    recorder = make_recorder(ring__arena_bytes=1 << 20, limits__events=at.NO_LIMIT)
    core.keep(10)
    span = api_span()
    for number in range(at.MAX_BLOCKS + 500):
        span.add_event("e", None, number + 1)
    span.end()
    core.drain()
    batch = core.take(10)
    (state,) = batch.states()
    record = recorder.only("blocks")
    for events, dropped in ((state[15], state[17]), (record.events, record.events_dropped)):
        assert [messages.event(data)[1] for data in events] == list(range(501, at.MAX_BLOCKS + 501))
        assert dropped == 500
    batch.settle()
