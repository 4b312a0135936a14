"""Batches of kept spans as OTLP requests, encoded from the records, and sent by the stock exporters' transports."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otel_trading.drain import protobuf
from otel_trading.drain.scopes import Scopes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Protocol

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

MOST_REQUEST = 64 << 20
"""Bytes of a request that the stock exporters send over http at most."""


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

    def __init__(self, attributes: Mapping[str, object], schema_url: str = "") -> None:
        """Encode the resource, once."""
        self._resource = protobuf.message(1, protobuf.attributes(1, attributes))
        self._schema_url = protobuf.text(3, schema_url)
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
                protobuf.message(1, protobuf.scope(scope.name, scope.version, scope.attributes)),
                protobuf.text(3, scope.schema_url or ""),
            )
        return known


def pieces(spans: Sequence[ReadableSpan]) -> Iterator[Encoded]:
    """Encode spans in as many requests as it takes for each to be small enough, or to hold one span alone."""
    # Rare: a batch that is twice as large as those before it.
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    body = encode_spans(spans).SerializeToString()
    if len(body) <= MOST_BYTES or len(spans) == 1:
        yield Encoded(body, len(spans))
        return
    middle = len(spans) // 2
    yield from pieces(spans[:middle])
    yield from pieces(spans[middle:])


def partial(rejected: int, reason: str, count: int) -> Sent:
    """Return what a receiver says in its answer to a request of ``count`` spans."""
    return Sent(taken=True, rejected=max(0, min(rejected, count)), reason=reason)
