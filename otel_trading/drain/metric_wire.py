"""What metric exporters send: counted at the transports of the stock ones, estimated for all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_trading import faults
from otel_trading.drain.metric_model import Gauge, Metric, MetricsData, ResourceMetrics, ScopeMetrics, Sum
from otel_trading.drain.wire import GrpcWire, HttpTransport, unsent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.metrics.export import MetricExporter

    from otel_trading.drain.metric_model import Data
    from otel_trading.drain.wire import Wire

_HTTP = "opentelemetry.exporter.otlp.proto.http.metric_exporter"
_GRPC = "opentelemetry.exporter.otlp.proto.grpc.metric_exporter"

# Of an encoded request: the resource and scope, each metric's name and text, each point's times and attributes.
_REQUEST_BYTES, _METRIC_BYTES, _POINT_BYTES, _ATTRIBUTE_BYTES, _EXEMPLAR_BYTES = 500, 90, 40, 30, 60


def count(name: str, exporter: MetricExporter, wire: Wire) -> bool:
    """Have a stock OTLP exporter's transport tell what it sends; False for any other, whose bytes are estimated."""
    module = type(exporter).__module__
    if module not in (_HTTP, _GRPC):
        return False
    parts: Any = exporter
    try:
        if module == _HTTP:
            from otel_trading.drain.plain_http import plain

            client = parts._client  # noqa: SLF001
            client._transport = HttpTransport(plain(client._transport, client._endpoint), wire)  # noqa: SLF001
        else:
            _count_grpc(parts, wire)
    except Exception as error:  # noqa: BLE001 - private parts of another package: anything may have changed
        faults.report(
            f"export.wire.{name}",
            f"exporter {name!r} is not built as this version of otel-trading expects ({error}): "
            "what it sends of metrics is estimated for the budget",
        )
        return False
    return True


def _count_grpc(parts: Any, wire: Wire) -> None:
    from otel_trading.drain.otlp_grpc import compressed

    make_stub = parts._stub  # noqa: SLF001
    counting = GrpcWire(wire, compressed(parts))

    # The exporter makes a new stub by `_stub` when it reconnects.
    def counted(channel: Any) -> _CountingStub:
        return _CountingStub(make_stub(channel).Export, counting)

    parts._client = counted(parts._channel)  # noqa: SLF001
    parts._stub = counted  # noqa: SLF001


class _CountingStub:
    """A MetricsServiceStub that counts what it sends."""

    def __init__(self, export: Callable[..., Any], wire: GrpcWire) -> None:
        self._export = export
        self._wire = wire

    def Export(self, *, request: Any, **options: Any) -> Any:  # noqa: N802 - the service's name
        try:
            answer = self._export(request=request, **options)
        except Exception as error:
            if not unsent(getattr(error, "details", lambda: "")()):
                self._count(request, options)
            raise
        self._count(request, options)
        return answer

    def _count(self, request: Any, options: Any) -> None:
        self._wire.add(request.ByteSize(), request.SerializeToString, options.get("metadata"))


def estimated(data: MetricsData) -> int:
    """Estimate the bytes of a request as if it were encoded in OTLP, without compression."""
    return sum(
        _REQUEST_BYTES + sum(_size(metric) for scope in resource.scope_metrics for metric in scope.metrics)
        for resource in data.resource_metrics
    )


def _size(metric: Metric) -> int:
    return _METRIC_BYTES + sum(map(_point_size, metric.data.data_points))


def _point_size(point: Any) -> int:
    size = _POINT_BYTES + _ATTRIBUTE_BYTES * len(point.attributes or ()) + 8 * len(getattr(point, "bucket_counts", ()))
    size += _EXEMPLAR_BYTES * len(getattr(point, "exemplars", ()))
    buckets = getattr(getattr(point, "positive", None), "bucket_counts", ())
    # A count takes a byte for each 7 bits.
    return size + len(buckets) * (2 if point.count > 64 * len(buckets) else 1) if buckets else size


def divided(data: MetricsData, most: float) -> Iterator[MetricsData]:
    """Divide a request into pieces of at most ``most`` bytes, by the estimate, or of one point alone."""
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            piece: list[Metric] = []
            size = _REQUEST_BYTES
            for metric in scope.metrics:
                for part in _parts(metric, most - _REQUEST_BYTES):
                    more = _size(part)
                    if piece and size + more > most:
                        yield _request(resource, scope, piece)
                        piece, size = [], _REQUEST_BYTES
                    piece.append(part)
                    size += more
            if piece:
                yield _request(resource, scope, piece)


def _parts(metric: Metric, most: float) -> Iterator[Metric]:
    points: list[Any] = []
    size = _METRIC_BYTES
    for point in metric.data.data_points:
        more = _point_size(point)
        if points and size + more > most:
            yield _part(metric, points)
            points, size = [], _METRIC_BYTES
        points.append(point)
        size += more
    yield _part(metric, points)


def _part(metric: Metric, points: list[Any]) -> Metric:
    whole = metric.data
    data: Data
    if isinstance(whole, Gauge):
        data = Gauge(points)
    elif isinstance(whole, Sum):
        data = Sum(points, whole.aggregation_temporality, whole.is_monotonic)
    else:
        data = type(whole)(points, whole.aggregation_temporality)
    return Metric(metric.name, metric.description, metric.unit, data)


def _request(resource: ResourceMetrics, scope: ScopeMetrics, metrics: list[Metric]) -> MetricsData:
    scoped = ScopeMetrics(scope.scope, metrics, scope.schema_url)
    return MetricsData([ResourceMetrics(resource.resource, [scoped], resource.schema_url)])
