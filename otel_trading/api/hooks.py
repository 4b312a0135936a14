"""What the backend needs of OpenTelemetry's API, as functions and objects that it calls; none of them raises."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer, TraceState
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.trace.span import DEFAULT_TRACE_STATE

from otel_trading._backend import core
from otel_trading.api.decorate import decorate
from otel_trading.faults import report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SPAN_KEY = _SPAN_KEY
"""The key of the span in a Context."""
KINDS = (SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER)
"""By their numbers."""

_FLAGS = tuple(TraceFlags(flags) for flags in range(256))
_NO_SPAN = (0, 0, False, 0, None)
_MOST_STATES = 256
_states: dict[str, TraceState] = {}
_installed = False


def trace_state(text: str | None) -> TraceState:
    """Return the parsed ``tracestate``; the same object for the same text, of the last few hundred."""
    if not text:
        return DEFAULT_TRACE_STATE
    known = _states.get(text)
    if known is None:
        if len(_states) >= _MOST_STATES:
            _states.clear()
        known = _states[text] = TraceState.from_header([text])
    return known


def span_context(trace_id: int, span_id: int, is_remote: Any, flags: int, tracestate: str | None) -> SpanContext:
    """Make a SpanContext of its parts."""
    return SpanContext(trace_id, span_id, is_remote, _FLAGS[flags & 0xFF], trace_state(tracestate))


def foreign(span: Any) -> tuple[int, int, bool, int, str | None]:
    """Take a span of another implementation apart: trace id, span id, remote, flags, tracestate; zeros for none."""
    try:
        context = span.get_span_context()
        if context is None or not context.is_valid:
            return _NO_SPAN
        state = context.trace_state
        return (
            context.trace_id,
            context.span_id,
            bool(context.is_remote),
            int(context.trace_flags) & 0xFF,
            state.to_header() if state else None,
        )
    except Exception as error:  # noqa: BLE001  a span of anyone's may fail in any way
        report("foreign", f"a {type(span).__name__} is current, but has no span context: {error!r}")
        return _NO_SPAN


def exception(error: BaseException, attributes: Mapping[str, Any] | None, escaped: Any) -> dict[str, Any]:
    """Give the attributes of an exception's event, those of the caller last: they win."""
    message, stacktrace = _told(error)
    kind = type(error)
    module = kind.__module__
    found: dict[str, Any] = {
        "exception.type": f"{module}.{kind.__qualname__}" if module and module != "builtins" else kind.__qualname__,
        "exception.message": message,
        "exception.stacktrace": stacktrace,
        "exception.escaped": str(escaped),
    }
    if attributes:
        try:
            found.update(attributes)
        except Exception as wrong:  # noqa: BLE001
            report("exception", f"record_exception: the attributes {type(attributes).__name__} are none: {wrong!r}")
    return found


def _told(error: BaseException) -> tuple[str, str]:
    """Give an exception's text and stack trace, withheld where an instrumentor has marked it as carrying secrets."""
    redaction = sys.modules.get("otel_trading.instrument.redaction")  # not loaded: nothing is marked
    try:
        if redaction is not None and redaction.is_marked(error):
            return redaction.WITHHELD, redaction.stacktrace(error)
        import traceback

        stacktrace = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  the exception's own methods run here
        stacktrace = ""
    return _text(error), stacktrace


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  its own method
        return ""


def _failure(error: BaseException) -> str:
    """Give the description of the status of a span that an exception has left."""
    redaction = sys.modules.get("otel_trading.instrument.redaction")
    withheld = redaction is not None and redaction.is_marked(error)
    return f"{type(error).__name__}: {redaction.WITHHELD if redaction is not None and withheld else _text(error)}"


def _without_secrets(description: str | None) -> str | None:
    """Withhold a description that repeats the text of the exception which is being handled, if that is marked.

    OpenTelemetry's own ``use_span`` makes such descriptions.
    """
    if description and "otel_trading.instrument.redaction" in sys.modules:
        handled = sys.exc_info()[1]
        text = _text(handled) if handled is not None else ""
        if (
            handled is not None
            and text
            and text in description
            and _failure(handled) != f"{type(handled).__name__}: {text}"
        ):
            return _failure(handled)
    return description


def status(status: Any, description: Any) -> tuple[int, str | None] | None:
    """Give a status' code and description: code 0, UNSET, changes nothing; None for what is no status.

    Of an exception that has left a span: ERROR, its type and its text.
    """
    if isinstance(status, BaseException):
        return StatusCode.ERROR.value, _failure(status)
    if isinstance(status, StatusCode):
        if status is StatusCode.UNSET:
            return 0, None
        status = Status(status, description)
    elif not isinstance(status, Status):
        return None
    elif status.status_code is StatusCode.UNSET:
        return 0, None
    elif description is not None:
        import logging

        logging.getLogger("otel_trading").warning(
            "set_status: the description %r is ignored next to a Status, which has its own", description
        )
    return status.status_code.value, _without_secrets(status.description)


def clean(value: Any) -> Any:
    """Give what the SDK makes of a value of an unknown type: its text, its items cleaned, or None."""
    from opentelemetry.attributes import BoundedAttributes

    try:
        return BoundedAttributes(attributes={"value": value})["value"]
    except Exception as error:  # noqa: BLE001  its __str__ runs here
        report("clean", f"an attribute of type {type(value).__name__} has no value: {error!r}")
        return None


def _readable(span: Any, name: str) -> Any:
    from otel_trading.api.readable import attribute

    return attribute(span, name)


def install() -> None:
    """Give the backend its hooks, and make its types spans and tracers of the API.  Once; later calls do nothing."""
    global _installed  # noqa: PLW0603  the backend takes them once a process
    if _installed:
        return
    _installed = True
    core.api_install(
        {
            "context": Context,
            "span_key": SPAN_KEY,
            "kinds": KINDS,
            "span_context": span_context,
            "foreign": foreign,
            "exception": exception,
            "status": status,
            "clean": clean,
            "readable": _readable,
            "decorate": decorate,
            "fault": report,
        }
    )
    Span.register(core.Span)
    Tracer.register(core.Tracer)
