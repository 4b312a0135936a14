"""Metrics as OTLP requests, byte for byte those of the stock exporters, without protobuf's library and the SDK."""

from __future__ import annotations

import os
import struct
import time

from otel_trading import faults
from otel_trading.drain import protobuf
from otel_trading.drain.metric_model import AggregationTemporality, Gauge, Histogram, Sum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TypeVar

    from otel_trading.drain.metric_model import (
        Buckets,
        Data,
        DataPoint,
        Exemplar,
        ExponentialHistogramDataPoint,
        HistogramDataPoint,
        Metric,
        MetricsData,
        NumberDataPoint,
        ResourceMetrics,
        ScopeMetrics,
    )

    Point = TypeVar("Point")

_PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_YIELD_EVERY = 16  # points
_ONE_BYTE = 0x80  # numbers below take one byte
_SMALL = [bytes((number,)) for number in range(_ONE_BYTE)]

# Tags of fields, by their kind and number, where a point has them; the wire type is in the low three bits.
_AS_DOUBLE, _AS_INT = 4 << 3 | protobuf.FIXED64, 6 << 3 | protobuf.FIXED64
_INTERVAL = struct.Struct("<BQBQ").pack  # start and end, as each point has them
_START, _END = 2 << 3 | protobuf.FIXED64, 3 << 3 | protobuf.FIXED64
_TOTALS = struct.Struct("<BQBd").pack  # a histogram's count and sum
_COUNT, _SUM = 4 << 3 | protobuf.FIXED64, 5 << 3 | protobuf.FIXED64
_DOUBLE = struct.Struct("<Bd").pack
_POINT = protobuf.tag(1, protobuf.LENGTH)
_SIGNED = struct.Struct("<Bq").pack
_IDS = struct.Struct("<BB8sBB16s").pack
_EXEMPLAR_DOUBLE = 3 << 3 | protobuf.FIXED64
_KEY, _VALUE, _STRING = (number << 3 | protobuf.LENGTH for number in (1, 2, 1))  # of an attribute, and in its value
_SPAN_ID, _TRACE_ID = 4 << 3 | protobuf.LENGTH, 5 << 3 | protobuf.LENGTH


def preferred() -> tuple[AggregationTemporality, AggregationTemporality]:
    """Return the temporalities of counters and histograms that the standard variable asks for.

    Its words are cumulative, delta and lowmemory; any other is reported, and means cumulative.
    """
    text = os.environ.get(_PREFERENCE, "").strip() or "cumulative"
    # They differ in observable counters alone, of which we have none.
    if text.upper() in {"DELTA", "LOWMEMORY"}:
        return AggregationTemporality.DELTA, AggregationTemporality.DELTA
    if text.upper() != "CUMULATIVE":
        faults.report(
            "export.metrics.temporality",
            f"{_PREFERENCE}={text!r} is none of cumulative, delta, lowmemory: cumulative is used",
        )
    return AggregationTemporality.CUMULATIVE, AggregationTemporality.CUMULATIVE


def encode(data: MetricsData) -> bytes:
    """Encode an ``ExportMetricsServiceRequest``; some 10 µs a number, 40 µs a histogram.

    Raises struct.error for a whole number that takes more than 64 bits, UnicodeEncodeError for half a surrogate pair
    in a metric's name; an attribute that has such things is left out.
    """
    return b"".join(protobuf.message(1, _resource(one)) for one in data.resource_metrics)


def _resource(found: ResourceMetrics) -> bytes:
    resource = found.resource
    parts = [protobuf.message(1, protobuf.attributes(1, resource.attributes))]
    parts += [protobuf.message(2, _scope(scoped)) for scoped in found.scope_metrics]
    # The stock exporters take the resource's own as well.
    parts.append(protobuf.text(3, resource.schema_url))
    return b"".join(parts)


def _scope(found: ScopeMetrics) -> bytes:
    scope = found.scope
    parts = [protobuf.message(1, protobuf.scope(scope.name, scope.version, scope.attributes))]
    parts += [protobuf.message(2, _metric(metric)) for metric in found.metrics]
    parts.append(protobuf.text(3, scope.schema_url))
    return b"".join(parts)


def _metric(metric: Metric) -> bytes:
    time.sleep(0)  # offers the interpreter to the threads that trade
    head = (
        protobuf.text(1, metric.name) + protobuf.text(2, metric.description or "") + protobuf.text(3, metric.unit or "")
    )
    # Without points the stock exporters do not say what kind of metric it is.
    return head + _data(metric.data) if metric.data.data_points else head


def _data(data: Data) -> bytes:
    if isinstance(data, Gauge):
        return protobuf.message(5, _points([_gauge(point) for point in _paced(data.data_points)]))
    temporality = protobuf.whole(2, data.aggregation_temporality)
    if isinstance(data, Sum):
        counters = _points([_counter(point) for point in _paced(data.data_points)])
        return protobuf.message(7, counters + temporality + protobuf.whole(3, data.is_monotonic))
    if isinstance(data, Histogram):
        return protobuf.message(9, _points([_explicit(point) for point in _paced(data.data_points)]) + temporality)
    return protobuf.message(10, _points([_exponential(point) for point in _paced(data.data_points)]) + temporality)


