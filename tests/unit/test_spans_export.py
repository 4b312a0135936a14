"""Kept spans become the SDK's spans, and nothing of them is lost on the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common._internal import _encode_value
from opentelemetry.exporter.otlp.proto.common._internal.trace_encoder import _encode_events, _encode_links
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

from otel_trading import __version__
from otel_trading.drain.spans import SCOPE, Converter, readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

TRACE = 0x0123456789ABCDEF0123456789ABCDEF
RESOURCE = Resource({"service.name": "bot"})
PROBES = [
    {"name": "order.execute", "kind": 2, "scope": ""},
    {"name": "signal", "kind": 0, "scope": ""},
    {"name": "odd", "kind": 99, "scope": ""},
    {
        "name": "GET",
        "kind": 2,
        "scope": '{"name":"http","version":"1.2","schema_url":"https://s","attributes":{"a":1}}',
    },
    {"name": "bare", "kind": 0, "scope": '{"name":"bare"}'},
    {"name": "damaged", "kind": 0, "scope": '{"name'},
]
API = 3  # the first probe that a tracer made
ELSEWHERE = SpanContext(0xA5 << 100, 0xB7, is_remote=True)


def state(**changes: Any) -> tuple[Any, ...]:
    """Return a span as a backend hands it over."""
    fields: dict[str, Any] = {
        "probe": 0,
        "tier": 0,
        "trace_id": TRACE,
        "span_id": 0xABC,
        "parent_id": 0,
        "start": 1_800_000_000_000_000_001,
        "end": 1_800_000_000_000_000_900,
        "status": 0,
        "flags": 0,
        "error": None,
        "tracestate": None,
        "attributes": {},
        "dropped": 0,
        "name": None,
        "description": None,
        "events": [],
        "links": [],
        "events_dropped": 0,
        "links_dropped": 0,
    }
    assert set(changes) <= set(fields)
    return tuple({**fields, **changes}.values())


def converted(**changes: Any) -> ReadableSpan:
    """Return one span through a new converter."""
    (span,) = Converter(RESOURCE, lambda: PROBES).convert([state(**changes)])
    return span


def test_a_root_span_has_everything() -> None:
    """Ids, times, name, kind, tier, resource, and scope are those of the record."""
    span = converted(attributes={"symbol": "BTCUSDT", "qty": 1.5, "n": 3, "dry": True})
    context = span.get_span_context()
    assert context is not None
    assert (context.trace_id, context.span_id, context.is_remote) == (TRACE, 0xABC, False)
    assert context.trace_flags.sampled
    assert span.parent is None
    assert (span.name, span.kind) == ("order.execute", SpanKind.CLIENT)
    assert (span.start_time, span.end_time) == (1_800_000_000_000_000_001, 1_800_000_000_000_000_900)
    assert span.attributes == {"symbol": "BTCUSDT", "qty": 1.5, "n": 3, "dry": True, "trading.tier": "P0"}
    assert span.resource is RESOURCE
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("otel_trading", __version__)
    assert span.status.status_code is StatusCode.UNSET
    assert list(span.events) == []


@pytest.mark.parametrize("remote", [False, True])
def test_a_child_knows_its_parent_and_whether_it_was_remote(remote: bool) -> None:  # noqa: FBT001
    """The parent has the same trace, its own id, and the remote flag."""
    parent = converted(parent_id=0xDEF, flags=1 if remote else 0).parent
    assert parent is not None
    assert (parent.trace_id, parent.span_id, parent.is_remote) == (TRACE, 0xDEF, remote)


def test_an_error_has_a_status_a_type_and_an_event() -> None:
    """A span left by an exception says which, in an attribute and in an event at its end."""
    span = converted(status=2, error="ValueError")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ValueError"
    (event,) = span.events
    assert (event.name, event.timestamp, event.attributes) == (
        "exception",
        span.end_time,
        {"exception.type": "ValueError"},
    )


@pytest.mark.parametrize(
    ("flag", "attribute"), [(4, "trading.cancelled"), (8, "trading.abandoned"), (16, "trading.interrupted")]
)
def test_what_cut_a_span_short_is_an_attribute(flag: int, attribute: str) -> None:
    """Cancelled, abandoned, and interrupted spans say so, and others have no such attribute."""
    assert converted(flags=flag).attributes == {"trading.tier": "P0", attribute: True}
    assert converted(flags=32).attributes == {"trading.tier": "P0"}


def test_tracestate_is_carried() -> None:
    """The span's context and its parent's have the tracestate that came with the trace."""
    span = converted(tracestate="ot=th:8,other=x", parent_id=1)
    assert span.context is not None
    assert span.parent is not None
    assert dict(span.context.trace_state) == dict(span.parent.trace_state) == {"ot": "th:8", "other": "x"}


def test_many_tracestates_do_not_grow_the_cache() -> None:
    """The cache of parsed tracestates is bounded."""
    converter = Converter(RESOURCE, lambda: PROBES)
    for number in range(1_000):
        (span,) = converter.convert([state(tracestate=f"ot=rv:{number:014x}")])
        assert span.context is not None
        assert span.context.trace_state["ot"] == f"rv:{number:014x}"
    assert len(converter._states) <= 256


def test_dropped_attributes_are_counted() -> None:
    """What the recorder had no room for is in the span's count of dropped attributes."""
    span = converted(attributes={"a": 1}, dropped=3)
    assert span.dropped_attributes == 3
    assert dict(span.attributes or {}) == {"a": 1, "trading.tier": "P0"}
    assert converted().dropped_attributes == 0


