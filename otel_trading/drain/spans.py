"""Kept spans as OpenTelemetry SDK spans, for any span exporter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from otel_trading.drain.sdk_scopes import SCOPE, Scopes
from otel_trading.drain.series import tier_name
from otel_trading.segment import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, TypeVar

    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from otel_trading._native import SpanState

    Item = TypeVar("Item")

__all__ = ["SCOPE", "Converter", "readable"]

_REMOTE_PARENT = 1
_UNSAMPLED = 2
_FLAG_ATTRIBUTES = ((4, "trading.cancelled"), (8, "trading.abandoned"), (16, "trading.interrupted"))
_MARKED = 4 | 8 | 16

# By the numbers of the span record and of ot_probe.kind, which are OpenTelemetry's.
_CODES = (StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR)
_STATUS = tuple(Status(code) for code in _CODES)
_KINDS = (SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER)
_UNKNOWN = ("unknown", SpanKind.INTERNAL, "")

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)
_NO_STATE = TraceState()
_NO_RESOURCE = Resource.get_empty()
_MOST_STATES = 256

_YIELD_EVERY = 32


class Converter:
    """Makes ReadableSpans; one for each exporting thread, as its caches are not locked.

    ``lookup`` gives all probes by id, each a mapping with ``name``, ``kind`` and ``scope``, as in a snapshot.  It is
    called when an id is met that is not known yet: after start-up, never.

    Spans that were made through OpenTelemetry's API are as the SDK would have them, nothing added.  Those of probes
    have our scope, their tier, and what cut them short as attributes.
    """

    def __init__(self, resource: Resource, lookup: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        """Take the resource of all spans and the source of the probes' names."""
        self._resource = resource
        self._lookup = lookup
        self._probes: list[tuple[str, SpanKind, str]] = []
        self._states: dict[str, TraceState] = {}
        self._scopes = Scopes()

    def convert(self, states: Sequence[SpanState]) -> list[ReadableSpan]:
        """Return the spans in the same order; about 5 µs each."""
        if states and max(state[0] for state in states) >= len(self._probes):
            self._probes = [
                (str(probe["name"]), _kind(probe.get("kind", 0)), str(probe.get("scope", "")))
                for probe in self._lookup()
            ]
        spans = []
        for done, state in enumerate(states, 1):
            spans.append(self._span(state))
            if not done % _YIELD_EVERY:
                # Offer the interpreter to the threads that trade, well before they would have to ask for it.
                time.sleep(0)
        return spans

    def _span(self, state: SpanState) -> ReadableSpan:
        probe, tracestate = state[0], state[10]
        name, kind, scope = self._probes[probe] if probe < len(self._probes) else _UNKNOWN
        trace_state = _NO_STATE if tracestate is None else self._trace_state(tracestate)
        return readable(state, name, kind, self._scopes[scope], self._resource, own=not scope, trace_state=trace_state)

    def _trace_state(self, text: str) -> TraceState:
        known = self._states.get(text)
        if known is None:
            if len(self._states) >= _MOST_STATES:
                self._states.clear()
            known = self._states[text] = TraceState.from_header([text])
        return known


def readable(
    state: SpanState,
    name: str,
    kind: SpanKind,
    scope: InstrumentationScope,
    resource: Resource | None,
    *,
    own: bool = False,
    trace_state: TraceState | None = None,
) -> ReadableSpan:
    """Return one span of a probe with that name and kind; about 5 µs.

    ``own`` says that the probe is the program's and not a tracer's: then its tier, what cut the span short, and the
    type of its error are added.  ``trace_state`` is the state's tracestate, where that has been parsed already.
    Raises ValueError for attributes, events and links that cannot be decoded.
    """
    _, tier, trace_id, span_id, parent_id, start, end, status, flags, error, tracestate = state[:11]
    attributes, dropped, named, description, event_messages, link_messages, events_dropped, links_dropped = state[11:]
    for key, value in state[11].items():
        if type(value) is bytes:
            attributes = {**attributes, key: messages.value(value)}
    events = [_event(message) for message in event_messages] if event_messages else []
    if own:
        attributes = {**attributes, "trading.tier": tier_name(tier)}
        if flags & _MARKED:
            for flag, key in _FLAG_ATTRIBUTES:
                if flags & flag:
                    attributes[key] = True
        if error is not None:
            attributes["error.type"] = error
            events.append(Event("exception", {"exception.type": error}, timestamp=end))
    links = [_link(message) for message in link_messages] if link_messages else []
    if trace_state is None:
        trace_state = TraceState.from_header([tracestate]) if tracestate else _NO_STATE
    trace_flags = _NOT_SAMPLED if flags & _UNSAMPLED else _SAMPLED
    parent = None
    if parent_id:
        parent = SpanContext(trace_id, parent_id, bool(flags & _REMOTE_PARENT), trace_flags, trace_state)
    return ReadableSpan(
        name=name if named is None else named,
        context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=trace_flags, trace_state=trace_state),
        parent=parent,
        resource=_NO_RESOURCE if resource is None else resource,
        attributes=_with_dropped(attributes, dropped) if dropped else attributes,
        events=_list_with_dropped(events, events_dropped) if events_dropped else tuple(events),
        links=_list_with_dropped(links, links_dropped) if links_dropped else tuple(links),
        kind=kind,
        instrumentation_scope=scope,
        status=_status(status, description),
        start_time=start,
        end_time=end,
    )


def _kind(number: int) -> SpanKind:
    return _KINDS[number] if 0 <= number < len(_KINDS) else SpanKind.INTERNAL


def _status(code: int, description: str | None) -> Status:
    if code >= len(_CODES):
        return _STATUS[0]
    # The SDK has a description only next to ERROR, and warns where there is another one.
    if description is None or _CODES[code] is not StatusCode.ERROR:
        return _STATUS[code]
    return Status(StatusCode.ERROR, description)


def _event(message: bytes) -> Event:
    name, unix_ns, attributes, dropped = messages.event(message)
    return Event(name, _with_dropped(attributes, dropped) if dropped else attributes, timestamp=unix_ns)


def _link(message: bytes) -> Link:
    trace_id, span_id, remote, tracestate, attributes, dropped = messages.link(message)
    state = TraceState.from_header([tracestate]) if tracestate else _NO_STATE
    flags = TraceFlags(messages.link_trace_flags(message))
    context = SpanContext(trace_id, span_id, remote, flags, state)
    return Link(context, _with_dropped(attributes, dropped) if dropped else attributes)


def _with_dropped(attributes: dict[str, Any], dropped: int) -> BoundedAttributes:
    bounded = BoundedAttributes(attributes=attributes)
    bounded.dropped = dropped
    return bounded


def _list_with_dropped(items: Sequence[Item], dropped: int) -> BoundedList[Item]:
    bounded = BoundedList.from_seq(max(1, len(items)), items)
    bounded.dropped = dropped
    return bounded