def _paced(points: Sequence[Point]) -> Iterator[Point]:
    """Give points, and offer the interpreter to the threads that trade now and then."""
    for number, point in enumerate(points, 1):
        yield point
        if not number % _YIELD_EVERY:
            time.sleep(0)


def _message(field: bytes, body: bytes) -> bytes:
    """Give a field that holds a message; ``field`` is its tag."""
    size = len(body)
    return field + (_SMALL[size] if size < _ONE_BYTE else protobuf.varint(size)) + body


def _points(encoded: Iterable[bytes]) -> bytes:
    return b"".join([_message(_POINT, body) for body in encoded])


def _interval(point: DataPoint) -> bytes:
    start, end = point.start_time_unix_nano, point.time_unix_nano
    if start and end:
        return _INTERVAL(_START, start, _END, end)
    return protobuf.fixed(2, start) + protobuf.fixed(3, end)


def _gauge(point: NumberDataPoint) -> bytes:
    # Without the start, as of the stock exporters.
    return protobuf.fixed(3, point.time_unix_nano) + _number(point)


def _counter(point: NumberDataPoint) -> bytes:
    return _interval(point) + _number(point)


def _number(point: NumberDataPoint) -> bytes:
    exemplars = _exemplars(5, point.exemplars)
    value = point.value
    middle = exemplars + _SIGNED(_AS_INT, value) if isinstance(value, int) else _DOUBLE(_AS_DOUBLE, value) + exemplars
    return middle + _attributes(7, point.attributes)


def _explicit(point: HistogramDataPoint) -> bytes:
    counts, bounds = point.bucket_counts, point.explicit_bounds
    return b"".join(
        (
            _interval(point),
            _totals(point),
            protobuf.raw(6, struct.pack(f"<{len(counts)}Q", *counts)),
            protobuf.raw(7, struct.pack(f"<{len(bounds)}d", *bounds)),
            _exemplars(8, point.exemplars),
            _attributes(9, point.attributes),
            _known(11, point.min),
            _known(12, point.max),
        )
    )


def _exponential(point: ExponentialHistogramDataPoint) -> bytes:
    return b"".join(
        (
            _attributes(1, point.attributes),
            _interval(point),
            _totals(point),
            protobuf.zigzag(6, point.scale),
            protobuf.fixed(7, point.zero_count),
            _side(8, point.positive),
            _side(9, point.negative),
            protobuf.whole(10, point.flags),
            _exemplars(11, point.exemplars),
            _known(12, point.min),
            _known(13, point.max),
        )
    )


def _totals(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> bytes:
    if point.count:
        return _TOTALS(_COUNT, point.count, _SUM, point.sum)
    return _DOUBLE(_SUM, point.sum)


def _side(number: int, side: Buckets) -> bytes:
    counts = side.bucket_counts
    if not len(counts):
        return b""
    packed = (
        bytes(list(counts))
        if max(counts) < _ONE_BYTE
        else b"".join([_SMALL[count] if count < _ONE_BYTE else protobuf.varint(count) for count in counts])
    )
    return protobuf.message(number, protobuf.zigzag(1, side.offset) + protobuf.message(2, packed))


def _known(number: int, value: float | None) -> bytes:
    return b"" if value is None else _DOUBLE(number << 3 | protobuf.FIXED64, value)


def _exemplars(number: int, found: Sequence[Exemplar]) -> bytes:
    return (
        b"".join([_message(_SMALL[number << 3 | protobuf.LENGTH], _exemplar(one)) for one in found]) if found else b""
    )


def _exemplar(one: Exemplar) -> bytes:
    value, ids = one.value, b""
    if one.span_id is not None and one.trace_id is not None:
        ids = _IDS(_SPAN_ID, 8, one.span_id.to_bytes(8, "big"), _TRACE_ID, 16, one.trace_id.to_bytes(16, "big"))
    middle = _DOUBLE(_EXEMPLAR_DOUBLE, value) + ids if isinstance(value, float) else ids + _SIGNED(_AS_INT, value)
    return protobuf.fixed(2, one.time_unix_nano) + middle + _attributes(7, one.filtered_attributes)


def _attributes(number: int, found: Mapping[str, object]) -> bytes:
    """Give what ``protobuf.attributes`` gives, the usual ones at a third of its cost."""
    if not found:
        return b""
    fields: list[bytes] = []
    for key, value in found.items():
        if type(value) is str and key:
            try:
                name, text = key.encode(), value.encode()
            except UnicodeEncodeError:
                continue
            size = len(name) + len(text) + 6
            if size < _ONE_BYTE:
                fields += (
                    bytes((number << 3 | protobuf.LENGTH, size, _KEY, len(name))),
                    name,
                    bytes((_VALUE, len(text) + 2, _STRING, len(text))),
                    text,
                )
                continue
        fields.append(protobuf.attributes(number, {key: value}))
    return b"".join(fields)
