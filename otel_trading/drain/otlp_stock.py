"""OTLP requests over http by a stock exporter: whatever its client is set up with, and its own metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http import trace_exporter

from otel_trading.drain.otlp import Sent, UnfitError
from otel_trading.drain.otlp_http import HttpSender

if TYPE_CHECKING:
    from otel_trading.drain.otlp import Encoded
    from otel_trading.drain.wire import Wire

_PARTS = ("_client", "_metrics", "_max_request_size", "_shutdown")
_CLIENT_PARTS = ("export", "_transport", "_endpoint", "_shutdown", "_shutdown_event")
_TOO_LARGE: type[Exception] = getattr(trace_exporter, "RequestPayloadTooLargeError", ValueError)
_STATUS = "http.response.status_code"


class StockSender(HttpSender):
    """Sends by an exporter's client."""

    def __init__(self, exporter: Any, wire: Wire) -> None:
        """Look the exporter's parts up; ``wire`` is told what is sent.

        Raises UnfitError where they are not as expected.
        """
        _look(exporter)
        self._exporter = exporter
        super().__init__(exporter._client, wire, exporter._max_request_size)  # noqa: SLF001 - looked up just now

    def _send(self, request: Encoded) -> Sent:
        if self._exporter._shutdown:  # noqa: SLF001
            return Sent(taken=False, reason="it is shut down")
        with self._exporter._metrics.export_operation(request.spans) as told:  # noqa: SLF001 - its own metrics
            outcome = self._export(request)
            if not outcome.sent.taken:
                told.error = outcome.error
                if outcome.status is not None:
                    told.error_attrs = {_STATUS: outcome.status}
        return outcome.sent

    @staticmethod
    def _too_large(reason: str) -> Exception:
        return _TOO_LARGE(reason)


def _look(exporter: object) -> None:
    if type(exporter) is not trace_exporter.OTLPSpanExporter:
        message = f"{type(exporter).__qualname__} is not the stock exporter"
        raise UnfitError(message)
    client = getattr(exporter, "_client", None)
    missing = [part for part in _PARTS if not hasattr(exporter, part)]
    missing += [f"_client.{part}" for part in _CLIENT_PARTS if not hasattr(client, part)]
    if missing:
        message = f"it has no {', '.join(missing)}"
        raise UnfitError(message)