def test_an_unsampled_flag_survives() -> None:
    """A span whose trace was not sampled says so in its flags."""
    context = converted(flags=2).context
    assert context is not None
    assert not context.trace_flags.sampled


def test_names_are_looked_up_once_and_again_for_new_probes() -> None:
    """The lookup is asked for the first span and for an id that is new, and not otherwise."""
    asked = []
    probes = [PROBES[0]]

    def lookup() -> list[dict[str, Any]]:
        asked.append(len(probes))
        return list(probes)

    converter = Converter(RESOURCE, lookup)
    names: Callable[[list[tuple[Any, ...]]], list[str]] = lambda batch: [  # noqa: E731
        span.name for span in converter.convert(batch)
    ]
    assert names([]) == []
    assert names([state()] * 100) == ["order.execute"] * 100
    assert names([state(probe=0)]) == ["order.execute"]
    assert asked == [1]
    probes.append(PROBES[1])
    assert names([state(probe=1), state(probe=0)]) == ["signal", "order.execute"]
    assert asked == [1, 2]
    assert names([state(probe=7)]) == ["unknown"]


def test_numbers_out_of_range_do_no_harm() -> None:
    """A record from a damaged segment has odd numbers; it still becomes a span."""
    span = converted(probe=2, status=9, tier=200)
    assert (span.name, span.kind) == ("odd", SpanKind.INTERNAL)
    assert span.status.status_code is StatusCode.UNSET


def test_spans_can_be_encoded_and_shown() -> None:
    """OTLP and the console exporter take what we make."""
    span = converted(
        status=2, error="ValueError", parent_id=5, flags=17, tracestate="ot=th:8", attributes={"a": 1}, dropped=2
    )
    (resource_spans,) = encode_spans([span, converted()]).resource_spans
    (scope_spans,) = resource_spans.scope_spans
    assert scope_spans.scope.name == "otel_trading"
    first, second = scope_spans.spans
    assert first.trace_id == TRACE.to_bytes(16, "big")
    assert first.parent_span_id == (5).to_bytes(8, "big")
    assert first.trace_state == "ot=th:8"
    assert first.dropped_attributes_count == 2
    assert first.flags & 0x200
    assert second.parent_span_id == b""
    assert json.loads(span.to_json())["attributes"]["error.type"] == "ValueError"


# ---- spans of OpenTelemetry's API


def events(*found: Event) -> list[bytes]:
    """Return events as the recorder keeps them."""
    return [event.SerializeToString() for event in _encode_events(found) or ()]


def links(*found: Link) -> list[bytes]:
    """Return links as the recorder keeps them."""
    return [link.SerializeToString() for link in _encode_links(found) or ()]


def test_a_span_of_a_tracer_has_its_scope_and_nothing_added() -> None:
    """Whatever its tier, flags and error are: the SDK would not have said so."""
    span = converted(
        probe=API, attributes={"a": 1}, flags=4 | 16, error="ValueError", status=2, description="no margin"
    )
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version, scope.schema_url, dict(scope.attributes or {})) == (
        "http",
        "1.2",
        "https://s",
        {"a": 1},
    )
    assert (span.name, span.kind) == ("GET", SpanKind.CLIENT)
    assert span.attributes == {"a": 1}
    assert span.events == ()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no margin")


