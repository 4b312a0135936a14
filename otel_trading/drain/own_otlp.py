"""Exporters of our own for OTLP over plain http: without the stock ones, requests, protobuf and the SDK.

Those take 17 MB and a second of start-up.  Retries, time limits and compression are still the stock exporters': of
their packages the client for this is loaded, which is light.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.common.http import Compression, _OTLPHTTPClient
from opentelemetry.exporter.otlp.proto.http import _OTLP_HTTP_HEADERS

from otel_trading.drain.otlp_http import HttpSender
from otel_trading.drain.otlp_way import plain_way
from otel_trading.drain.plain_http import USUAL_HEADERS, PlainTransport
from otel_trading.drain.wire import HttpTransport

if TYPE_CHECKING:
    from typing import Any

    from otel_trading.drain.metric_model import MetricsData
    from otel_trading.drain.otlp_way import Signal, Way
    from otel_trading.drain.wire import Wire

_logger = logging.getLogger(__name__)

_SUCCESS, _FAILURE = SimpleNamespace(name="SUCCESS"), SimpleNamespace(name="FAILURE")


def exporter_of(signal: Signal) -> OwnSpans | OwnMetrics | None:
    """Make the exporter of a signal; None where the environment asks for more than plain http."""
    way = plain_way(signal)
    if way is None:
        return None
    return OwnSpans(way) if signal == "traces" else OwnMetrics(way)


class _Own:
    """What both have."""

    OWN = True
    """That it takes what the drain has, and no objects of the SDK's."""

    def __init__(self, way: Way, kind: Any) -> None:
        """Connects to nothing yet."""
        headers = {name.lower(): value for name, value in _OTLP_HTTP_HEADERS.items()}
        self.client: Any = _OTLPHTTPClient(
            transport=PlainTransport(way.endpoint, USUAL_HEADERS),
            endpoint=way.endpoint,
            kind=kind,
            timeout=way.seconds,
            compression=Compression(way.compression),
            headers={**headers, **way.headers},
            logger=_logger,
        )

    def shutdown(self) -> None:
        """Close the connection, and end a wait for the next try."""
        self.client.shutdown()


class OwnSpans(_Own):
    """Sends kept spans, by the sender that it gives."""

    def __init__(self, way: Way) -> None:
        """Connects to nothing yet."""
        super().__init__(way, "spans")

    def sender(self, wire: Wire) -> HttpSender:
        """Give what sends; ``wire`` is told how much."""
        return HttpSender(self.client, wire)


class OwnMetrics(_Own):
    """Sends metrics."""

    def __init__(self, way: Way) -> None:
        """Connects to nothing yet."""
        super().__init__(way, "metrics")

    def wire_to(self, wire: Wire) -> bool:
        """Have ``wire`` told how much is sent; True, as it is."""
        self.client._transport = HttpTransport(self.client._transport, wire)  # noqa: SLF001
        return True

    def export(self, data: MetricsData, timeout_millis: float | None = None) -> Any:  # noqa: ARG002
        """Send; gives an object whose ``name`` is ``SUCCESS`` or ``FAILURE``, as stock exporters do."""
        from otel_trading.drain.otlp_metrics import encode

        return _SUCCESS if self.client.export(encode(data)).success else _FAILURE
