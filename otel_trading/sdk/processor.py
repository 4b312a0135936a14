"""Spans of OpenTelemetry's own SDK in the segment: tiers, metrics, keep rules and forensics hold for them too."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import NonRecordingSpan

from otel_trading._backend import core
from otel_trading.api import context as current
from otel_trading.api import hooks
from otel_trading.api.names import make_probe
from otel_trading.api.readable import is_own
from otel_trading.api.scopes import scope_json
from otel_trading.faults import report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from otel_trading._backend import Span

_KEY = "otel_trading.sdk.processor"  # of the SDK's span in the context that a tracer of ours is given
_MOST_OPEN = 4096
_MOST_SCOPES = 1024

_RECORD, _SAMPLE = 1, 2


class _Open(NamedTuple):
    """A span that has begun, as it was then."""

    span: weakref.ref[Any]
    recorded: Span
    name: str
    attributes: tuple[tuple[str, Any], ...]
    links: int


class BudgetSpanProcessor(SpanProcessor):
    """Records the SDK's spans in the segment, from which the recorder exports them.

    Add it in place of a BatchSpanProcessor.  A span is open in the segment from its start, so that it is there when
    the process is killed, and is written whole at its end: ids, times, attributes, events, links and status are its
    own.  Spans that the SDK's sampler only records are in the metrics and not exported.  How many attributes, events
    and links the SDK has dropped is not kept.

    Making one configures the recorder (``otel_trading.configure``) with ``resource`` unless that has been done, and
    from then on OpenTelemetry's current context is the recorder's, so that spans of the SDK and of probes are each
    other's parents.  The exporters are those of the recorder's configuration (``OTEL_TRACES_EXPORTER``).  A span
    costs up to as much again as the SDK takes for it.  Nothing raises: what is wrong is logged once.
    """

    def __init__(self, resource: Resource | None = None) -> None:
        """Take the resource of the provider, where it is not what the environment says."""
        from otel_trading.api.configuration import configure

        hooks.install()
        configure(resource, None)
        current.install()
        self._tracers: dict[InstrumentationScope | None, Any] = {}
        self._open: dict[int, _Open] = {}  # by span id

    # ---- the SDK's interface ----

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """Open the span in the segment."""
        if type(span) is core.Span:
            return  # recorded already
        try:
            if len(self._open) >= _MOST_OPEN:
                self._sweep()
                if len(self._open) >= _MOST_OPEN:
                    return  # written at its end
            self._open[span.get_span_context().span_id] = self._start(span)
        except Exception as error:  # noqa: BLE001  nothing of ours may reach the application
            report("processor", f"a span of the SDK could not be recorded at its start: {error!r}")

    def on_end(self, span: ReadableSpan) -> None:
        """Write the span."""
        try:
            context = span.get_span_context()
            if context is None:
                return
            found = self._open.pop(context.span_id, None)
            if found is None:
                if is_own(span, context.trace_id, context.span_id):
                    return  # recorded already
                found = self._start(span)
            _finish(found, span)
        except Exception as error:  # noqa: BLE001  nothing of ours may reach the application
            report("processor", f"a span of the SDK could not be recorded at its end: {error!r}")

    def shutdown(self) -> None:
        """Flush the recorder, which goes on until the process ends."""
        self.force_flush()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Drain and export what has ended; False where the time was too short."""
        from otel_trading import lifecycle

        return lifecycle.flush(timeout_millis / 1000.0)

    # ---- how ----

    def _start(self, span: Any) -> _Open:
        scope = span.instrumentation_scope
        tracer = self._tracers.get(scope)
        if tracer is None:
            tracer = self._tracer(scope)
        values: dict[str, Any] = {_KEY: span}
        if span.parent is not None:
            values[hooks.SPAN_KEY] = NonRecordingSpan(span.parent)
        attributes = _copied(span.attributes)
        links = span.links
        name = span.name
        recorded: Span = tracer.start_span(name, Context(values), span.kind, attributes, links, span.start_time)
        return _Open(weakref.ref(span), recorded, name, tuple(attributes.items()), len(links))

    def _tracer(self, scope: InstrumentationScope | None) -> Any:
        if len(self._tracers) >= _MOST_SCOPES:
            self._tracers.clear()
        text = (
            scope_json("", "", "", None)
            if scope is None
            else scope_json(scope.name, scope.version or "", scope.schema_url or "", scope.attributes)
        )
        tracer = core.Tracer(text, partial(make_probe, text), 0, 0, True, _decide)
        self._tracers[scope] = tracer
        return tracer

    def _sweep(self) -> None:
        """Forget spans that the program has dropped without ending them: the SDK will not tell of them."""
        for span_id, found in list(self._open.items()):
            if found.span() is None:
                self._open.pop(span_id, None)


def _decide(
    context: Context | None, trace_id: int, name: str, kind: Any, attributes: Mapping[str, Any] | None, links: Any
) -> tuple[int, int, int, str | None, Mapping[str, Any] | None, bool]:
    """Give the tracer the ids of the SDK's span, and its sampler's decision."""
    del trace_id, name, kind, links
    span: Any = context[_KEY] if context is not None else None
    found = span.get_span_context()
    state = found.trace_state
    return (
        found.trace_id,
        found.span_id,
        _SAMPLE if found.trace_flags.sampled else _RECORD,
        state.to_header() if state else None,
        attributes,
        bool(getattr(found.trace_flags, "random_trace_id", False)),
    )


def _copied(attributes: Any) -> dict[str, Any]:
    """Give a span's attributes as a plain dict; the SDK's own copies ten times as fast as it can be walked through."""
    return attributes.copy() if attributes else {}


def _finish(found: _Open, span: ReadableSpan) -> None:
    recorded = found.recorded
    items = tuple(_copied(span.attributes).items())
    count = len(found.attributes)
    # By identity: what was set again stands at the end, and 1 is not True.
    same = len(items) >= count and all(
        new[0] == old[0] and new[1] is old[1] for new, old in zip(items, found.attributes, strict=False)
    )
    rest = items[count:] if same else items
    if rest:
        recorded.set_attributes(dict(rest))
    for event in span.events:
        recorded.add_event(event.name, event.attributes, event.timestamp)
    for link in span.links[found.links :]:
        recorded.add_link(link.context, link.attributes)
    if span.status is not None:
        recorded.set_status(span.status)
    if span.name != found.name:
        recorded.update_name(span.name)
    recorded.end(span.end_time)
