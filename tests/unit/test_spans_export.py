"""Kept spans become the SDK's spans, and nothing of them is lost on the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind, StatusCode

from otel_trading import __version__
from otel_trading.drain.spans import Converter

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

TRACE = 0x0123456789ABCDEF0123456789ABCDEF
RESOURCE = Resource({"service.name": "bot"})
PROBES = [{"name": "order.execute", "kind": 2}, {"name": "signal", "kind": 0}, {"name": "odd", "kind": 99}]


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
