"""Log records that carry the current trace: stdlib ``logging`` by ``enable``, ``structlog`` by a processor.

After ``enable()`` (or with the setting ``logs.correlation``) each ``logging.LogRecord`` has, for any formatter:

================= ===================================================================================
``trace_id``      32 hexadecimal digits, "" where no span is current
``span_id``       16 hexadecimal digits, "" where no span is current
``otelTraceID``   the same as OpenTelemetry's own instrumentation writes them: "0" where no span is current
``otelSpanID``    the same
``otelTraceSampled`` True where the trace is sampled
``otelServiceName``  the service that ``configure`` was told
================= ===================================================================================

``logging.basicConfig(format="%(asctime)s %(message)s trace_id=%(trace_id)s")`` then shows them.  For structlog::

    structlog.configure(processors=[add_trace_context, structlog.processors.JSONRenderer()])

The current span is a probe's, a tracer's, or a remote parent.  About 1 µs a record.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.segment.resource import service_name

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

_current = core.current


def _ids() -> tuple[str, str, bool] | None:
    """Give the current span's trace id, span id, and whether it is sampled; None without one."""
    span = _current()
    if span is not None and span.span_id:
        return f"{span.trace_id:032x}", f"{span.span_id:016x}", span.sampled
    # A span of the stock SDK is current in OpenTelemetry's own context only; without the API loaded there is none.
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags.sampled)


class _Factory:
    """A factory of log records on top of the one that was there."""

    def __init__(self, original: Callable[..., logging.LogRecord]) -> None:
        self.original = original
        self.enabled = True
        self._settings: object = self  # that the service's name is of: not looked up yet
        self._service = ""

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.original(*args, **kwargs)
        if not self.enabled:
            return record
        found = _ids()
        if found is None:
            record.trace_id = record.span_id = ""
            record.otelTraceID = record.otelSpanID = "0"
            record.otelTraceSampled = False
        else:
            record.trace_id = record.otelTraceID = found[0]
            record.span_id = record.otelSpanID = found[1]
            record.otelTraceSampled = found[2]
        settings = lifecycle._host.settings  # noqa: SLF001  what configure was told
        if settings is not self._settings:
            self._service = service_name(None if settings is None else settings.service)
            self._settings = settings
        record.otelServiceName = self._service
        return record


_factory: _Factory | None = None


def enable() -> None:
    """Give every log record of this process the current trace; a second call does nothing."""
    global _factory  # noqa: PLW0603  logging has one factory a process
    if _factory is not None and _factory.enabled:
        return
    _factory = _Factory(logging.getLogRecordFactory())
    logging.setLogRecordFactory(_factory)


def disable() -> None:
    """Put back the factory of log records that was there; one that was set on top of ours meanwhile stays."""
    global _factory  # noqa: PLW0603  the same
    if _factory is None:
        return
    _factory.enabled = False
    if logging.getLogRecordFactory() is _factory:
        logging.setLogRecordFactory(_factory.original)
    _factory = None


def add_trace_context(
    logger: Any,  # noqa: ARG001  structlog's signature of a processor
    method_name: str,  # noqa: ARG001
    event_dict: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """Add ``trace_id``, ``span_id`` and ``trace_sampled`` of the current span to a structlog event.

    Without a current span the event stays as it is; keys that the program has set itself stay too.
    """
    found = _ids()
    if found is not None:
        event_dict.setdefault("trace_id", found[0])
        event_dict.setdefault("span_id", found[1])
        event_dict.setdefault("trace_sampled", found[2])
    return event_dict
