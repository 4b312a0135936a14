"""What the SDK's spans let one read, for spans of the recorder: by a ReadableSpan that is made when it is asked for.

The SDK is imported here, and not before: a program that only records spans, and lets the recorder export them, runs
without it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan

from otel_trading._backend import core
from otel_trading.api.hooks import KINDS, span_context
from otel_trading.api.scopes import providers as _providers
from otel_trading.drain import spans
from otel_trading.drain.sdk_scopes import Scopes

if TYPE_CHECKING:
    from typing import Any

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext

    from otel_trading._backend import Span
    from otel_trading._native import SpanState

_REMOTE_PARENT = 1

_MOST_ENDED = 256
_ended: OrderedDict[tuple[int, int], ReadableSpan] = OrderedDict()
_MOST_CONTEXTS = 1024
_contexts: OrderedDict[tuple[int, int], SpanContext] = OrderedDict()
_scopes = Scopes()

_NAMES = frozenset({
    "attributes", "context", "dropped_attributes", "dropped_events", "dropped_links", "end_time", "events", "kind",
    "instrumentation_info", "instrumentation_scope", "links", "name", "parent", "resource", "start_time", "status",
    "to_json",
})  # fmt: skip


def attribute(span: Any, name: str) -> Any:
    """Return what a ReadableSpan of ``span`` has by that name; raises AttributeError where it has no such thing.

    An open span is read as it is now, in some 20 µs.  Of an ended one there is what a span processor has been given,
    for the newest few hundred; of the others only what their probe says, and the rest is empty.
    """
    if type(span) is not core.Span:
        return _of_tracer(span, name)
    if name.removeprefix("_") not in _NAMES:
        raise AttributeError(f"{type(span).__name__!r} object has no attribute {name!r}")
    probe = span.probe
    if name == "context":
        return span.get_span_context()
    state = span.state()
    if state is not None:
        return getattr(readable(span, state), name)
    found = _ended.get((span.trace_id, span.span_id))
    if found is None:
        found = ReadableSpan(
            probe.name if probe is not None else "",
            span.get_span_context(),
            resource=resource(probe.scope if probe is not None else ""),
            kind=KINDS[probe.kind if probe is not None else 0],
            instrumentation_scope=scope(probe.scope) if probe is not None else None,
            attributes={},
        )
    return getattr(found, name)


def _of_tracer(tracer: Any, name: str) -> Any:
    """Return what the SDK's tracer has by that name, of its provider; raises AttributeError for anything else."""
    if name in {"instrumentation_scope", "_instrumentation_scope"}:
        return scope(tracer.scope)
    provider = _providers.get(tracer.scope)
    if provider is not None and name in {"resource", "sampler", "id_generator"}:
        return getattr(provider, name)
    if provider is not None and name == "span_processor":
        return provider._active_span_processor  # noqa: SLF001
    raise AttributeError(f"{type(tracer).__name__!r} object has no attribute {name!r}")


def readable(span: Span, state: SpanState, of: Resource | None = None) -> ReadableSpan:
    """Make a ReadableSpan of a span and its state, as the SDK would have."""
    probe = span.probe
    text, name, kind = (probe.scope, probe.name, probe.kind) if probe is not None else ("", "", 0)
    context = span.get_span_context()
    made = spans.readable(
        state,
        name,
        KINDS[kind],
        scope(text),
        of if of is not None else resource(text),
        own=not text,
        trace_state=context.trace_state,
    )
    trace_id, parent_id, end, flags = state[2], state[4], state[6], state[8]
    made._context = context  # noqa: SLF001  the very object, as with the SDK
    if parent_id:
        remote = bool(flags & _REMOTE_PARENT)
        parent = None if remote else _contexts.get((trace_id, parent_id))
        if parent is None:
            parent = span_context(trace_id, parent_id, remote, int(context.trace_flags), state[10])
        made._parent = parent  # noqa: SLF001
    made._end_time = end or None  # noqa: SLF001  0 of an open span
    return made


def started(span: Span) -> None:
    """Keep the context of a span that begins: as with the SDK, a span's ``parent`` is that very object."""
    key = span.trace_id, span.span_id
    _contexts[key] = span.get_span_context()
    if len(_contexts) > _MOST_CONTEXTS:
        _contexts.popitem(last=False)


def ended(span: Span, state: SpanState, of: Resource) -> ReadableSpan:
    """Make the ReadableSpan that span processors get, and keep it for those who read the span after its end."""
    made = readable(span, state, of)
    _ended[span.trace_id, span.span_id] = made
    if len(_ended) > _MOST_ENDED:
        _ended.popitem(last=False)
    return made


def is_own(span: ReadableSpan, trace_id: int, span_id: int) -> bool:
    """Tell whether a ReadableSpan was made here, of a span of the recorder."""
    return _ended.get((trace_id, span_id)) is span


def scope(text: str) -> InstrumentationScope:
    """Return the instrumentation scope of a JSON object; "" is our own."""
    return _scopes[text]


def resource(text: str) -> Resource:
    """Return the resource of the spans of a scope: that of the provider which gave out its tracer last."""
    provider = _providers.get(text)
    if provider is not None:
        return provider.resource
    from opentelemetry.sdk.resources import Resource

    return Resource.get_empty()
