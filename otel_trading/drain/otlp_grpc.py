"""OTLP requests over grpc, by the stock exporter: its channel, TLS, compression, headers, time limits, retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc import RpcError  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_trading.drain.otlp import Sent, UnfitError, partial
from otel_trading.drain.wire import GrpcWire, unsent

if TYPE_CHECKING:
    from grpc import Channel

    from otel_trading._native import Batch
    from otel_trading.drain.otlp import Encoded
    from otel_trading.drain.wire import Wire

_PARTS = ("_export", "_stub", "_client", "_channel", "_translate_data", "_count_data", "_shutdown_in_progress")
_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class GrpcSender:
    """Has the stock exporter send requests that are encoded already."""

    def __init__(self, exporter: Any, wire: Wire) -> None:
        """Put raw parts in the place of the exporter's encoding ones; ``wire`` is told what is sent.

        Raises UnfitError where it is not built as expected, and leaves it as it is.
        """
        _look(exporter)
        self._exporter = exporter
        self._answer: ExportTraceServiceResponse | None = None
        self._reason = ""
        self._wire = GrpcWire(wire, compressed(exporter))
        # The exporter makes a new stub by `_stub` when it reconnects.
        self._exporter._stub = self._stub  # noqa: SLF001 - what was looked up just now
        self._exporter._client = self._stub(self._exporter._channel)  # noqa: SLF001
        self._exporter._translate_data = lambda request: request.body  # noqa: SLF001
        self._exporter._count_data = lambda request: request.spans  # noqa: SLF001

    def send(self, request: Encoded, batch: Batch | None = None) -> Sent:  # noqa: ARG002
        """Send, and try again while the exporter's time allows it; when the kernel has it all can not be told."""
        self._answer, self._reason = None, ""
        result = self._exporter._export(request)  # noqa: SLF001
        if getattr(result, "name", None) != "SUCCESS":
            return Sent(taken=False, reason=self._reason or "it reports a failure")
        if self._answer is None:
            return Sent(taken=True)
        said = self._answer.partial_success
        return partial(said.rejected_spans, said.error_message, request.spans)

    def give_up(self) -> None:
        """End a wait for the next try, now and from now on."""
        self._exporter._shutdown_in_progress.set()  # noqa: SLF001

    def _stub(self, channel: Channel) -> _RawStub:
        return _RawStub(channel, self)


def compressed(exporter: object) -> bool:
    """Tell whether a stock grpc exporter's channel compresses."""
    return getattr(getattr(exporter, "_compression", None), "name", "NoCompression") != "NoCompression"


def _look(exporter: object) -> None:
    if type(exporter) is not trace_exporter.OTLPSpanExporter:
        message = f"{type(exporter).__qualname__} is not the stock exporter"
        raise UnfitError(message)
    missing = [part for part in _PARTS if getattr(exporter, part, None) is None]
    if missing:
        message = f"it has no {', '.join(missing)}"
        raise UnfitError(message)


class _RawStub:
    """A TraceServiceStub that takes bytes, and tells its sender the answer."""

    def __init__(self, channel: Channel, sender: GrpcSender) -> None:
        self._call = channel.unary_unary(
            _METHOD, request_serializer=None, response_deserializer=ExportTraceServiceResponse.FromString
        )
        self._sender = sender

    def Export(self, *, request: bytes, **options: Any) -> ExportTraceServiceResponse:  # noqa: N802 - the service's name
        try:
            answer: ExportTraceServiceResponse = self._call(request, **options)
        except RpcError as error:
            self._sender._reason = f"{error.code().name}: {error.details()}"  # noqa: SLF001 - one unit with it
            if not unsent(error.details()):
                self._count(request, options)
            raise
        self._count(request, options)
        self._sender._answer = answer  # noqa: SLF001
        return answer

    def _count(self, request: bytes, options: Any) -> None:
        self._sender._wire.add(len(request), lambda: request, options.get("metadata"))  # noqa: SLF001
