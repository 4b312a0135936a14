"""Kept spans as OpenTelemetry SDK spans, for any span exporter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from otel_trading._version import __version__
from otel_trading.drain.series import tier_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from opentelemetry.sdk.resources import Resource

    from otel_trading._native import SpanState

SCOPE = InstrumentationScope("otel_trading", __version__)
"""The instrumentation scope of our spans and metrics."""

_REMOTE_PARENT = 1
_UNSAMPLED = 2
_FLAG_ATTRIBUTES = ((4, "trading.cancelled"), (8, "trading.abandoned"), (16, "trading.interrupted"))
_MARKED = 4 | 8 | 16

# By the numbers of the span record and of ot_probe.kind, which are OpenTelemetry's.
_STATUS = (Status(StatusCode.UNSET), Status(StatusCode.OK), Status(StatusCode.ERROR))
_KINDS = (SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER)

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)
_NO_STATE = TraceState()
_MOST_STATES = 256

_YIELD_EVERY = 32


class Converter:
    """Makes ReadableSpans; one for each exporting thread, as its caches are not locked.

    ``lookup`` gives all probes by id, each a mapping with ``name`` and ``kind``, as in a snapshot.  It is called when
    an id is met that is not known yet: after start-up, never.
    """

    def __init__(self, resource: Resource, lookup: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        """Take the resource of all spans and the source of the probes' names."""
        self._resource = resource
        self._lookup = lookup
        self._probes: list[tuple[str, SpanKind]] = []
        self._states: dict[str, TraceState] = {}

    def convert(self, states: Sequence[SpanState]) -> list[ReadableSpan]:
        """Return the spans in the same order; about 5 µs each."""
        if states and max(state[0] for state in states) >= len(self._probes):
            self._probes = [(str(probe["name"]), _kind(probe.get("kind", 0))) for probe in self._lookup()]
        spans = []
        for done, state in enumerate(states, 1):
            spans.append(self._span(state))
            if not done % _YIELD_EVERY:
                # Offer the interpreter to the threads that trade, well before they would have to ask for it.
                time.sleep(0)
        return spans

    def _span(self, state: SpanState) -> ReadableSpan:
        probe, tier, trace_id, span_id, parent_id, start, end, status, flags, error, tracestate, own, dropped = state
        name, kind = self._probes[probe] if probe < len(self._probes) else ("unknown", SpanKind.INTERNAL)
        attributes: dict[str, Any] = {**own, "trading.tier": tier_name(tier)}
        if flags & _MARKED:
            for flag, key in _FLAG_ATTRIBUTES:
                if flags & flag:
                    attributes[key] = True
        events: tuple[Event, ...] = ()
        if error is not None:
            attributes["error.type"] = error
            events = (Event("exception", {"exception.type": error}, timestamp=end),)
        trace_state = _NO_STATE if tracestate is None else self._trace_state(tracestate)
        trace_flags = _NOT_SAMPLED if flags & _UNSAMPLED else _SAMPLED
        parent = None
        if parent_id:
            parent = SpanContext(trace_id, parent_id, bool(flags & _REMOTE_PARENT), trace_flags, trace_state)
        return ReadableSpan(
            name=name,
            context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=trace_flags, trace_state=trace_state),
            parent=parent,
            resource=self._resource,
            attributes=_with_dropped(attributes, dropped) if dropped else attributes,
            events=events,
            kind=kind,
            instrumentation_scope=SCOPE,
            status=_STATUS[status] if status < len(_STATUS) else _STATUS[0],
            start_time=start,
            end_time=end,
        )

    def _trace_state(self, text: str) -> TraceState:
        known = self._states.get(text)
        if known is None:
            if len(self._states) >= _MOST_STATES:
                self._states.clear()
            known = self._states[text] = TraceState.from_header([text])
        return known


def _kind(number: int) -> SpanKind:
    return _KINDS[number] if 0 <= number < len(_KINDS) else SpanKind.INTERNAL


def _with_dropped(attributes: dict[str, Any], dropped: int) -> BoundedAttributes:
    bounded = BoundedAttributes(attributes=attributes)
    bounded.dropped = dropped
    return bounded
