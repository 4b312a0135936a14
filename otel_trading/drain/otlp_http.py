"""OTLP requests over http, by the stock exporter's client: its session, compression, headers, time limits, retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_trading.drain.otlp import Sent, UnfitError, partial
from otel_trading.drain.plain_http import PlainTransport, plain
from otel_trading.drain.wire import HttpTransport

if TYPE_CHECKING:
    from otel_trading._native import Batch
    from otel_trading.drain.otlp import Encoded
    from otel_trading.drain.wire import Wire

_PARTS = ("_client", "_metrics", "_max_request_size", "_shutdown")
_CLIENT_PARTS = ("export", "_transport", "_endpoint", "_shutdown_event")
_TOO_LARGE: type[Exception] = getattr(trace_exporter, "RequestPayloadTooLargeError", ValueError)
_STATUS = "http.response.status_code"


class HttpSender:
    """Does what the stock exporter's ``export`` does, but for the encoding."""

    def __init__(self, exporter: Any, wire: Wire) -> None:
        """Look the exporter's parts up; ``wire`` is told what is sent.

        Raises UnfitError where they are not as expected.
        """
        _look(exporter)
        self._exporter = exporter
        client = self._exporter._client  # noqa: SLF001 - what was looked up just now
        transport = plain(client._transport, client._endpoint)  # noqa: SLF001
        self._plain = transport if isinstance(transport, PlainTransport) else None
        self._answers = _Answers(transport, wire)
        self._exporter._client._transport = self._answers  # noqa: SLF001

    def send(self, request: Encoded, batch: Batch | None = None) -> Sent:
        """Send, and try again while the exporter's time allows it.

        ``batch`` is marked as sent while the kernel has the whole request and there is no answer but a yes; not where
        the session of ``requests`` sends it.
        """
        plain = self._plain
        if plain is None or batch is None:
            return self._send(request)
        plain.handed_over, plain.not_taken = batch.sent, getattr(batch, "unsent", None)
        try:
            return self._send(request)
        finally:
            plain.handed_over = plain.not_taken = None

    def _send(self, request: Encoded) -> Sent:
        exporter = self._exporter
        if exporter._shutdown:  # noqa: SLF001
            return Sent(taken=False, reason="it is shut down")
        most = exporter._max_request_size  # noqa: SLF001
        with exporter._metrics.export_operation(request.spans) as told:  # noqa: SLF001 - the exporter's own metrics
            if 0 < most < len(request.body):
                reason = f"a request of {len(request.body)} bytes is larger than its limit of {most}"
                told.error = _TOO_LARGE(reason)
                return Sent(taken=False, reason=reason)
            try:
                result = exporter._client.export(request.body)  # noqa: SLF001
                if result.success:
                    return self._answers.of(request)
            finally:
                self._answers.last = None
            told.error = result.error
            if result.status_code is not None:
                told.error_attrs = {_STATUS: result.status_code}
            return Sent(taken=False, reason=_reason(result))

    def give_up(self) -> None:
        """End a wait for the next try, now and from now on."""
        self._exporter._client._shutdown_event.set()  # noqa: SLF001


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


def _reason(result: Any) -> str:
    known = " ".join(str(part) for part in (result.status_code, result.reason or result.error) if part)
    return known or "no answer in time"


class _Answers(HttpTransport):
    """A transport that remembers the last answer too, as the stock client gives no one its body."""

    last: Any = None

    def request(self, *arguments: Any, **options: Any) -> Any:
        """Send."""
        self.last = super().request(*arguments, **options)
        return self.last

    def of(self, request: Encoded) -> Sent:
        """Read the last answer; one that cannot be read is taken for a plain yes, as the stock exporter takes it."""
        try:
            return partial(ExportTraceServiceResponse.FromString(self.last.content()), request.spans)
        except Exception:  # noqa: BLE001 - a proxy may answer anything
            return Sent(taken=True)
