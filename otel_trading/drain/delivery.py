"""Handing a batch of kept spans to every exporter: encoded once for those of OTLP, converted once for all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_trading import faults
from otel_trading.drain import exporters
from otel_trading.drain.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_trading._native import Batch
    from otel_trading.drain.otlp import Encoded, Encoder, Sender
    from otel_trading.drain.spans import Converter

# Spans of a batch where nothing else is asked for: the SDK's default, for exporters that we know nothing of …
_USUAL = 512
# … and for OTLP as many as make a request of this many bytes, so that requests are few and any receiver takes them.
_MOST_SPANS = 4096
_GOAL_BYTES = 2 << 20

_HTTP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_GRPC = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"


class Delivery:
    """The exporters of a process; used by one thread."""

    def __init__(
        self,
        found: Sequence[tuple[str, exporters.Spans]],
        attributes: Mapping[str, Any],
        lookup: Callable[[], Iterable[Mapping[str, Any]]],
    ) -> None:
        """Take exporters with their names, the resource's attributes, and what ``Converter`` takes to look names up."""
        self._attributes = attributes
        self._lookup = lookup
        self._converter: Converter | None = None
        self._senders: list[tuple[str, Sender]] = []
        self._others: list[tuple[str, Any]] = []
        self._encoder: Encoder | None = None
        self._wire = Wire()
        for name, exporter in found:
            sender = _sender(name, exporter, self._wire)
            if sender is None:
                self._others.append((name, exporter))
            else:
                self._senders.append((name, sender))
        if self._senders:
            from otel_trading.drain.otlp import Encoder

            self._encoder = Encoder(attributes)
        self.span_bytes = 0.0
        """Bytes of a span in a request, of late; 0 before the first request, and without an exporter for OTLP."""
        self.busy_with = ""
        """The exporter that has a batch now, or had the last one."""
        self.sent_bytes = 0
        """Bytes that the last batch took on the wire, all exporters and all tries together."""
        self.disk_operations = 0
        """Writes that it took."""

    @property
    def limit(self) -> int:
        """Spans that the next batch should have at most."""
        if self._others or not self.span_bytes:
            return _USUAL
        return max(1, min(_MOST_SPANS, int(_GOAL_BYTES / self.span_bytes)))

    def deliver(self, batch: Batch) -> int:
        """Hand a batch to every exporter; how many of its spans count as refused.

        That is all of them where one exporter did not take it, and otherwise as many as a receiver said it rejected.
        """
        spans: list[ReadableSpan] | None = None

        def converted() -> list[ReadableSpan]:
            nonlocal spans
            if spans is None:
                spans = self._convert(batch)
            return spans

        refused = 0
        self.sent_bytes = self.disk_operations = 0
        self._wire.taken()
        try:
            requests = [] if self._encoder is None else list(self._requests(self._encoder, batch, converted))
            if self._others:
                converted()
        except Exception as error:  # noqa: BLE001 - a batch that cannot be converted must not stop the next one
            faults.report("export.convert", f"{len(batch)} spans cannot be converted: {type(error).__name__}: {error}")
            return len(batch)
        # Marked as sent in the middle of it only where nobody else is to have it too, and nothing of it comes after.
        alone = len(self._senders) == 1 and not self._others
        for name, sender in self._senders:
            self.busy_with = name
            rejected = 0
            for number, request in enumerate(requests, 1):
                marked = batch if alone and number == len(requests) else None
                rejected += _sent(name, sender, request, marked)
            refused = max(refused, rejected)
        for name, exporter in self._others:
            self.busy_with = name
            if not exporters.took(name, "spans", exporter.export, converted()):
                refused = len(batch)
            # What they do is theirs: a stream is written to once a batch, all else is taken to send what we estimate.
            if exporters.writes(exporter):
                self.disk_operations += 1
            else:
                self.sent_bytes += batch.estimated_bytes
        self.sent_bytes += self._wire.taken()
        return refused

    def _convert(self, batch: Batch) -> list[ReadableSpan]:
        if self._converter is None:  # the SDK is loaded only where somebody takes its objects
            from opentelemetry.sdk.resources import Resource

            from otel_trading.drain.spans import Converter

            self._converter = Converter(Resource(self._attributes), self._lookup)
        return self._converter.convert(batch.states())

    def give_up(self) -> None:
        """Have OTLP exporters end their waits for the next try; called by another thread, and does not block."""
        for _, sender in self._senders:
            sender.give_up()

    def _requests(
        self, encoder: Encoder, batch: Batch, converted: Callable[[], list[ReadableSpan]]
    ) -> Iterator[Encoded]:
        from otel_trading.drain.otlp import MOST_BYTES, pieces

        request = encoder.encode(batch)
        size = len(request.body) / max(1, request.spans)
        # Larger ones count at once, smaller ones by and by.
        self.span_bytes = max(size, self.span_bytes * 0.9 + size * 0.1)
        if len(request.body) <= MOST_BYTES or request.spans == 1:
            yield request
        else:
            yield from pieces(converted())


def _sent(name: str, sender: Sender, request: Encoded, batch: Batch | None) -> int:
    """Send a request; how many of its spans were not taken."""
    try:
        sent = sender.send(request, batch)
    except Exception as error:  # noqa: BLE001 - an exporter's mistake stays here
        exporters.not_taken(name, "spans", f"{type(error).__name__}: {error}")
        return request.spans
    if not sent.taken:
        exporters.not_taken(name, "spans", sent.reason)
        return request.spans
    if sent.rejected or sent.reason:
        faults.report(
            f"export.spans.{name}.partial",
            f"the receiver of exporter {name!r} took a request of {request.spans} spans, but rejected {sent.rejected}"
            f" ({sent.reason or 'it does not say why'}); what it rejects counts as refused; this is not said again",
        )
    return sent.rejected


def _sender(name: str, exporter: Any, wire: Wire) -> Sender | None:
    """Return what sends requests by an OTLP exporter's transport; None for any exporter that is not ours or stock."""
    if exporters.is_own(exporter):
        sender: Sender = exporter.sender(wire)
        return sender
    module = type(exporter).__module__
    if module not in (_HTTP, _GRPC):
        return None
    try:
        if module == _HTTP:
            from otel_trading.drain.otlp_stock import StockSender

            return StockSender(exporter, wire)
        from otel_trading.drain.otlp_grpc import GrpcSender

        return GrpcSender(exporter, wire)
    except Exception as error:  # noqa: BLE001 - private parts of another package: anything may have changed
        faults.report(
            f"export.fast.{name}",
            f"exporter {name!r} is not built as this version of otel-trading expects ({error}): "
            "spans go to it as the SDK's objects, which takes more CPU time",
        )
        return None
