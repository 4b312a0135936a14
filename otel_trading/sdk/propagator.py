"""W3C Trace Context as a propagator of OpenTelemetry's, without regular expressions, and with few objects.

It reads and writes what ``TraceContextTextMapPropagator`` does.  Baggage is the baggage propagator's:
``OTEL_PROPAGATORS=otel_trading,baggage``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context as api
from opentelemetry.context import Context
from opentelemetry.propagators import textmap
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from otel_trading._backend import core
from otel_trading.api.context import RecorderContext

if TYPE_CHECKING:
    from typing import Any

    from opentelemetry.propagators.textmap import CarrierT, Getter, Setter

_PARENT = "traceparent"
_STATE = "tracestate"
_LENGTH = 55
_LONGEST_STATE = 8192
_HEX = frozenset("0123456789abcdef")
_FLAGS = tuple(TraceFlags(flags) for flags in range(256))


class RecorderPropagator(textmap.TextMapPropagator):
    """The propagator ``otel_trading``: ``traceparent`` and ``tracestate``."""

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = textmap.default_getter,
    ) -> Context:
        """Return ``context`` with the carrier's remote parent as its span, or as it is where there is no valid one."""
        if context is None:
            context = Context()
        headers = getter.get(carrier, _PARENT)
        if not headers:
            return context
        found = _parsed(headers[0])
        if found is None:
            return context
        trace_id, span_id, flags = found
        states = getter.get(carrier, _STATE)
        state = None
        if states and sum(map(len, states)) + len(states) - 1 <= _LONGEST_STATE:
            state = TraceState.from_header(states)
        parent = SpanContext(trace_id, span_id, True, _FLAGS[flags], state)
        return set_span_in_context(NonRecordingSpan(parent), context)

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = textmap.default_setter,
    ) -> None:
        """Write the span of ``context``, the current one by default, into the carrier; nothing where there is none."""
        # Where the current context is the recorder's, what is current need not be wrapped in one.
        span: Any = None
        if context is None and type(api._RUNTIME_CONTEXT) is RecorderContext:  # noqa: SLF001  as the API itself does
            span = core.current()
            if span is None:
                return
        else:
            span = get_current_span(context)
        if type(span) is core.Span:
            if not span.trace_id or not span.span_id:
                return
            flags = (1 if span.sampled else 0) | (2 if span.random else 0)
            setter.set(carrier, _PARENT, f"00-{span.trace_id:032x}-{span.span_id:016x}-{flags:02x}")
            if span.tracestate:
                setter.set(carrier, _STATE, span.tracestate)
            return
        found = span.get_span_context()
        if not found.is_valid:
            return
        setter.set(carrier, _PARENT, f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}")
        if found.trace_state:
            setter.set(carrier, _STATE, found.trace_state.to_header())

    @property
    def fields(self) -> set[str]:
        """The headers that ``inject`` may write."""
        return {_PARENT, _STATE}


def _parsed(text: str) -> tuple[int, int, int] | None:
    """Parse ``version-trace_id-parent_id-flags``; a later version may have more after another dash."""
    text = text.strip(" \t")
    if len(text) < _LENGTH:
        return None
    version, trace_id, span_id, flags = text[:2], text[3:35], text[36:52], text[53:55]
    if (
        not text[2] == text[35] == text[52] == "-"
        or not _HEX.issuperset(version + trace_id + span_id + flags)
        or version == "ff"
        or (len(text) > _LENGTH and (version == "00" or text[_LENGTH] != "-"))
    ):
        return None
    numbers = int(trace_id, 16), int(span_id, 16), int(flags, 16)
    return numbers if numbers[0] and numbers[1] else None