def test_scopes_are_parsed_once_and_damaged_ones_do_no_harm() -> None:
    """Spans of one scope share it; of text that is no scope comes one without a name."""
    converter = Converter(RESOURCE, lambda: PROBES)
    first, second, bare, damaged = converter.convert(
        [state(probe=API), state(probe=API), state(probe=4), state(probe=5)]
    )
    assert first.instrumentation_scope is second.instrumentation_scope
    assert bare.instrumentation_scope is not None
    assert (bare.instrumentation_scope.name, bare.instrumentation_scope.version) == ("bare", None)
    assert damaged.instrumentation_scope is not None
    assert damaged.instrumentation_scope.name == ""


def test_a_name_of_its_own_takes_the_probes_place() -> None:
    """A renamed span, or one whose name was one too many, has its own."""
    assert converted(probe=API, name="GET /orders").name == "GET /orders"
    assert converted(name="").name == ""


@pytest.mark.parametrize(
    "value", [None, ("a", "b"), (1, 2.5, True, None), b"\x00\xff", {"a": {"b": (1,)}}, (), {}, ("",)]
)
def test_values_that_are_no_plain_ones_are_decoded(value: Any) -> None:
    """Nothing, arrays, maps and bytes come out as the SDK holds them."""
    message = _encode_value(value).SerializeToString()
    assert converted(probe=API, attributes={"a": 1, "odd": message, "z": "z"}).attributes == {
        "a": 1,
        "odd": value,
        "z": "z",
    }


def test_events_and_links_are_the_ones_that_were_added() -> None:
    """With their names, times, attributes, ids, and how many attributes each has lost."""
    lost = BoundedAttributes(attributes={"a": 1})
    lost.dropped = 2
    span = converted(
        probe=API,
        events=events(Event("plain", None, 1), Event("full", {"a": (1, 2)}, 2), Event("lossy", lost, 3)),
        links=links(Link(ELSEWHERE, {"why": "batch"}), Link(SpanContext(1, 2, is_remote=False), lost)),
    )
    assert [(event.name, event.timestamp, dict(event.attributes or {})) for event in span.events] == [
        ("plain", 1, {}),
        ("full", 2, {"a": (1, 2)}),
        ("lossy", 3, {"a": 1}),
    ]
    assert [event.dropped_attributes for event in span.events] == [0, 0, 2]
    assert [(link.context.trace_id, link.context.span_id, link.context.is_remote) for link in span.links] == [
        (0xA5 << 100, 0xB7, True),
        (1, 2, False),
    ]
    assert [dict(link.attributes or {}) for link in span.links] == [{"why": "batch"}, {"a": 1}]
    assert [link.dropped_attributes for link in span.links] == [0, 2]


def test_dropped_events_and_links_are_counted() -> None:
    """Those beyond the limits are in the span's counts, also where none is left."""
    span = converted(probe=API, events=events(Event("e", None, 1)), events_dropped=3, links_dropped=4)
    assert (span.dropped_events, span.dropped_links) == (3, 4)
    assert (len(span.events), len(span.links)) == (1, 0)
    (scope_spans,) = encode_spans([span]).resource_spans[0].scope_spans
    assert (scope_spans.spans[0].dropped_events_count, scope_spans.spans[0].dropped_links_count) == (3, 4)


def test_an_error_comes_after_a_probes_own_events() -> None:
    """A probe's span may have events of its own; the exception that ended it is the last one."""
    span = converted(events=events(Event("first", None, 1)), error="ValueError", status=2)
    assert [event.name for event in span.events] == ["first", "exception"]


def test_a_description_without_an_error_is_left_out() -> None:
    """As in the SDK, only an error has one."""
    assert converted(probe=API, status=1, description="fine").status.description is None


def test_one_span_can_be_read_without_a_converter() -> None:
    """For who knows the probe: the same span, the resource left out or not."""
    one = readable(state(tracestate="a=b"), "n", SpanKind.SERVER, SCOPE, RESOURCE, own=True)
    assert (one.name, one.kind, one.resource, one.attributes) == (
        "n",
        SpanKind.SERVER,
        RESOURCE,
        {"trading.tier": "P0"},
    )
    assert one.context is not None
    assert one.context.trace_state["a"] == "b"
    other = readable(state(), "n", SpanKind.SERVER, SCOPE, None)
    assert dict(other.resource.attributes) == {}
    assert other.attributes == {}


def test_messages_that_cannot_be_decoded_are_an_error() -> None:
    """Damage is told, not passed on."""
    with pytest.raises(ValueError, match="not an OTLP message"):
        converted(attributes={"a": b"\xff"})
