"""Batches of kept spans as OTLP requests, encoded from the records, and sent by the stock exporters' transports."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.exporter.otlp.proto.common._internal import _encode_instrumentation_scope, _encode_resource
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from otel_trading.drain.scopes import Scopes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_trading._native import Batch

    class Sender(Protocol):
        """Sends requests the way a stock exporter does."""

        def send(self, request: Encoded, batch: Batch | None = None) -> Sent:
            """Send, with the exporter's own retries; what an exporter raises comes through.

            Where the sender can tell when the kernel has the whole request, ``batch`` is marked as sent then.
            """

        def give_up(self) -> None:
            """End a wait for the next try, now and from now on; called by another thread, and does not block."""


MOST_BYTES = 4 << 20
"""Bytes of a request that every receiver takes: grpc's limit where nobody has set another."""


class Encoded(NamedTuple):
    """An ExportTraceServiceRequest, and how many spans are in it."""

    body: bytes
    spans: int


class Sent(NamedTuple):
    """What became of a request: ``rejected`` spans of it were not taken, and ``reason`` says why."""

    taken: bool
    rejected: int = 0
    reason: str = ""


class UnfitError(Exception):
    """A stock exporter is not built as expected, so requests cannot ride on its transport; says what is missing."""


class Encoder:
    """Makes requests that are byte for byte those of the stock exporter."""

    def __init__(self, resource: Resource) -> None:
        """Encode the resource, once."""
        self._resource = ResourceSpans(resource=_encode_resource(resource)).SerializeToString()
        self._schema_url = ResourceSpans(schema_url=resource.schema_url).SerializeToString()
        self._scopes = Scopes()
        self._encoded: dict[str, tuple[bytes, bytes]] = {}

    def encode(self, batch: Batch) -> Encoded:
        """Encode a batch; under 1 µs a span on the native backend, which lets go of the interpreter meanwhile.

        Raises RuntimeError where the segment is gone.
        """
        scopes = [self._scope(text) for text in batch.scopes()]
        return Encoded(batch.otlp(self._resource, self._schema_url, scopes), len(batch))

    def _scope(self, text: str) -> tuple[bytes, bytes]:
        known = self._encoded.get(text)
        if known is None:
            if len(self._encoded) >= self._scopes.most:
                self._encoded.clear()
            scope = self._scopes[text]
            known = self._encoded[text] = (
                ScopeSpans(scope=_encode_instrumentation_scope(scope)).SerializeToString(),
                ScopeSpans(schema_url=scope.schema_url or "").SerializeToString(),
            )
        return known


def pieces(spans: Sequence[ReadableSpan]) -> Iterator[Encoded]:
    """Encode spans in as many requests as it takes for each to be small enough, or to hold one span alone."""
    body = encode_spans(spans).SerializeToString()
    if len(body) <= MOST_BYTES or len(spans) == 1:
        yield Encoded(body, len(spans))
        return
    middle = len(spans) // 2
    yield from pieces(spans[:middle])
    yield from pieces(spans[middle:])


def partial(response: ExportTraceServiceResponse, count: int) -> Sent:
    """Return what a receiver's answer to a request of ``count`` spans says of them."""
    said = response.partial_success
    rejected = max(0, min(said.rejected_spans, count))
    return Sent(taken=True, rejected=rejected, reason=said.error_message)
